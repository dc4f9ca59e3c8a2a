"""Numbered SQL scripts; each runs once, in its order, in a transaction of its own."""
