"""Workspaces: made, kept as asked for, and taken away.

`state`, `spec` and `repository` are pure; `store` is the SQL; `pods`, `sidecars` and `checkout` are verbs on one
workspace; `startup` is the walk of a start; `service` is the use cases; `reconciler` brings what exists and what was
asked for together; `routes` and `uploads` are the way in.
"""
