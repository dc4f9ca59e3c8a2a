-- How a gateway was connected to: from this machine, or by Perry's own node on the tailnet. Of a wake, with its latest attempt.
ALTER TABLE wakes ADD COLUMN way TEXT;
ALTER TABLE wake_attempts ADD COLUMN way TEXT;
