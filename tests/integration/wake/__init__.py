"""Wakes through real processes."""
