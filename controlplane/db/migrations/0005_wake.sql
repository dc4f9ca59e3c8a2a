-- The outbox: every wake, until long after it was delivered. Times are milliseconds since 1970, UTC.
CREATE TABLE wakes (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,          -- what it is known by; one that comes again is the same wake
    lane       TEXT NOT NULL,                 -- wakes of one lane keep their order: a workspace's name, or ''
    workspace  TEXT,                          -- whom it comes from
    task       TEXT,
    text       TEXT NOT NULL,                 -- as it came, cleaned; what a gateway gets is made of it
    mode       TEXT NOT NULL,
    gateway    TEXT NOT NULL,                 -- its name in the settings; '' where there was none
    state      TEXT NOT NULL CHECK (state IN ('queued', 'delivering', 'delivered', 'rejected', 'dead')),
    created    INTEGER NOT NULL,
    since      INTEGER NOT NULL,              -- from when on the days are counted after which it is dead
    next       INTEGER,                       -- when it is tried again
    settled    INTEGER,
    attempts   INTEGER NOT NULL DEFAULT 0,
    status     INTEGER,                       -- of the latest attempt
    answer     TEXT                           -- of the latest attempt, for people
) STRICT;
CREATE INDEX wakes_open ON wakes (number) WHERE settled IS NULL;
CREATE INDEX wakes_settled ON wakes (settled) WHERE settled IS NOT NULL;
CREATE INDEX wakes_workspace ON wakes (workspace, number);

CREATE TABLE wake_attempts (
    wake       INTEGER NOT NULL REFERENCES wakes (number) ON DELETE CASCADE,
    attempt    INTEGER NOT NULL,              -- which of its attempts
    gateway    TEXT NOT NULL,
    began      INTEGER NOT NULL,
    ended      INTEGER,                       -- without, Perry ended meanwhile: whether it arrived is not known
    status     INTEGER,
    answer     TEXT,
    PRIMARY KEY (wake, attempt)
) STRICT, WITHOUT ROWID;
