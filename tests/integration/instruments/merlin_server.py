"""LiberTEM-live's simulated Merlin on loopback, run by the Python of `.venv/merlin`: FILE.hdr ROWS COLUMNS CACHED.

Prints its ports (control, data) and ends when its standard input does. It sends what is in the file, however long it
was told to expose, until a line `obeys` comes in: from then on frames take the time that was set, say so in their
headers, and count in proportion. A line `recites` takes that back, `counts` asks how many acquisitions it has begun.
Each line is answered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import MethodType
from typing import Any

import numpy as np
from libertem_live.detectors.merlin.sim import CameraSim

_TIME_FIELD, _PREFIX_BYTES = 10, 15


class Obedience:
    """Around a simulator's frames: those of the file, or those of the time it was told."""

    def __init__(self, camera: CameraSim) -> None:
        self.is_obedient = False
        self.begun_count = 0
        self._told: dict[str, str] = camera.control_t._params
        self._recited = camera.sim._get_single_scan
        self._rng = np.random.default_rng(1)

    def frames(self, sim: Any, roi: np.ndarray) -> Iterator[bytes]:
        """The prefixes and frames of one acquisition."""
        self.begun_count += 1
        if not self.is_obedient:
            yield from self._recited(roi)
            return
        exposure_s = float(self._told["ACQUISITIONTIME"]) * 1e-3
        sim._dwelltime = float(self._told["ACQUISITIONPERIOD"]) * 1e3  # in us: the simulator waits as long
        try:
            for piece in self._recited(roi):
                yield piece if len(piece) == _PREFIX_BYTES else self._exposed(bytes(piece), exposure_s)
        finally:
            sim._dwelltime = None

    def _exposed(self, frame: bytes, exposure_s: float) -> bytes:
        """The frame as if it had been exposed for so long: its header says so, its counts are as many more."""
        offset_bytes = int(frame.split(b",", 3)[2])
        words = frame[:offset_bytes].split(b",")
        longer = exposure_s / float(words[_TIME_FIELD])
        words[_TIME_FIELD] = b"%.6f" % exposure_s
        counts = np.frombuffer(frame[offset_bytes:], ">u2")
        more = self._rng.poisson(counts * longer).astype(">u2") if longer != 1 else counts
        return b",".join(words).rstrip(b" ").ljust(offset_bytes) + more.tobytes()


def main() -> None:
    path, rows, columns, cached = sys.argv[1:]
    camera = CameraSim(
        path=path, nav_shape=(int(rows), int(columns)), host="127.0.0.1", data_port=0, control_port=0, trigger_port=0,
        wait_trigger=True, cached=cached,
    )  # fmt: skip
    obedience = Obedience(camera)
    camera.sim._get_single_scan = MethodType(lambda sim, roi: obedience.frames(sim, roi), camera.sim)
    camera.start()
    camera.wait_for_listen()
    print(json.dumps([camera.control_t.port, camera.server_t.port]), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word != "counts":
            obedience.is_obedient = word == "obeys"
        print(obedience.begun_count if word == "counts" else word, flush=True)


if __name__ == "__main__":
    main()
