-- What the latest look at a task left for the next one, so that a control plane that begins again goes on from there.
ALTER TABLE tasks ADD COLUMN look TEXT;
