-- Jobs. Times are milliseconds since 1970, UTC, as they are compared.
CREATE TABLE cron_jobs (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    key               TEXT UNIQUE,              -- the client's own, against asking twice
    created           INTEGER NOT NULL,
    schedule          TEXT NOT NULL,            -- JSON, tagged with its kind
    action            TEXT NOT NULL,            -- JSON, tagged with its kind
    delete_after_run  INTEGER NOT NULL CHECK (delete_after_run IN (0, 1)),
    due               INTEGER,                  -- when it runs next; without, it will not
    runs              INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX cron_jobs_due ON cron_jobs (due) WHERE due IS NOT NULL;

-- Their runs, written before anything is done. One without an end is done again at the next start.
CREATE TABLE cron_runs (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT NOT NULL UNIQUE,             -- the job's id, and which of its runs it is
    job       TEXT NOT NULL,                    -- the job's id; the job may be gone
    name      TEXT NOT NULL,                    -- the job's name then
    action    TEXT,                             -- what is to be done, until it is
    due       INTEGER NOT NULL,
    started   INTEGER NOT NULL,
    by_hand   INTEGER NOT NULL CHECK (by_hand IN (0, 1)),
    ended     INTEGER,
    failed    INTEGER CHECK (failed IN (0, 1)),
    detail    TEXT
) STRICT;
CREATE INDEX cron_runs_job ON cron_runs (job, number);
CREATE INDEX cron_runs_name ON cron_runs (name, number);
CREATE INDEX cron_runs_open ON cron_runs (number) WHERE ended IS NULL;
