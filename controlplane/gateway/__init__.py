"""The gateway: the control plane's own place on the tailnet, in a container."""
