"""A small column and specimen behind the doubles of vendors' libraries, written for these tests: no vendor's code.

What it is outlives the library's process, as a microscope does: it is kept in the folder named by VENDOR_DOUBLE, where
a file `fault` says what it does wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

ELECTRONS_PER_S = 3.12e8  # 50 pA
MOVE_S = 0.03
_LOOK_S = 0.004
_places_nm = np.random.default_rng(8).uniform(-300, 300, (900, 2))


class Column:
    """Stage (nm, degrees), beam shift (nm), blanker; scans what lies there."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["VENDOR_DOUBLE"])
        self._file = self._folder / "column.json"
        self._rng = np.random.default_rng()
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.stage: list[float] = kept.get("stage", [0.0] * 5)
        self.blanked: bool = kept.get("blanked", False)
        self.shift_nm = [0.0, 0.0]
        self._target = list(self.stage)
        self._until_s = 0.0

    def fault(self, name: str) -> bool:
        """Whether it is to do that wrong now."""
        path = self._folder / "fault"
        return path.exists() and path.read_text() == name

    def note(self, word: str) -> None:
        """For the tests: what was commanded, in order."""
        with (self._folder / "diary").open("a") as diary:
            diary.write(f"{word}\n")

    def blank(self, is_blanked: bool) -> None:
        self.note("blank" if is_blanked else "unblank")
        if not self.fault("deaf blanker"):
            self.blanked = is_blanked
        self._keep()

    def drive(self, axis: int, place: float) -> None:
        """Set off; it is there after a while."""
        if self.fault("clamps"):
            place = max(-100.0, min(100.0, place))
        if self.fault("stuck"):
            place = self.stage[axis]
        self._target[axis] = place
        self._until_s = time.monotonic() + MOVE_S

    @property
    def moves(self) -> bool:
        if self.fault("never rests") or time.monotonic() < self._until_s:
            return True
        if self._target != self.stage:
            self.stage = list(self._target)
            self._keep()
        return False

    def halt(self) -> None:
        self._target = list(self.stage)
        self.note("halt")

    def scan(self, width_nm: float, rows: int, columns: int, dwell_s: float) -> np.ndarray:
        """Counts of one scan around where stage and beam shift are; what is scanned blanked is dark."""
        self.note("scan")
        if self.fault("hangs"):
            ctypes.PyDLL(None).sleep(600)  # in C, with the interpreter's lock in its hand
        lit_s, duration_s = 0.0, rows * columns * dwell_s / (20 if self.fault("hurries") else 1)
        begun_s = time.monotonic()
        while (now_s := time.monotonic() - begun_s) < duration_s:
            if self.fault("fails in the scan") and now_s > duration_s / 2:
                raise OSError("the scan generator does not answer")
            if not self.blanked:
                lit_s = now_s + _LOOK_S
            time.sleep(min(_LOOK_S, duration_s - now_s))
        lit_rows = rows if not self.blanked else int(rows * lit_s / duration_s)
        image = self._image(width_nm, rows, columns) * ELECTRONS_PER_S * dwell_s
        image[lit_rows:] = 0.0
        return self._rng.poisson(image)

    def _image(self, width_nm: float, rows: int, columns: int) -> np.ndarray:
        pixel_nm = width_nm / columns
        x = (np.arange(columns) - (columns - 1) / 2) * pixel_nm + self.stage[0] + self.shift_nm[0]
        y = (np.arange(rows) - (rows - 1) / 2) * pixel_nm + self.stage[1] + self.shift_nm[1]
        across = np.exp(-((x[None, :] - _places_nm[:, :1]) ** 2) / 20)
        down = np.exp(-((y[None, :] - _places_nm[:, 1:]) ** 2) / 20)
        return 0.005 + 0.05 * (down.T @ across)

    def _keep(self) -> None:
        state: dict[str, Any] = {"stage": self.stage, "blanked": self.blanked}
        self._file.with_suffix(".new").write_text(json.dumps(state))
        self._file.with_suffix(".new").replace(self._file)


COLUMN = Column()
