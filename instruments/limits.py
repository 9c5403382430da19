"""The safety envelope: what a facility allows. An experiment can narrow it, never widen it."""

from __future__ import annotations

from math import inf
from typing import Any, Self

from pydantic import Field, model_validator

from instruments import cards
from instruments.errors import ConfigurationError
from instruments.models import Record


class SafetyEnvelope(Record):
    """Limits outside adapters and policies; None means: this facility sets no such limit.

    `max_dose_e_per_a2` holds for every 1 nm2 cell of the specimen, survey, focus, parking and flyback included.
    """

    min_stage_x_nm: float | None = None
    max_stage_x_nm: float | None = None
    min_stage_y_nm: float | None = None
    max_stage_y_nm: float | None = None
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

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for axis in ("stage_x_nm", "stage_y_nm", "defocus_nm"):
            low, high = getattr(self, f"min_{axis}"), getattr(self, f"max_{axis}")
            if low is not None and high is not None and low >= high:
                raise ValueError(f"min_{axis} {low} is not below max_{axis} {high}; swap them")
        return self

    def narrowed_by(self, other: SafetyEnvelope) -> SafetyEnvelope:
        """This envelope with every limit of `other` that is tighter; a wider one is an error.

        Raises ConfigurationError naming the limit that `other` would widen.
        """
        limits: dict[str, Any] = {}
        for name in type(self).model_fields:
            ours, theirs = getattr(self, name), getattr(other, name)
            sign = -1.0 if name.startswith("min_") else 1.0
            if ours is not None and theirs is not None and sign * theirs > sign * ours:
                raise ConfigurationError(
                    f"safety.{name}: {theirs:g} is wider than the facility's {ours:g}; an experiment can only narrow it"
                )
            tightest = min((sign * value for value in (ours, theirs) if value is not None), default=inf)
            limits[name] = None if tightest == inf else sign * tightest
        return SafetyEnvelope(**limits)

    def _repr_html_(self) -> str:
        limits = {name: value for name, value in self if value is not None}
        none = "" if limits else "no limit is set"
        return cards.card("Safety envelope", none, cards.facts(limits))
