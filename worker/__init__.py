"""The worker: what runs inside every workspace and tells the control plane what the coding agents there are doing."""
