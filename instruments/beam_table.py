"""What the facility's table says of the beam at a setting of the column; neighbour: `beam_knowledge` asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instruments.commands import AxisValue
from instruments.limits import BeamSetting

_EQUAL = 1e-9
Settings = Mapping[str, AxisValue | None]
"""Axis -> where it stands; None, or missing: nobody knows."""


def highest_pa(table: Sequence[BeamSetting] | None, mode: str, settings: Settings) -> float | None:
    """The most current at this setting; None where no row is sure to be about it."""
    rows = _rows(table, mode, settings, "max_current_pa")
    return max((row.max_current_pa for row in rows if row.max_current_pa is not None), default=None)


def narrowest_nm(table: Sequence[BeamSetting] | None, mode: str, settings: Settings) -> float | None:
    """The least diameter of the lit disc at this setting; None where no row is sure to be about it."""
    rows = _rows(table, mode, settings, "min_illuminated_nm")
    return min((row.min_illuminated_nm for row in rows if row.min_illuminated_nm is not None), default=None)


def gives_current(table: Sequence[BeamSetting] | None, mode: str) -> bool:
    """Whether any row gives the current in this mode, so that a setting without a row is one that nobody knows."""
    return any(row.max_current_pa is not None and row.mode in (None, mode) for row in table or ())


def highest_pa_anywhere(table: Sequence[BeamSetting] | None) -> float:
    """The most current of all rows; 0 where none gives one."""
    return max((row.max_current_pa or 0.0 for row in table or ()), default=0.0)


def narrowest_nm_anywhere(table: Sequence[BeamSetting] | None, mode: str) -> float | None:
    """The least diameter of all rows of a mode, whatever the setting."""
    rows = [row for row in table or () if row.mode in (None, mode)]
    return min((row.min_illuminated_nm for row in rows if row.min_illuminated_nm is not None), default=None)


def _rows(table: Sequence[BeamSetting] | None, mode: str, settings: Settings, field: str) -> list[BeamSetting]:
    """Every row with the field that may be about this setting; none unless one of them surely is."""
    told = [(row, _is_about(row, mode, settings)) for row in table or () if getattr(row, field) is not None]
    is_known = any(sure for _, sure in told)
    return [row for row, sure in told if sure is not False] if is_known else []


def _is_about(row: BeamSetting, mode: str, settings: Settings) -> bool | None:
    """Whether a row is about this setting; None where that cannot be told."""
    if row.mode is not None and row.mode != mode:
        return False
    answers = [_stands_at(settings.get(name), value) for name, value in row.axes.items()]
    if False in answers:
        return False
    return None if None in answers else True


def _stands_at(found: AxisValue | None, value: AxisValue) -> bool | None:
    if found is None:
        return None
    if isinstance(found, str) or isinstance(value, str):
        return found == value
    return abs(found - value) <= _EQUAL * max(abs(found), abs(value), 1.0)
