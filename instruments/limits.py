"""The safety envelope: what a facility allows. An experiment can narrow it, never widen it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf, isfinite
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from instruments import cards
from instruments.axis_bounds import NAMED, Bound, nothing_left
from instruments.commands import AxisValue
from instruments.errors import ConfigurationError
from instruments.models import Record

V = TypeVar("V")


class AxisLimit(Record):
    """What a facility allows of one axis, in the unit its name ends in; None: no such limit."""

    minimum: float | None = None
    maximum: float | None = None
    max_step: float | None = Field(default=None, gt=0, description="the longest single move")
    max_rate_per_s: float | None = Field(
        default=None, gt=0, description="a move over the instrument time since the last one of this axis"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}; swap them")
        return self


class StageBox(Record):
    """One row of a pole-piece table: up to these tilts the stage may stand in this box; None: no bound."""

    max_alpha_deg: float = Field(ge=0)
    max_beta_deg: float = Field(default=0.0, ge=0)
    min_x_nm: float | None = None
    max_x_nm: float | None = None
    min_y_nm: float | None = None
    max_y_nm: float | None = None
    min_z_nm: float | None = None
    max_z_nm: float | None = None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for axis, (low, high) in self.bounds().items():
            if low > high:
                raise ValueError(f"min_{axis} {low:g} is above max_{axis} {high:g}; swap them")
        return self

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Axis -> (low, high)."""
        found = {
            "alpha_deg": (-self.max_alpha_deg, self.max_alpha_deg),
            "beta_deg": (-self.max_beta_deg, self.max_beta_deg),
        }
        for axis in ("x_nm", "y_nm", "z_nm"):
            low, high = getattr(self, f"min_{axis}"), getattr(self, f"max_{axis}")
            found[axis] = (-inf if low is None else low, inf if high is None else high)
        return found

    def lies_in(self, other: StageBox) -> bool:
        """Whether every position of this box is one of the other."""
        outer = other.bounds()
        return all(outer[name][0] <= low and high <= outer[name][1] for name, (low, high) in self.bounds().items())


class BeamSetting(Record):
    """A row of the facility's table of its beam: the most current and the least width while the column is set so.

    `axes` tell the setting (spot size, apertures, magnification): each axis and its value, a number or a word.
    """

    mode: str | None = Field(default=None, description="None: in any")
    axes: dict[str, AxisValue] = Field(default_factory=dict, description="axis name -> the value it stands at")
    max_current_pa: float | None = Field(default=None, gt=0)
    min_illuminated_nm: float | None = Field(default=None, gt=0, description="diameter of the lit disc")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.max_current_pa is None and self.min_illuminated_nm is None:
            raise ValueError("a row of the beam table gives max_current_pa, min_illuminated_nm, or both")
        return self


class TiltAxis(Record):
    """Where the specimen lies in the tilt axis: of a tilted one, what lies off it is met elsewhere."""

    z_nm: float = Field(default=0.0, description="stage height at which tilting does not shift")
    error_nm: float = Field(ge=0, description="the specimen is no further off the axis there")


