"""Loads the kit's plug-in for the tests beside this."""

pytest_plugins = ["instruments.conformance.pytest_plugin"]
