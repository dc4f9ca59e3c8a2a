"""One module or folder per outside system; each implements a port of `controlplane.ports`."""
