"""Where each axis may stand, as far as a guard knows: what was sent, what was read back, both while nobody can tell."""

from __future__ import annotations

from collections.abc import Mapping

from instruments.commands import AxisValue
from instruments.state import MicroscopeState


class Whereabouts:
    """Remembers what was sent to every axis and when it was last moved, on the instrument's clock."""

    def __init__(self) -> None:
        self._sent: dict[str, list[float]] = {}
        self._moved_s: dict[str, float] = {}

    def places(self, state: MicroscopeState) -> Mapping[str, list[float]]:
        """Axis -> every value at which it may stand, the last the likeliest; one without a number is not there."""
        places = {name: list(values) for name, values in self._sent.items()}
        for name, value in state.all_axes().items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                places.setdefault(name, []).append(float(value))
        return places

    def sent_to(self, name: str, seen: MicroscopeState | None) -> float:
        """Where an axis was last sent, else where it was seen; 0 where neither is known."""
        if name in self._sent:
            return self._sent[name][-1]
        value = seen.axis_value(name) if seen is not None else None
        return value if isinstance(value, float) else 0.0

    def since_s(self, now_s: float) -> Mapping[str, float]:
        """Axis -> time since it was last moved; a negative one counts as none."""
        return {name: max(0.0, now_s - moved_s) for name, moved_s in self._moved_s.items()}

    def moved(self, values: Mapping[str, AxisValue], at_s: float) -> None:
        """A command was carried out: it stands where it was sent."""
        for name, value in values.items():
            if not isinstance(value, str):
                if self._sent.get(name) != [value]:
                    self._moved_s[name] = at_s
                self._sent[name] = [value]

    def may_have_moved(self, values: Mapping[str, AxisValue], until_s: float) -> None:
        """A command had no answer: it may stand where it was or where it was sent, and may move until then."""
        for name, value in values.items():
            if not isinstance(value, str):
                self._sent.setdefault(name, []).append(value)
                self._moved_s[name] = until_s
