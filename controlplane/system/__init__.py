"""The control plane itself: health, metrics, logs, its HTTP server, its settings and its end."""
