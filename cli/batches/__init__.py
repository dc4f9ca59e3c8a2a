"""Batches: what is asked for with ``perry dispatch --each`` and ``--file``, watched, and collected as files."""
