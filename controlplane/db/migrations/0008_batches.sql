-- Batches: one task for many items, each in a workspace of its own. "settled": nothing is owed any more.
CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    wishes TEXT NOT NULL,
    text TEXT NOT NULL,
    created TEXT NOT NULL,
    ended TEXT,
    cancelled INTEGER NOT NULL DEFAULT 0,
    wake_id TEXT,
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX batches_unsettled ON batches (number) WHERE settled = 0;

-- "task" is the id of its task, once it has one; "refused" says why it never got one.
CREATE TABLE batch_items (
    batch TEXT NOT NULL REFERENCES batches (id),
    number INTEGER NOT NULL,
    item TEXT NOT NULL,
    workspace TEXT NOT NULL,
    wanted TEXT NOT NULL,
    was_there INTEGER NOT NULL,
    task TEXT,
    refused TEXT,
    kept TEXT,
    removal TEXT,
    settled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, number)
) STRICT;

-- A workspace is one batch's at a time.
CREATE UNIQUE INDEX batch_items_at_work ON batch_items (workspace) WHERE settled = 0;
