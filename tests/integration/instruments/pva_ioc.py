"""A small STEM as an EPICS PV Access server: `python pva_ioc.py`, prefix TEM:, ports from the environment.

Numbers are NTScalar with control limits, which the server enforces; images are NTNDArray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ioc_specimen import Specimen
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server, ServerOperation
from p4p.server.thread import SharedPV


def number(kind: str, value: float, low: float = 0.0, high: float = 0.0) -> SharedPV:
    """A number that takes what lies within its control limits, where it has any, and refuses the rest."""
    pv = SharedPV(
        nt=NTScalar(kind, control=True, display=True, valueAlarm=True),
        initial={"value": value, "control.limitLow": low, "control.limitHigh": high},
    )

    def put(pv: SharedPV, operation: ServerOperation) -> None:
        wanted = operation.value()
        if low < high and not low <= wanted <= high:
            operation.done(error=f"{wanted} is outside {low} to {high}")
            return
        pv.post(wanted)
        operation.done()

    pv.put(put)  # type: ignore[misc]  a decorator, called
    return pv


class Microscope:
    """Its channels by name, and the exposure."""

    def __init__(self) -> None:
        self.channels = {
            "x": number("d", 0.0, -40_000, 40_000),
            "y": number("d", 0.0, -40_000, 40_000),
            "current": number("d", 20.0, 0, 200),
            "field": number("d", 100.0, 1, 2000),
            "dwell": number("d", 1.0, 0.1, 100_000),
            "rows": number("i", 32, 1, 64),
            "columns": number("i", 32, 1, 64),
            "blanked": number("i", 1),
            "abort": number("i", 0),
            "count": number("i", 0),
            "acquire": SharedPV(nt=NTScalar("i"), initial=0),
            "haadf": SharedPV(nt=NTNDArray(), initial=np.zeros((32, 32), np.uint16)),
        }
        self._specimen = Specimen()
        self.channels["acquire"].put(self._acquire)  # type: ignore[misc]

    def value(self, name: str) -> float:
        return float(self.channels[name].current())

    def _acquire(self, _pv: SharedPV, operation: ServerOperation) -> None:
        threading.Thread(target=self._exposed, args=(operation.done,), daemon=True).start()

    def _exposed(self, done: Callable[..., Any]) -> None:
        self.channels["abort"].post(0)
        shape = (1, int(self.value("rows")), int(self.value("columns")))
        until_s = time.monotonic() + self.value("dwell") * 1e-6 * shape[1] * shape[2]
        while time.monotonic() < until_s and not self.value("abort"):
            time.sleep(0.005)
        counts = self._specimen.counts(
            centre_nm=(self.value("x"), self.value("y")), field_nm=self.value("field"), shape=shape,
            dwell_us=self.value("dwell"), pa=0.0 if self.value("blanked") else self.value("current"),
        )  # fmt: skip
        self.channels["haadf"].post(counts[0].astype(np.uint16))
        self.channels["count"].post(int(self.value("count")) + 1)
        done()


if __name__ == "__main__":
    microscope = Microscope()
    Server.forever(providers=[{f"TEM:{name}": pv for name, pv in microscope.channels.items()}])
