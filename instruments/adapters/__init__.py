"""One module for each kind of instrument, found by name through `instruments.registry`."""
