-- What was asked for. What exists is Docker's to say.
CREATE TABLE workspaces (
    name        TEXT PRIMARY KEY,
    created     TEXT NOT NULL,             -- RFC 3339, UTC
    desired     TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'deleted')),
    ssh_port    INTEGER NOT NULL UNIQUE,
    subnet      TEXT NOT NULL UNIQUE,      -- of the workspace's bridge
    request     TEXT NOT NULL,             -- JSON: image, docker, limits, clone
    startup     TEXT,                      -- JSON: the latest start, step by step
    key_id      TEXT,                      -- one-time key that was minted and may be unused
    node_id     TEXT,                      -- its node on the tailnet
    host_keys   TEXT NOT NULL DEFAULT '[]',
    error       TEXT
) STRICT;

-- Nodes and keys whose workspace is gone, to be removed when the coordinator answers again.
CREATE TABLE tailnet_leftovers (
    kind  TEXT NOT NULL CHECK (kind IN ('node', 'key')),
    id    TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
