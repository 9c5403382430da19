"""Loaded by a worker in whatever Python the devices need: sets its environment, then makes the tree there."""

from __future__ import annotations

import os
import sys
from typing import Any


def open_device(environment: dict[str, str], folders: list[str], **settings: Any) -> Any:
    """The devices, connected. EPICS reads the environment when its libraries are loaded, which comes after this."""
    os.environ.update(environment)
    sys.path[:0] = folders
    from instruments.adapters.ophyd.devices import Devices

    return Devices(**settings)
