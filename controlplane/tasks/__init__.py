"""Tasks: work for coding agents, queued, begun, followed to its end and told of."""
