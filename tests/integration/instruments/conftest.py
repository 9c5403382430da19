"""What stands beside the tests here are programs, some for a Python of their own: pytest imports none of them."""

from __future__ import annotations

collect_ignore_glob = [
    "*_ioc.py",
    "*_server.py",
    "*_devices.py",
    "*_device.py",
    "*_double.py",
    "digitalmicrograph_double",
    "vendor_doubles",
]
