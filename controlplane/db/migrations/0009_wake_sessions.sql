-- Where the assistant takes a wake up: in its main session, or in one of its own.
ALTER TABLE wakes ADD COLUMN session TEXT NOT NULL DEFAULT 'main' CHECK (session IN ('main', 'isolated'));
