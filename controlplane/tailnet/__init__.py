"""The tailnet, as its owner asks about it: how it stands, and how one more device joins."""
