"""What an image takes of memory while it is computed, beside what is kept, and a person's bound on both.

Neighbours: `backend` says what is free, `sources` keeps within `working_bytes`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.arguments import positive
from simulation.backend import MEMORY_SHARE, Backend, host_memory_bytes
from simulation.errors import InvalidParameter
from simulation.transmission_bands import BAND_BYTES, OVERSAMPLING
from simulation.wave_grid import WaveGrid

_WHOLE_WAVES = 24
"""Arrays of the whole grid alive at once, as complex numbers: most are those of the sums beside windows."""
_ARRAYS_PER_BATCH = 6
_ARRAYS_PER_BAND = 8
_KEPT_AT_ONCE = 3
"""Transmission functions, what was made of them for the last image, and what is made of them for this one."""
_AVERAGED_COPIES = 3
"""Of the result, while it is averaged over configurations, defoci or the source: what is added to what, and the sum."""
_NUMBERS_OF_A_PROBE = 4
"""Where it stands, and what is known of it."""


def passing_bytes(grid: WaveGrid, on: Backend) -> int:
    """At most this much is alive only while an image is computed."""
    wave = on.complex_bytes * grid.shape_px[0] * grid.shape_px[1]
    fine = OVERSAMPLING**2 * wave
    batches = (on.threads + 1) * _ARRAYS_PER_BATCH * max(on.batch_bytes, wave)
    bands = on.threads * _ARRAYS_PER_BAND * min(BAND_BYTES, fine)
    return _WHOLE_WAVES * wave + batches + bands


def bounded(on: Backend, grid: WaveGrid, memory_gib: Any) -> Backend:
    """A backend on which an image takes no more than this; None leaves it as it is."""
    if memory_gib is None:
        return on
    passing = passing_bytes(grid, on)
    share = int(positive("memory_gib", memory_gib, "GiB") * 2**30 - passing) // _KEPT_AT_ONCE
    if share < on.complex_bytes * grid.shape_px[0] * grid.shape_px[1]:
        raise InvalidParameter(
            f"memory_gib = {memory_gib:g} is too little: {passing / 2**30:.2f} GiB pass through a wave grid of"
            f" {grid.shape_px} pixels on {on.threads} threads, and what is kept comes on top; use a coarser"
            " sampling_nm, fewer threads, or allow more"
        )
    free = min(on.memory_bytes, int(share / MEMORY_SHARE))
    return replace(on, memory_bytes=free, asked_bytes=(_KEPT_AT_ONCE - 1) * share)


def check_result(probe_count: int, value_count: int, on: Backend, memory_gib: float | None, *, averaged: bool) -> None:
    """Refuse a result that the computer's memory does not hold: so many probes, of so many values each."""
    copies = _AVERAGED_COPIES if averaged else 1
    needed = probe_count * (value_count * copies + _NUMBERS_OF_A_PROBE) * on.complex_bytes // 2
    free = MEMORY_SHARE * host_memory_bytes()
    allowed = free if memory_gib is None else min(free, memory_gib * 2**30)
    if needed > allowed:
        raise InvalidParameter(
            f"{probe_count} probes of {value_count} values each take {needed / 2**30:.3g} GiB, and"
            f" {allowed / 2**30:.3g} GiB may be had; scan fewer pixels at a time, give pixelated detectors a smaller"
            " max_angle_mrad or shape_px, or allow more with memory_gib"
        )
