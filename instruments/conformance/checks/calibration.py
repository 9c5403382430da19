"""Whether image, stage and beam shift measure the same lengths, and a turned scan is turned as asked.

Neighbour: `motion`, which judges stage and beam shift by themselves.
"""

from __future__ import annotations

from contextlib import suppress
from math import hypot
from typing import Final

import numpy as np

from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.motion import ElsewhereError, beam_shift, pixel_factor, stage
from instruments.conformance.checks.pictures import clearest, pictures, smooth
from instruments.conformance.findings import Measured
from instruments.conformance.frames import TURN_DEG
from instruments.errors import AcquisitionFailed
from instruments.registration import displacement

_SAME_PLACE: Final = 0.15  # of the field: a turned scan has its middle where it was
_STANDING: Final = 0.04  # determinant of a motion: less is none
_CLEARER: Final = 1.2  # by which another turn must fit better than the one asked for
_TURNS: Final = {
    0: "the image was not turned at all",
    -1: "it was turned the other way",
    2: "it was turned by 180 deg",
}  # quarters of a turn


def _calibration(bench: Bench) -> Result:
    still = bench.frame("still")
    asked_nm = bench.asked("still").scan.pixel_size_nm
    said = Measured(name="pixel size", value=still.pixel_size_nm, unit="nm", low=asked_nm * 0.99, high=asked_nm * 1.01)
    if not said.is_within:
        return failed(f"a pixel of {asked_nm:.4g} nm was asked for, the frame says {still.pixel_size_nm:.4g} nm", said)
    if fault := _turned_wrong(bench):
        return failed(fault, said)
    try:
        moved = [beam_shift(bench), stage(bench)]
    except ElsewhereError as error:
        raise CannotJudge(f"no motion to compare with: {error}") from error
    factor = pixel_factor(bench)
    if not all(one.scaled(1 / factor).is_right for one in moved):
        raise CannotJudge(
            "stage or beam shift does not move as commanded (see their checks): no length to compare with"
        )
    tolerance = max(one.tolerance for one in moved)
    seen = Measured(name="length in the image over length moved", value=factor, low=1 - tolerance, high=1 + tolerance)
    if seen.is_within:
        return passed("stage, beam shift and pixels measure the same lengths", said, seen)
    return failed(
        f"stage and beam shift agree, the image's scale does not: a pixel is {1 / factor:.3f} of what is declared",
        said,
        seen,
    )


def _turned_wrong(bench: Bench) -> str:
    """What is wrong with a scan that was asked to be turned; empty: nothing, or it cannot be told."""
    if bench.why_none("turned") is not None or _moves_otherwise(bench):
        return ""
    still, turned = bench.frame("still"), bench.frame("turned")
    detector, _ = clearest(still)
    before, after = (smooth(_square(pictures(frame, detector).sum(axis=0))) for frame in (still, turned))
    peaks = {quarters: _fit(np.rot90(before, quarters), after) for quarters in (1, *_TURNS)}
    best = max(peaks, key=lambda quarters: peaks[quarters])
    if best == 1 or peaks[best] < _CLEARER * max(peaks[1], 1.0):
        return ""
    return f"the scan was to be turned by {TURN_DEG:g} deg, from +x towards +y: {_TURNS[best]}"


def _moves_otherwise(bench: Bench) -> bool:
    """Whether by all that moves the image is mirrored, which turns the other way too, or does not change."""
    matrices: list[np.ndarray] = []
    for measure in (beam_shift, stage):
        with suppress(CannotJudge, ElsewhereError):
            matrices.append(measure(bench).matrix)
    return bool(matrices) and all(float(np.linalg.det(one)) < _STANDING for one in matrices)


def _square(image: np.ndarray) -> np.ndarray:
    """The middle of it, as high as wide."""
    side = min(image.shape)
    row, column = ((size - side) // 2 for size in image.shape)
    return image[row : row + side, column : column + side]


def _fit(one: np.ndarray, other: np.ndarray) -> float:
    """How clearly they show the same place, in deviations; 0: they do not."""
    try:
        found = displacement(one, other)
    except AcquisitionFailed:
        return 0.0
    return found.peak if hypot(found.x_px, found.y_px) < _SAME_PLACE * len(one) else 0.0


CALIBRATION = Check(
    name="calibration",
    does="compares the lengths in the image with those of stage and beam shift, from the frames of both; where the "
    "scan can be turned, takes a frame turned by 90 deg, and registers it",
    cure="calibrate the field of view; a scan is turned from +x towards +y; if only one of stage and beam shift "
    "disagrees, see its own check",
    run=_calibration,
    shots=("shift_x", "still", "shift_y", "stage_x", "stage_still", "stage_y", "turned"),
    may_be_quirk=True,
)
