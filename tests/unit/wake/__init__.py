"""Wakes."""
