"""Wakes: how a workspace calls a person's assistant."""
