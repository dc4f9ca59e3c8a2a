"""The layout of sessions.db, script by script."""
