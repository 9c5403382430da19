"""A row of `benchmarks/instruments.py` for ophyd: an EPICS server on loopback, by the adapter and by ophyd itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import instruments
from benchmarks.instrument_rows import Row
from instruments import AcquireFrame, Optics, ScanPattern, SetAxes
from instruments.microscope import Closable

SERVERS = Path(__file__).resolve().parents[1] / "tests" / "integration" / "instruments"
_READ = (
    "temperature", "bias", "flow", "strain",
    "shift_x", "shift_y", "defocus", "current", "field", "dwell", "subframes", "pace", "jammed", "blanked", "measured",
)  # fmt: skip
_serial = count()


@contextmanager
def ophyd(folder: Path) -> Iterator[Row | str]:
    """A beam shift of 10 ms and a frame of 64 x 64 px in 4 ms, beside ophyd's own devices in this process.

    The bare client sends what ours does for the same: puts with completion, what is read back, and the whole state.
    """
    del folder
    if not all(map(find_spec, ("ophyd", "epics", "caproto"))):
        yield "pip install 'stempilot[ophyd]' caproto"
        return
    from tests.integration.instruments.epics_instrument import SoftIoc, configuration

    with SoftIoc() as ioc:
        os.environ.update(ioc.environment)  # before ophyd is loaded here, whose libraries read it once
        sys.path.insert(0, str(SERVERS))
        ours = instruments.open("ophyd", **configuration(ioc.environment))
        try:
            yield _row(ours, _bare())
        finally:
            if isinstance(ours, Closable):
                ours.close()


def _bare() -> Any:
    from epics_devices import microscope

    tem = microscope()
    tem.wait_for_connection(timeout=30)
    return tem


def _row(ours: instruments.Microscope, tem: Any) -> Row:
    def read_bare(_: int) -> None:
        tem.stage_x.user_readback.get(use_monitor=False), tem.stage_y.user_readback.get(use_monitor=False)
        for name in _READ:
            getattr(tem, name).get(use_monitor=False)

    def set_bare(number: int) -> None:
        tem.shift_x.set(_place_nm(number)).wait(10)
        tem.shift_x.get(use_monitor=False)
        read_bare(number)

    def expose_bare(number: int) -> None:
        tem.blanked.set(1).wait(10)
        tem.blanked.get(use_monitor=False)
        read_bare(number)
        tem.rows.set(64).wait(10), tem.columns.set(64).wait(10)
        tem.rows.get(use_monitor=False), tem.columns.get(use_monitor=False)
        tem.count.get(use_monitor=False)
        tem.blanked.set(0).wait(10)
        tem.acquire.set(1).wait(10)
        tem.blanked.set(1).wait(10)
        tem.blanked.get(use_monitor=False)  # whose stamp tells of the clock
        tem.count.get(use_monitor=False), tem.haadf.get(use_monitor=False)
        read_bare(number)

    return Row(
        name="ophyd, EPICS Channel Access",
        way="worker",
        bare="ophyd 1.11 with pyepics, in this process",
        microscope=ours,
        setting=lambda number: SetAxes(action_id=f"set-{next(_serial)}", values={"beam_shift_x_nm": _place_nm(number)}),
        bare_read=read_bare,
        bare_setting=set_bare,
        frame=lambda number: _frame(1.0),
        bare_frame=expose_bare,
        long=lambda number: _frame(1000.0),
    )


def _place_nm(number: int) -> float:
    return float(number % 7) * 10.0


def _frame(dwell_time_us: float) -> AcquireFrame:
    return AcquireFrame(
        action_id=f"frame-{next(_serial)}",
        deadline_s=60.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=20.0),
        scan=ScanPattern(field_of_view_nm=100.0, shape_px=(64, 64), dwell_time_us=dwell_time_us),
        mode="haadf",
    )


OPHYD_ROWS: dict[str, Callable[[Path], AbstractContextManager[Row | str]]] = {"ophyd": ophyd}
