"""The workers inside workspaces: which version each has, its secret, and the stream that is kept to it."""
