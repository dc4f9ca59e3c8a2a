-- Which tailnet the ids are of: they mean something within one alone. Those that there are came from the only kind that
-- there was.
ALTER TABLE workspaces ADD COLUMN tailnet TEXT NOT NULL DEFAULT 'embedded';

CREATE TABLE leftovers_of_tailnets (
    tailnet  TEXT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('node', 'key')),
    id       TEXT NOT NULL,
    PRIMARY KEY (tailnet, kind, id)
) STRICT;
INSERT INTO leftovers_of_tailnets SELECT 'embedded', kind, id FROM tailnet_leftovers;
DROP TABLE tailnet_leftovers;
ALTER TABLE leftovers_of_tailnets RENAME TO tailnet_leftovers;
