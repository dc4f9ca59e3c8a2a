"""Perry's own images: which there are, when they are stale, and how they are built."""
