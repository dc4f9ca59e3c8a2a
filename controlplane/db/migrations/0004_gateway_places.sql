-- A place on each tailnet that was ever configured: who comes back to one finds its old node, and can have it deleted.
CREATE TABLE gateway_places (
    tailnet  TEXT PRIMARY KEY,
    node_id  TEXT,
    key_id   TEXT                          -- one-time key that was minted and may be unused
) STRICT;
INSERT INTO gateway_places SELECT tailnet, node_id, key_id FROM gateway;
DROP TABLE gateway;
ALTER TABLE gateway_places RENAME TO gateway;
