"""Sessions of coding agents: how their files are found, watched and read. Knows no agent by name."""
