"""Sessions of coding agents as the commands find, follow and show them."""