class SafetyEnvelope(Record):
    """Limits outside adapters and policies; None means: this facility sets no such limit.

    `max_dose_e_per_a2` holds for every 1 nm2 cell of the specimen, survey, focus, parking and flyback included.
    What has to be permitted (valves, high tension, vacuum, procedures) is denied where it is None.
    """

    min_stage_x_nm: float | None = None
    max_stage_x_nm: float | None = None
    min_stage_y_nm: float | None = None
    max_stage_y_nm: float | None = None
    min_stage_z_nm: float | None = None
    max_stage_z_nm: float | None = None
    max_stage_tilt_deg: float | None = Field(default=None, ge=0)
    max_beam_shift_nm: float | None = Field(default=None, ge=0)
    min_defocus_nm: float | None = None
    max_defocus_nm: float | None = None
    max_current_pa: float | None = Field(default=None, gt=0)
    max_beam_energy_ev: float | None = Field(default=None, gt=0)
    max_exposure_s: float | None = Field(default=None, gt=0)
    max_park_s: float | None = Field(default=None, ge=0)
    max_dose_e_per_a2: float | None = Field(default=None, gt=0)
    max_electrons: float | None = Field(default=None, gt=0)
    max_instrument_time_s: float | None = Field(default=None, gt=0)
    max_stop_latency_s: float | None = Field(
        default=None, gt=0, description="from a stop to a dark specimen; caps exposures that cannot be interrupted"
    )
    max_position_error_nm: float | None = Field(
        default=None,
        gt=0,
        description="a frame taken further from where it was asked for: a person has to look",
    )
    axes: dict[str, AxisLimit] | None = Field(default=None, description="axis name -> its limits")
    pole_piece: tuple[StageBox, ...] | None = Field(
        default=None, description="the stage stands in, and moves within, one of these boxes"
    )
    permissions: tuple[str, ...] | None = Field(
        default=None, description="what may be set: valves, high_tension, vacuum, or the name of an interlocked axis"
    )
    procedures: tuple[str, ...] | None = Field(default=None, description="procedures that may be run")
    beam: tuple[BeamSetting, ...] | None = Field(
        default=None, description="what the beam can be at each setting; used where the instrument cannot tell"
    )
    current_uncertainty_fraction: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="the dose of a cell is judged as if so much more current had flowed than was read; None: as its "
        "calibration says, else 0",
    )
    tilt_axis: TiltAxis | None = Field(
        default=None, description="where a tilted specimen may be lit; None: as the instrument tells, else 1000 nm off"
    )
    unknown_illumination: Literal["refuse", "assume"] | None = Field(
        default=None,
        description="an exposure at once of which nobody knows how wide it is lit; None: refuse where dose is limited",
    )
    required_calibrations: tuple[str, ...] | None = Field(default=None, description="quantities that must have one")
    expired_calibrations: Literal["warn", "refuse"] | None = Field(default=None, description="None: warn")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if nothing := nothing_left(self._bounds(), self._rows()):
            raise ValueError(nothing)
        return self

    def _bounds(self, whose: str = "") -> Iterator[Bound]:
        """Every end of a range, of all axes."""
        axes = self.axes or {}
        for axis in {**NAMED, **axes}:
            named = NAMED.get(axis.rpartition(".")[2])
            for field, is_low in () if named is None else ((named.low, True), (named.high, False)):
                value = None if field is None else getattr(self, field)
                if value is None or named is None:
                    continue
                if named.is_negated:
                    yield Bound(axis, -value, not is_low, f"-{field}", whose)
                    continue
                yield Bound(axis, value, is_low, str(field), whose)
                if named.is_symmetric:
                    yield Bound(axis, -value, not is_low, f"-{field}", whose)
            limit = axes.get(axis, AxisLimit())
            for name, value in (("minimum", limit.minimum), ("maximum", limit.maximum)):
                if value is not None:
                    yield Bound(axis, value, name == "minimum", f"axes.{axis}.{name}", whose)

    def _rows(self, whose: str = "") -> list[list[Bound]]:
        """Those of the pole-piece table, row by row."""
        return [
            [
                Bound(axis, value, is_low, f"pole_piece.{number} {axis}", whose)
                for axis, (low, high) in box.bounds().items()
                for value, is_low in ((low, True), (high, False))
                if isfinite(value)
            ]
            for number, box in enumerate(self.pole_piece or ())
        ]

    def narrowed_by(self, other: SafetyEnvelope) -> SafetyEnvelope:
        """This envelope with every limit of `other` that is tighter; a wider one is an error.

        Raises ConfigurationError naming the limit that `other` would widen, or two limits that leave nothing.
        """
        ours, theirs = "the facility's", "the experiment's"
        rows = self._rows(ours) if other.pole_piece is None else other._rows(theirs)
        if nothing := nothing_left([*self._bounds(ours), *other._bounds(theirs)], rows):
            raise ConfigurationError(f"safety: facility and experiment together allow nothing: {nothing}")
        limits: dict[str, Any] = {
            name: _narrowed(f"safety.{name}", getattr(self, name), getattr(other, name)) for name in NUMBERS
        }
        limits["axes"] = _narrowed_axes(self.axes, other.axes)
        limits["pole_piece"] = _narrowed_boxes(self.pole_piece, other.pole_piece)
        for name in ("permissions", "procedures"):
            limits[name] = _fewer(f"safety.{name}", getattr(self, name), getattr(other, name))
        limits["beam"] = _facilitys("safety.beam: what the beam can be", self.beam, other.beam)
        limits["tilt_axis"] = _facilitys("safety.tilt_axis: where it lies", self.tilt_axis, other.tilt_axis)
        limits["unknown_illumination"] = self._illumination_beside(other)
        limits["current_uncertainty_fraction"] = self._uncertainty_beside(other)
        required = {*(self.required_calibrations or ()), *(other.required_calibrations or ())}
        limits["required_calibrations"] = tuple(sorted(required)) or None
        if self.expired_calibrations == "refuse" and other.expired_calibrations == "warn":
            raise ConfigurationError(
                "safety.expired_calibrations: warn is wider than the facility's refuse; leave it out"
            )
        limits["expired_calibrations"] = other.expired_calibrations or self.expired_calibrations
        return SafetyEnvelope(**limits)

    def _uncertainty_beside(self, other: SafetyEnvelope) -> float | None:
        ours, theirs = self.current_uncertainty_fraction, other.current_uncertainty_fraction
        if ours is not None and theirs is not None and theirs < ours:
            raise ConfigurationError(
                f"safety.current_uncertainty_fraction: {theirs:g} is less than the facility's {ours:g}, so doses would "
                "be judged as lower; leave it out"
            )
        return ours if theirs is None else theirs

    def _illumination_beside(self, other: SafetyEnvelope) -> Literal["refuse", "assume"] | None:
        if other.unknown_illumination == "assume" and self.unknown_illumination != "assume":
            raise ConfigurationError(
                "safety.unknown_illumination: assume is wider than the facility's refuse; leave it out"
            )
        return other.unknown_illumination or self.unknown_illumination

    @property
    def assumes_illumination(self) -> bool:
        """Whether an exposure at once is taken to be lit as its command says, where nobody else tells."""
        if self.unknown_illumination is None:
            return self.max_dose_e_per_a2 is None
        return self.unknown_illumination == "assume"

    def _repr_html_(self) -> str:
        limits = {name: value for name, value in self if value is not None}
        none = "" if limits else "no limit is set"
        return cards.card("Safety envelope", none, cards.facts(limits))


