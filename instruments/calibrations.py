"""Which calibration holds, against what it was made, and until when; an expired one warns or refuses.

The facility writes its calibrations beside its limits; a state names those in use by their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from instruments.errors import CommandRefused
from instruments.models import Record

WhenExpired = Literal["warn", "refuse"]


class Calibration(Record):
    """One measured property of an instrument: against which standard, when, how well, and until when it holds."""

    id: str = Field(min_length=1)
    quantity: str = Field(min_length=1, description="as `stage_to_scan`, `probe_current_pa`, `camera_length_mm`")
    values: dict[str, float] = Field(min_length=1, description="what was found; names end in units")
    uncertainties: dict[str, float] = Field(description="standard deviation of each value, same names")
    standard: str = Field(min_length=1, description="what it was measured against: a gold grating, a Faraday cup")
    measured_at: AwareDatetime
    expires_at: AwareDatetime | None = Field(default=None, description="None: it holds until it is replaced")
    measured_by: str | None = None

    @model_validator(mode="after")
    def _each_has_its_uncertainty(self) -> Self:
        if missing := sorted(self.values.keys() ^ self.uncertainties.keys()):
            raise ValueError(f"calibration {self.id!r}: {', '.join(missing)} needs a value and an uncertainty")
        if wrong := sorted(name for name, std in self.uncertainties.items() if std < 0):
            raise ValueError(f"calibration {self.id!r}: the uncertainty of {', '.join(wrong)} is below 0")
        if self.expires_at is not None and self.expires_at <= self.measured_at:
            raise ValueError(f"calibration {self.id!r} expires before it was measured; correct one of the dates")
        return self

    def has_expired(self, now: datetime) -> bool:
        """Whether it holds no more."""
        return self.expires_at is not None and now >= self.expires_at

    def expiry_words(self) -> str:
        """What to say, and to do, about it when it holds no more."""
        ended = self.expires_at.isoformat(timespec="minutes") if self.expires_at else "never"
        return (
            f"calibration {self.id!r} of {self.quantity} expired at {ended}; measure it again against {self.standard}"
        )


class CalibrationRegistry:
    """Every calibration of one instrument; the newest of a quantity is the one in use."""

    def __init__(self, calibrations: Iterable[Calibration] = ()) -> None:
        """Raises ValueError for an id used twice."""
        self._calibrations = tuple(calibrations)
        ids = [calibration.id for calibration in self._calibrations]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"calibration ids used twice: {', '.join(twice)}; give each its own")

    def __len__(self) -> int:
        return len(self._calibrations)

    def __iter__(self) -> Iterator[Calibration]:
        """Each of them, as it was entered."""
        return iter(self._calibrations)

    def in_use(self, now: datetime) -> tuple[Calibration, ...]:
        """The newest calibration of each quantity that was measured before `now`, by name of the quantity."""
        newest: dict[str, Calibration] = {}
        for calibration in sorted(self._calibrations, key=lambda one: one.measured_at):
            if calibration.measured_at <= now:
                newest[calibration.quantity] = calibration
        return tuple(newest[name] for name in sorted(newest))

    def of(self, quantity: str, now: datetime) -> Calibration | None:
        """The one in use for this quantity, expired or not; None if there is none."""
        return next((one for one in self.in_use(now) if one.quantity == quantity), None)

    def uncertainty_fraction(self, quantity: str, now: datetime) -> float:
        """Two standard deviations over the value, the most of any value of the calibration in use; 0: there is none."""
        used = self.of(quantity, now)
        pairs = [] if used is None else [(value, used.uncertainties[name]) for name, value in used.values.items()]
        return max((2 * std / abs(value) for value, std in pairs if value), default=0.0)

    def check(self, now: datetime, when_expired: WhenExpired, required: Sequence[str] = ()) -> list[str]:
        """Warnings: calibrations in use that have expired, and quantities of `required` that have none.

        Raises CommandRefused with the same words where the facility refuses.
        """
        used = self.in_use(now)
        missing = sorted(set(required) - {one.quantity for one in used})
        faults = [f"{quantity} has no calibration; measure it and enter it" for quantity in missing]
        faults += [one.expiry_words() for one in used if one.has_expired(now)]
        if faults and when_expired == "refuse":
            raise CommandRefused("; ".join(faults))
        return faults
