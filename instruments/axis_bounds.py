"""Which limits of an envelope bound which axis, and which two of them leave nothing of it.

Neighbours: `limits` asks when facility and experiment are put together, `envelope_checks` before each command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from instruments.axes import unit_of


@dataclass(frozen=True, slots=True)
class NamedBounds:
    """How the envelope calls an axis, and the fields that bound it; a negated one is counted the other way."""

    words: str
    low: str | None
    high: str | None
    is_symmetric: bool = False
    is_negated: bool = False


NAMED: Final[Mapping[str, NamedBounds]] = {
    "x_nm": NamedBounds("stage x", "min_stage_x_nm", "max_stage_x_nm"),
    "y_nm": NamedBounds("stage y", "min_stage_y_nm", "max_stage_y_nm"),
    "z_nm": NamedBounds("stage z", "min_stage_z_nm", "max_stage_z_nm"),
    "alpha_deg": NamedBounds("stage alpha", None, "max_stage_tilt_deg", is_symmetric=True),
    "beta_deg": NamedBounds("stage beta", None, "max_stage_tilt_deg", is_symmetric=True),
    "beam_shift_x_nm": NamedBounds("beam shift x", None, "max_beam_shift_nm", is_symmetric=True),
    "beam_shift_y_nm": NamedBounds("beam shift y", None, "max_beam_shift_nm", is_symmetric=True),
    "defocus_nm": NamedBounds("defocus", "min_defocus_nm", "max_defocus_nm"),
    "c10_nm": NamedBounds("defocus", "min_defocus_nm", "max_defocus_nm", is_negated=True),
    "probe_current_pa": NamedBounds("probe current", None, "max_current_pa"),
    "beam_energy_ev": NamedBounds("beam energy", None, "max_beam_energy_ev"),
}
"""Axis, its device left out -> the fields of an envelope about it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of the range of an axis: the limit that says so, as it is written, and whose it is."""

    axis: str
    value: float
    is_low: bool
    limit: str
    whose: str = ""

    @property
    def words(self) -> str:
        """Whose limit it is, its name, value and unit."""
        return " ".join(part for part in (self.whose, self.limit, f"{self.value:g}", unit_of(self.axis)) if part)


def nothing_left(bounds: Iterable[Bound], rows: Sequence[Sequence[Bound]] = ()) -> str | None:
    """Which two bounds leave nothing of an axis, and what to change; None: something is left of every axis.

    `rows` are those of a table, of which the stage needs one.
    """
    bounds = list(bounds)
    if not rows:
        return _first_conflict(bounds)
    conflicts = [_first_conflict([*bounds, *row]) for row in rows]
    return conflicts[0] if all(conflicts) else None


def _first_conflict(bounds: Sequence[Bound]) -> str | None:
    for axis in dict.fromkeys(bound.axis for bound in bounds):
        lows = [bound for bound in bounds if bound.axis == axis and bound.is_low]
        highs = [bound for bound in bounds if bound.axis == axis and not bound.is_low]
        if not lows or not highs:
            continue
        low, high = max(lows, key=lambda one: one.value), min(highs, key=lambda one: one.value)
        if low.value > high.value:
            return f"{low.words} is above {high.words}, which leaves no {axis}; {_cure(low, high)}"
    return None


def _cure(low: Bound, high: Bound) -> str:
    """An experiment can only narrow, so where one of the two is the experiment's, it is that one."""
    if low.whose == high.whose:
        return "swap them" if low.limit.partition("_")[2] == high.limit.partition("_")[2] else "correct one of them"
    ours, theirs, way = (low, high, "at most") if "experiment" in low.whose else (high, low, "at least")
    return f"give the experiment {ours.limit} of {way} {theirs.value:g} {unit_of(ours.axis) or ''}".rstrip()
