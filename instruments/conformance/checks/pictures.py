"""What the images of a frame show: of which detector a move can be seen, and how well. Neighbour: `motion`."""

from __future__ import annotations

import numpy as np

from instruments.conformance.bench import CannotJudge
from instruments.conformance.checks.counts import are_plausible
from instruments.errors import AcquisitionFailed
from instruments.frames import Frame
from instruments.registration import displacement

_BLUR_PX = 1.5  # standard deviation


def clearest(here: Frame) -> tuple[str, float | None]:
    """The detector that sees most, and how well two images of one place agree there. Raises CannotJudge for none."""
    peaks = {name: _seen(here, name) for name in here.counts}
    known = {name: peak for name, peak in peaks.items() if peak}
    if known:
        best = max(known, key=lambda name: known[name])
        return best, known[best]
    if (unknown := next((name for name, peak in peaks.items() if peak is None), None)) is not None:
        return unknown, None
    raise CannotJudge(
        "two sub-frames of one place have too little in common to see a move by; choose another place, a longer "
        "dwell or a larger field"
    )


def _seen(frame: Frame, detector: str) -> float | None:
    """How clearly the two halves of the sub-frames agree, in deviations; 0: they do not.

    None: there is but one of them, or they are no exposures of their own, and agree whatever they show.
    """
    declared = next((one for one in frame.mode.detectors if one.name == detector), None)
    is_doubtful = declared is not None and declared.raw_counts and not are_plausible(frame, declared)
    if len(frame.counts[detector]) < 2 or is_doubtful:
        return None
    one, other = halves(frame, detector)
    try:
        return displacement(smooth(one), smooth(other)).peak
    except AcquisitionFailed:
        return 0.0


def halves(frame: Frame, detector: str) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the first and of the other sub-frames."""
    each = pictures(frame, detector)
    half = len(each) // 2
    return each[:half].sum(axis=0), each[half:].sum(axis=0)


def pictures(frame: Frame, detector: str) -> np.ndarray:
    """One image each sub-frame; patterns summed. Numbers as they are, for an adapter may give fractions."""
    counts = frame.counts[detector]
    return counts.sum(axis=tuple(range(3, counts.ndim)), dtype=np.float64)


def smooth(image: np.ndarray) -> np.ndarray:
    """Blurred by pixels: of a lattice that is sampled coarsely every period looks like the right one."""
    rows, columns = (np.fft.fftfreq(side) for side in image.shape)
    low_pass = np.exp(-2 * (np.pi * _BLUR_PX) ** 2 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return np.fft.ifft2(np.fft.fft2(image - image.mean()) * low_pass).real
