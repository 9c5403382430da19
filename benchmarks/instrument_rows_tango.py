"""The row of `benchmarks/instruments.py` for Tango devices: pytango's own server on loopback, beside its own client."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import instruments
from benchmarks.instrument_rows import Row
from instruments import Blank, SetAxes
from instruments.microscope import Closable

SERVER = Path(__file__).resolve().parents[1] / "tests" / "integration" / "instruments" / "tango_server.py"
_START_S = 60.0


@contextmanager
def tango(folder: Path) -> Iterator[Row | str]:
    """A stage axis set where it stands all but exactly; bare: the same writes, States and readings in that order."""
    del folder
    try:
        from tango import DevFailed, DeviceProxy
    except ImportError:
        yield "pip install 'stempilot[tango]'"
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stdout=subprocess.DEVNULL)
    try:
        stage_name, blanker_name = (f"tango://127.0.0.1:{port}/test/{name}/1#dbase=no" for name in ("stage", "blanker"))
        until_s = time.monotonic() + _START_S
        while True:
            try:
                stage, blanker = DeviceProxy(stage_name), DeviceProxy(blanker_name)
                stage.ping(), blanker.ping()
                break
            except DevFailed:
                if time.monotonic() > until_s or process.poll() is not None:
                    raise
                time.sleep(0.05)
        ours = instruments.open(
            "tango",
            axes={"x_nm": {"device": stage_name, "attribute": "x", "factor": 1e3, "tolerance": 0.01}},
            blanker={"device": blanker_name, "attribute": "blanked"},
            probe_current_pa=50.0,
            beam_energy_ev=200e3,
            simulated=True,
        )
        ours.execute(Blank(action_id="blank"))

        def read_bare(number: int) -> None:
            del number
            stage.read_attribute("x"), blanker.read_attribute("blanked")

        def set_bare(number: int) -> None:
            stage.write_attribute("x", _place_nm(number) * 1e-3)
            stage.state()
            read_bare(number)

        assert isinstance(ours, Closable)
        with closing(ours):
            yield Row(
                name="tango",
                way="in process",
                bare="pytango's DeviceProxy",
                microscope=ours,
                setting=lambda number: SetAxes(action_id=f"set-{number}", values={"x_nm": _place_nm(number)}),
                bare_read=read_bare,
                bare_setting=set_bare,
            )
    finally:
        process.kill()
        process.wait()


def _place_nm(number: int) -> float:
    return 1e-4 * (number % 7)  # so near that nothing has to be waited for


TANGO_ROWS: dict[str, Callable[[Path], AbstractContextManager[Row | str]]] = {"tango": tango}
