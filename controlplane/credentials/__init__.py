"""What a person's workspaces are given: credentials, identities, settings of coding agents, scripts."""
