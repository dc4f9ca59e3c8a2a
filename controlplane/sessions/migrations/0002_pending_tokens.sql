-- By its token a message that waits is found in memory, if it is there: the words of it, as they were written.
ALTER TABLE pending ADD COLUMN token INTEGER NOT NULL DEFAULT 0;