NUMBERS = tuple(
    name
    for name, field in SafetyEnvelope.model_fields.items()
    if field.annotation == float | None and name.startswith(("min_", "max_"))
)
"""The limits that are one number each."""


def _narrowed(name: str, ours: float | None, theirs: float | None) -> float | None:
    sign = -1.0 if name.rpartition(".")[2].startswith("min") else 1.0
    if ours is not None and theirs is not None and sign * theirs > sign * ours:
        raise ConfigurationError(
            f"{name}: {theirs:g} is wider than the facility's {ours:g}; an experiment can only narrow it"
        )
    tightest = min((sign * value for value in (ours, theirs) if value is not None), default=inf)
    return None if tightest == inf else sign * tightest


def _facilitys(what: str, ours: V, theirs: V) -> V:
    if theirs is not None and theirs != ours:
        raise ConfigurationError(f"{what} is the facility's to say; leave it out")
    return ours


def _narrowed_axes(
    ours: dict[str, AxisLimit] | None, theirs: dict[str, AxisLimit] | None
) -> dict[str, AxisLimit] | None:
    if ours is None or theirs is None:
        return ours or theirs
    none = AxisLimit()
    return {
        axis: AxisLimit(**{
            name: _narrowed(f"safety.axes.{axis}.{name}", getattr(ours.get(axis, none), name), value)
            for name, value in theirs.get(axis, none)
        })
        for axis in ours | theirs
    }  # fmt: skip


def _narrowed_boxes(
    ours: tuple[StageBox, ...] | None, theirs: tuple[StageBox, ...] | None
) -> tuple[StageBox, ...] | None:
    if ours is None or theirs is None:
        return ours if theirs is None else theirs
    for number, box in enumerate(theirs):
        if not any(box.lies_in(outer) for outer in ours):
            raise ConfigurationError(
                f"safety.pole_piece.{number}: reaches out of every box of the facility's table; an experiment can only "
                "narrow it"
            )
    return theirs


def _fewer(name: str, ours: Iterable[str] | None, theirs: Iterable[str] | None) -> tuple[str, ...] | None:
    if theirs is None:
        return None if ours is None else tuple(ours)
    if more := sorted(set(theirs) - set(ours or ())):
        raise ConfigurationError(f"{name}: {', '.join(more)} is not permitted by the facility; leave it out")
    return tuple(theirs)
