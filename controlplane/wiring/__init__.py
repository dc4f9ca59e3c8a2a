"""Puts the parts together. Nothing is imported here, so that a test can put together one part alone."""
