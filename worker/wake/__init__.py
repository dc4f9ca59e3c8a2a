"""Wakes from inside the workspace: a door that answers as gateways do, and a spool that keeps them until the control
plane has them."""
