"""What of a search space an instrument can go to; the rest is left out with a word, or refused before the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from instruments import Capabilities
from orchestrator.errors import SpecError
from orchestrator.mapping import beam_shift_limit_nm
from orchestrator.spec import ExperimentSpec

_PLACES: Final = ("x_nm", "y_nm")
_OPTICS: Final = ("defocus_nm", "probe_current_pa")


@dataclass(frozen=True, slots=True)
class Reach:
    """The spec with the search space that is left, and what was left out of it, a line each."""

    spec: ExperimentSpec
    notes: tuple[str, ...] = ()


def within_reach(spec: ExperimentSpec, card: Capabilities) -> Reach:
    """A place no stage reaches is searched as far as the beam can be shifted; where nothing moves, at 0 nm.

    Raises SpecError for a range that the instrument cannot be in at all, and for optics that it cannot change.
    """
    space = dict(spec.search_space)
    notes: list[str] = []
    faults = [
        f"search_space.{name}: instrument {spec.instrument.name!r} cannot change it; "
        "give it one value in instrument.fixed, or name another instrument"
        for name in _OPTICS
        if name in space and not _moves(card, name)
    ]
    for name in _PLACES:
        if name in space and not _moves(card, name):
            try:
                space[name] = _narrowed(space[name], beam_shift_limit_nm(card))
            except ValueError as error:
                faults.append(f"search_space.{name}: {error}; instrument {spec.instrument.name!r} has no stage")
            else:
                notes += _note(name, spec.search_space[name], space[name], spec.instrument.name)
    if faults:
        raise SpecError("\n  ".join(faults))
    return Reach(spec.model_copy(update={"search_space": space}), tuple(notes)) if notes else Reach(spec)


def _moves(card: Capabilities, name: str) -> bool:
    axis = card.axis(name)
    return axis is not None and axis.minimum < axis.maximum and not axis.read_only


def _narrowed(entry: Mapping[str, Any], limit_nm: float) -> dict[str, Any]:
    """What is left of a range or of choices; one value is a choice. Raises ValueError where nothing is left."""
    if "choices" in entry:
        left = [value for value in entry["choices"] if abs(value) <= limit_nm]
        if not left:
            raise ValueError(f"none of {entry['choices']} lies within {limit_nm:g} nm of 0")
        return {**entry, "choices": left}
    low, high = max(float(entry["low"]), -limit_nm), min(float(entry["high"]), limit_nm)
    if low > high:
        raise ValueError(f"{entry['low']:g} to {entry['high']:g} nm has nothing within {limit_nm:g} nm of 0")
    condition = {"when": entry["when"]} if "when" in entry else {}
    if low == high:
        return {"choices": [low + 0.0], **condition}  # never -0.0
    narrowed = {**entry, "low": low, "high": high}
    if narrowed.get("resolution", 0) > high - low:
        del narrowed["resolution"]
    return narrowed


def _note(name: str, asked: Mapping[str, Any], left: Mapping[str, Any], instrument: str) -> list[str]:
    if left == dict(asked):
        return []
    if "choices" in left:
        what = f"stays at {', '.join(f'{value:g}' for value in left['choices'])} nm"
    else:
        what = f"is searched from {left['low']:g} to {left['high']:g} nm, as far as the beam can be shifted"
    return [f"{instrument} has no stage: {name} {what}"]
