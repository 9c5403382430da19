"""What the numbers of a frame must be: unsigned integers that scatter as electrons do.

Neighbour: `exposures`, which compares them with the dwell.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from instruments.capabilities import Detector
from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.findings import Measured
from instruments.frames import Frame

LEAST_COUNTS: Final = 2.0  # mean of a pixel: below it a ratio says little
_POISSON_LOW, _POISSON_HIGH = 0.3, 5.0  # variance over mean, in counts of one electron: real detectors spread wider
_SUBFRAMES_ALIKE: Final = 1.3  # mean of the brightest sub-frame over that of the darkest
_LEAST_PILE: Final = 0.002  # of the pixels: so many at the largest number
_PILE_OVER_NEXT: Final = 3.0  # and so many times those at the next smaller one, where counts only scatter there
_LEAST_VALUES: Final = 8  # different numbers: fewer are no scatter that ends in a pile


def detectors(frame: Frame) -> list[Detector]:
    """Those of the mode that the frame has; which are missing is said by the check `frame`."""
    return [detector for detector in frame.mode.detectors if detector.name in frame.counts]


def _counts(bench: Bench) -> Result:
    frame = bench.frame("still")
    frames = [frame, bench.frame("long")] if bench.why_none("long") is None else [frame]
    kinds = {name: counts.dtype for one in frames for name, counts in one.counts.items() if counts.dtype.kind != "u"}
    if kinds:
        return failed("; ".join(f"{name} is {kind}; raw counts are unsigned integers" for name, kind in kinds.items()))
    measured = [seen for one in detectors(frame) if one.raw_counts and (seen := _scatter(frame, one)) is not None]
    faults: list[str] = []
    for one in frames:
        faults += [fault for detector in detectors(one) if detector.raw_counts and (fault := _fault(one, detector))]
    if faults:
        return failed(f"declared raw, but the counts {'; '.join(dict.fromkeys(faults))}", *measured)
    if not measured and (dark := too_dark(frame)):
        raise CannotJudge(f"unsigned integers, but {dark}")
    scatter = "scatter as electrons do" if measured else "are not declared raw, or of one sub-frame: nothing to compare"
    return passed(f"unsigned integers of {', '.join(frame.counts)}; they {scatter}", *measured)


def _scatter(frame: Frame, detector: Detector) -> Measured | None:
    ratio = variance_over_mean(frame.counts[detector.name], detector)
    if ratio is None:
        return None
    bounded = detector.gain_counts_per_electron is not None
    return Measured(
        name=f"{detector.name} variance over mean", value=ratio, unit="electrons" if bounded else "",
        low=_POISSON_LOW if bounded else 0.0, high=_POISSON_HIGH if bounded else None,
    )  # fmt: skip


def _fault(frame: Frame, detector: Detector) -> str:
    """What no raw counts do, in words; empty: nothing."""
    counts, scatter = frame.counts[detector.name], _scatter(frame, detector)
    if scatter is None:
        return ""
    if not scatter.is_within:
        return f"do not scatter like electrons: {scatter}"
    means = [float(one.mean()) - detector.offset_counts for one in counts]
    if min(means) > 0 and max(means) > _SUBFRAMES_ALIKE * min(means):
        said = ", ".join(f"{mean:.4g}" for mean in means[:4])
        return f"of {detector.name} are not those of one sub-frame each: their means are {said}"
    share = saturated(counts)
    if share:
        return (
            f"of {detector.name} end at {int(counts.max())}, which {share:.1%} of its pixels read (saturated, or cut)"
        )
    return ""


def saturated(counts: np.ndarray) -> float:
    """The part of the pixels at the largest number, where too many are there for a tail of scatter; else 0."""
    values, numbers = np.unique(counts, return_counts=True)
    if len(values) < _LEAST_VALUES:
        return 0.0
    share = float(numbers[-1]) / counts.size
    return share if share > _LEAST_PILE and numbers[-1] > _PILE_OVER_NEXT * numbers[-2] else 0.0


def too_dark(frame: Frame) -> str:
    """Why nothing is said of the counts: of every detector that is declared raw there are too few. Empty: there are."""
    means = {one.name: float(frame.counts[one.name].mean()) for one in detectors(frame) if one.raw_counts}
    if not means or max(means.values()) >= LEAST_COUNTS:
        return ""
    counts = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    return f"too few to judge, at least {LEAST_COUNTS:g} a pixel are needed: {counts}; take more dose, or another field"


def variance_over_mean(counts: np.ndarray, detector: Detector) -> float | None:
    """Scatter between neighbouring sub-frames over the mean, in electrons; None for fewer than two of them."""
    mean = float(counts.mean()) - detector.offset_counts
    if len(counts) < 2 or counts.mean() < LEAST_COUNTS or mean <= 0:
        return None
    difference = counts[1:].astype(float) - counts[:-1]
    gain = detector.gain_counts_per_electron or 1.0
    return float((difference**2).mean() / 2 / mean / gain)


def are_plausible(frame: Frame, detector: Detector) -> bool:
    """Whether these may be counts of electrons, each sub-frame by itself, and none of them cut off."""
    is_whole = frame.counts[detector.name].dtype.kind == "u"
    return detector.raw_counts and is_whole and not _fault(frame, detector)


COUNTS = Check(
    name="counts",
    does="looks at the counts of that frame and of one with a longer dwell: their kind, how they scatter between "
    "sub-frames, whether they end at some number",
    cure="deliver raw counts as unsigned integers, each sub-frame by itself; or "
    "declare raw_counts = false and why; of a detector that is full, take less current",
    run=_counts,
    shots=("still", "long"),
    may_be_quirk=True,
)
