"""A double of PyJEM: the few names the adapter uses, as the public manual and scripts show them; not JEOL's code."""
# ruff: noqa: N999
