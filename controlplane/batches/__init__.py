"""Batches: one task for many items, each in a workspace of its own."""
