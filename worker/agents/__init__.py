"""The coding agents whose sessions are read. To add one: docs/howto/coding-agents.md."""
