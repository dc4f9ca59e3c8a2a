-- The gateway's place on the tailnet: at most one row.
CREATE TABLE gateway (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    tailnet  TEXT NOT NULL,                -- what the ids are of
    node_id  TEXT,
    key_id   TEXT                          -- one-time key that was minted and may be unused
) STRICT;
