-- Work that coding agents were given. "settled": nothing is owed any more after its end (wake, removal).
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    workspace TEXT NOT NULL,
    request TEXT NOT NULL,
    text TEXT NOT NULL,
    state TEXT NOT NULL,
    created TEXT NOT NULL,
    started TEXT,
    ended TEXT,
    exit_code INTEGER,
    reason TEXT,
    session_id TEXT,
    last_message TEXT,
    waits INTEGER NOT NULL DEFAULT 0,
    wake_id TEXT,
    outcome TEXT,
    removal TEXT,
    stalls INTEGER NOT NULL DEFAULT 0,
    checks INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX tasks_by_workspace ON tasks (workspace, number);
CREATE INDEX tasks_unsettled ON tasks (number) WHERE settled = 0;
