"""Where the image goes when the beam or the stage is moved: sign, axes, scale, and the size of a pixel.

Frames of one place are registered: content that was at the middle lies on the other side after a move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, degrees, hypot

import numpy as np

from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.pictures import clearest, halves, pictures, smooth
from instruments.conformance.findings import Measured
from instruments.conformance.frames import Shot
from instruments.errors import AcquisitionFailed
from instruments.frames import Frame
from instruments.registration import Displacement, displacement

_NOTHING = 0.2  # of a move: less than that is standing still
_CLEAR = 13.0  # deviations by which two images of one place agree: so clear, a move within them must be seen too
_APART_PX = 1.0  # which two measurements of one move may lie apart
_HALF_PEAK = 4.0  # deviations that are enough for half of the counts: that both halves tell one move is the proof


@dataclass(frozen=True, slots=True)
class Motion:
    """Measured motion for each commanded one: columns are commanded x and y, rows what the images did; 1 is right."""

    matrix: np.ndarray  # (2, 2)
    peak: float
    tolerance: float

    @property
    def is_right(self) -> bool:
        """Whether every entry is that of the identity, within the tolerance."""
        return self.wrong_by <= self.tolerance

    @property
    def wrong_by(self) -> float:
        """The largest difference of an entry from that of the identity."""
        return float(np.abs(self.matrix - np.eye(2)).max())

    def measured(self, what: str) -> tuple[Measured, ...]:
        """The four entries with their bounds, and how well the images agreed."""
        names = (("x", "x"), ("x", "y"), ("y", "x"), ("y", "y"))
        entries = [
            Measured(
                name=f"{what} {seen} by {asked}",
                value=float(value),
                low=one - self.tolerance,
                high=one + self.tolerance,
            )
            for (seen, asked), value, one in zip(names, self.matrix.ravel(), (1.0, 0.0, 0.0, 1.0), strict=True)
        ]
        return (*entries, Measured(name="peak of the registration", value=self.peak, unit="deviations"))

    def scaled(self, factor: float) -> Motion:
        """The same with every length multiplied, as another pixel size would."""
        return Motion(self.matrix * factor, self.peak, self.tolerance)


def motion(bench: Bench, still: Shot, x: Shot, y: Shot) -> Motion:
    """Measured by registration, once for each three frames. Raises CannotJudge, ElsewhereError."""
    frames = tuple(bench.frame(shot) for shot in (still, x, y))
    return bench.once(frames, lambda: _motion(bench, *frames))


def _motion(bench: Bench, here: Frame, x: Frame, y: Frame) -> Motion:
    move_nm, pixel_nm = bench.shots.move_nm, here.pixel_size_nm
    tolerance = max(bench.conditions.motion_tolerance_fraction, 0.5 * pixel_nm / move_nm)
    detector, agreement = clearest(here)
    found = [_registered(here, there, detector, agreement) for there in (x, y)]
    matrix = np.array([(-one.x_px, -one.y_px) for one in found]).T * pixel_nm / move_nm
    seen = Motion(matrix, min(one.peak for one in found), tolerance)
    if not seen.is_right and agreement is not None:
        _refuse_noise(here, (x, y), detector, tolerance * move_nm / pixel_nm, seen.wrong_by * move_nm / pixel_nm)
    return seen


class ElsewhereError(Exception):
    """The image after a move shows another place altogether."""


def _registered(here: Frame, there: Frame, detector: str, agreement: float | None) -> Displacement:
    """How far the content went. Raises CannotJudge where that cannot be seen, ElsewhereError where nothing fits."""
    try:
        return displacement(*(smooth(pictures(frame, detector).sum(axis=0)) for frame in (here, there)))
    except AcquisitionFailed as error:
        if agreement is None:
            raise CannotJudge(f"{error} (with two sub-frames it could be told from a wrong move)") from error
        if agreement < _CLEAR:
            raise CannotJudge(
                f"two images of one place agree by {agreement:.0f} deviations, at least {_CLEAR:g} are needed to tell "
                f"another place from noise ({error})"
            ) from error
        raise ElsewhereError(
            f"after the move {detector} shows another place: two images of one place agree by {agreement:.0f} "
            f"deviations, those before and after have nothing in common ({error})"
        ) from error


def _refuse_noise(here: Frame, moved: tuple[Frame, ...], detector: str, allowed_px: float, wrong_by_px: float) -> None:
    """Raise CannotJudge where the two halves of the sub-frames do not tell the same move: what is wrong is noise.

    Half of their difference is the standard error of their mean: a move is wrong by more than that, or nobody knows.
    """
    for there in moved:
        try:
            one, other = (
                displacement(smooth(first), smooth(second), least_peak=_HALF_PEAK)
                for first, second in zip(halves(here, detector), halves(there, detector), strict=True)
            )
        except AcquisitionFailed as error:
            raise CannotJudge(f"the images are too noisy to judge a move by: {error}") from error
        apart_px = hypot(one.x_px - other.x_px, one.y_px - other.y_px)
        if apart_px > max(allowed_px, _APART_PX) or apart_px / 2 > wrong_by_px - allowed_px:
            raise CannotJudge(
                f"the images are too noisy to judge a move by: two halves of their sub-frames tell of moves "
                f"{apart_px:.1f} px apart; choose a longer dwell, more current, or another place"
            )


def beam_shift(bench: Bench) -> Motion:
    """Of the beam shift."""
    _need(bench, "beam_shift_x_nm", "beam_shift_y_nm")
    return motion(bench, "still", "shift_x", "shift_y")


def stage(bench: Bench) -> Motion:
    """Of the stage."""
    _need(bench, "x_nm", "y_nm")
    return motion(bench, "stage_still", "stage_x", "stage_y")


def _need(bench: Bench, *names: str) -> None:
    for name in names:
        axis = bench.capabilities.axis(name)
        if axis is None or axis.minimum >= axis.maximum:
            raise CannotJudge(f"this instrument declares no axis {name} that moves")


def pixel_factor(bench: Bench) -> float:
    """What the image's lengths are too large by, where stage and beam shift agree on it; 1 where they do not."""
    try:
        both = [beam_shift(bench), stage(bench)]
    except (CannotJudge, ElsewhereError):
        return 1.0
    factors = [float(np.sqrt(abs(np.linalg.det(one.matrix)))) for one in both]
    tolerance = max(one.tolerance for one in both)
    mean = float(np.mean(factors))
    is_common = abs(factors[0] - factors[1]) <= tolerance * mean
    return mean if is_common and abs(mean - 1) > tolerance and all(factor > _NOTHING for factor in factors) else 1.0


