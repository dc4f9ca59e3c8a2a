"""Commands in workspaces, with their streams (``/exec/<name>``). They live as long as the client's connection."""
