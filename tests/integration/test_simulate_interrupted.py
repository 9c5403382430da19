"""`stempilot simulate` on a terminal: the bar with the time left, and Ctrl-C in the middle of it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.harness import CONSOLE
from tests.waiting import DEADLINE_S

_COMMAND = (
    "SrTiO3", "--optics", "beam_energy_ev=200e3,semi_convergence_angle_mrad=25", "--method", "multislice",
    "--thickness-nm", "20", "--shape-px", "64,64",
)  # fmt: skip


def test_ctrl_c_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    """A quarter of an hour's work, stopped as soon as the bar is there."""
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CONSOLE, "simulate", *_COMMAND, "--out", str(tmp_path / "sto.nxs")],
        stdin=end, stdout=end, stderr=end, env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(end)
    try:
        shown = _read_until(terminal, rb"probes \d+/4096 .*\d:\d\d left")
        process.send_signal(signal.SIGINT)
        shown += _read_until(terminal, rb"nothing was written")
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert b"Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def _read_until(terminal: int, pattern: bytes) -> bytes:
    shown, ends_s = b"", time.monotonic() + DEADLINE_S
    while re.search(pattern, shown) is None:
        assert time.monotonic() < ends_s, shown
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError as error:  # the other end is closed
                raise AssertionError(shown) from error
    return shown
