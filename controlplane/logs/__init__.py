"""What workspaces print, followed as it comes (``GET /logs/<name>``)."""
