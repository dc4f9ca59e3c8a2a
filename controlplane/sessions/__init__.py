"""The sessions of coding agents in all workspaces: followed, indexed, searched, told."""
