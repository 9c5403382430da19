"""The PV Access microscope in ophyd-async's words, and ophyd-async's own simulated stage and counter."""

from __future__ import annotations

from ophyd_async.core import Device
from ophyd_async.epics.core import epics_signal_r, epics_signal_rw
from ophyd_async.sim import SimMotor, SimPointDetector

_SETTINGS = {
    "x": float, "y": float, "current": float, "field": float, "dwell": float, "rows": int, "columns": int,
    "blanked": int, "acquire": int, "abort": int,
}  # fmt: skip


class Microscope(Device):
    """A signal for each channel."""

    def __init__(self, prefix: str, name: str = "") -> None:
        for setting, kind in _SETTINGS.items():
            setattr(self, setting, epics_signal_rw(kind, f"pva://{prefix}{setting}"))
        self.count = epics_signal_r(int, f"pva://{prefix}count")
        self.haadf = epics_signal_r(None, f"pva://{prefix}haadf")
        super().__init__(name=name)


def microscope(prefix: str = "TEM:") -> Microscope:
    """The root of the tree."""
    return Microscope(prefix, name="tem")


def bench() -> dict[str, Device]:
    """ophyd-async's simulated motor and point detector."""
    return {"motor": SimMotor(name="motor"), "detector": SimPointDetector(None, name="detector")}
