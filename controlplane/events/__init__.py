"""The stream of changes (``/events``)."""
