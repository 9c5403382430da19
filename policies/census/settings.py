"""Options of the `census` policy with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from policies.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusSettings:
    """What an experimenter may change.

    survey                      overrides of `policies.survey.survey_tiles`, with probe_current_pa, mode, defocus_nm
    survey_is_needed            false where prior observations already hold a clean map
    focus_count                 focus frames before the first field (0: none); focus_dose_e_per_a2 of each
    field_of_view_options_nm    sizes of fields; field_dose_options_e_per_a2 their first-look doses
    revisit_view_options_nm     sizes of second looks; revisit_dose_options_e_per_a2 their doses
    revisit_margin_nm           how far inside the edge a site must lie: drift since it was seen
    current_options_pa          probe currents to consider (empty: the lowest and its double)
    pixel_options_nm            pixel sizes, finest first: a coarser one is taken where the dwell would be too short
    shortest_dwell_us           per pixel, all sub-frames (line jitter and afterglow below)
    efficiency_ratio            information the features reach over that of the ideal observer (about 1/1.4)
    least_gain_count            stop below this expected gain of the best action, in confirmed objects
    exploration_scale           standard deviations added to the density map at the start; falls to 0 with the budget
    batch_count                 actions over which a change of camera length or current is paid off
    """

    survey: dict[str, Any] = field(default_factory=dict)
    survey_is_needed: bool = True
    focus_count: int = 6
    focus_dose_e_per_a2: float = 1000.0
    focus_view_nm: float = 4.0
    field_of_view_options_nm: tuple[float, ...] = (8.0, 12.0, 16.0, 20.0)
    field_dose_options_e_per_a2: tuple[float, ...] = (200.0, 300.0, 450.0, 650.0, 900.0, 1300.0, 1900.0, 2700.0, 4000.0)
    revisit_view_options_nm: tuple[float, ...] = (2.4, 4.0)
    revisit_dose_options_e_per_a2: tuple[float, ...] = (600.0, 1200.0, 2400.0, 4000.0, 6000.0, 8000.0)
    revisit_margin_nm: float = 0.8
    current_options_pa: tuple[float, ...] = ()
    pixel_options_nm: tuple[float, ...] = (0.04, 0.055, 0.075)
    shortest_dwell_us: float = 1.0
    efficiency_ratio: float = 0.7
    least_gain_count: float = 0.02
    exploration_scale: float = 0.3
    batch_count: int = 10

    @classmethod
    def of(cls, options: dict[str, Any]) -> CensusSettings:
        """From keyword options, lists taken as tuples. Raises InvalidOption naming what is unknown or not positive."""
        known = {entry.name: entry for entry in fields(cls)}
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InvalidOption(f"census does not know the options {unknown}; it takes {sorted(known)}")
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
        made = cls(**values)
        for name in known:
            _check(name, getattr(made, name))
        return made


def _check(name: str, value: Any) -> None:
    if isinstance(value, dict | bool):
        return
    numbers = value if isinstance(value, tuple) else (value,)
    may_be_zero = name in ("focus_count", "exploration_scale", "least_gain_count", "revisit_margin_nm")
    if not numbers and name != "current_options_pa":
        raise InvalidOption(f"{name} is empty; give at least one number")
    for number in numbers:
        if isinstance(number, str) or not (number > 0 or (may_be_zero and number == 0)):
            raise InvalidOption(f"{name} = {number!r} must be a number above 0")
