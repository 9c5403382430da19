"""Any ophyd or ophyd-async device tree as an instrument; its devices live in a process of their own."""

from instruments.adapters.ophyd.config import OphydConfig
from instruments.adapters.ophyd.microscope import OphydMicroscope, open_ophyd

__all__ = ["OphydConfig", "OphydMicroscope", "open_ophyd"]