def words(matrix: np.ndarray, tolerance: float) -> str:
    """What is wrong with a motion, in a few words."""
    size = np.linalg.norm(matrix, axis=0)
    if size.max() < _NOTHING:
        return "the image did not move, though the read-back says so"
    if size.min() < _NOTHING:
        return f"the image did not follow {'xy'[int(size.argmin())]}, though the read-back says so"
    straight = np.abs(np.diag(matrix)).min() > np.abs(matrix - np.diag(np.diag(matrix))).max()
    if not straight and abs(matrix[0, 1]) > _NOTHING and np.sign(matrix[0, 1]) == np.sign(matrix[1, 0]):
        return "x and y are swapped"
    signs = [axis for axis, value in zip("xy", np.diag(matrix), strict=True) if value < 0]
    if straight and signs:
        return f"the sign of {' and '.join(signs)} is wrong"
    turn_deg = degrees(atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    if abs(turn_deg) > degrees(tolerance):
        return f"the axes are turned by {turn_deg:.1f} deg"
    return "the scale is wrong: " + ", ".join(
        f"{axis} moves {value:.3f} nm for each nm asked for" for axis, value in zip("xy", size, strict=True)
    )


def _judged(bench: Bench, measure: Callable[[Bench], Motion], what: str) -> Result:
    try:
        true = measure(bench).scaled(1 / pixel_factor(bench))
    except ElsewhereError as error:
        return failed(str(error))
    if true.is_right:
        return passed(
            f"the image moves as commanded, within {true.tolerance:.0%} of {bench.shots.move_nm:g} nm",
            *true.measured(what),
        )
    return failed(f"{words(true.matrix, true.tolerance)}{_alike(bench)}", *true.measured(what))


def _alike(bench: Bench) -> str:
    """What is said where stage and beam shift go wrong in the same way: nobody knows then which of the three it is."""
    try:
        one, other = beam_shift(bench), stage(bench)
    except (CannotJudge, ElsewhereError):
        return ""
    is_moved = np.linalg.norm(one.matrix, axis=0).min() > _NOTHING
    is_same = bool(is_moved and np.abs(one.matrix - other.matrix).max() <= max(one.tolerance, other.tolerance))
    return "; stage and beam shift agree in it: is the image mirrored or turned?" if is_same else ""


def _beam_shift(bench: Bench) -> Result:
    return _judged(bench, beam_shift, "beam shift")


def _stage(bench: Bench) -> Result:
    return _judged(bench, stage, "stage")


BEAM_SHIFT = Check(
    name="beam_shift_motion",
    does="takes three frames, two of them with the beam shifted, and registers them",
    cure="correct sign, axes or calibration where the adapter converts beam shifts; +x is +columns, +y is +rows",
    run=_beam_shift,
    shots=("shift_x", "still", "shift_y"),
    may_be_quirk=True,
)
STAGE = Check(
    name="stage_motion",
    does="moves the stage a little along x and along y, taking a frame at each place, and registers them",
    cure="correct sign, axes or calibration where the adapter converts stage positions; +x is +columns, +y is +rows",
    run=_stage,
    shots=("stage_x", "stage_still", "stage_y"),
    may_be_quirk=True,
)
