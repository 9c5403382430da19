"""Where axes were last sent, for adapters that leave alone what stands: a move that failed may still be going on.

An axis that drives elsewhere reads, for a moment, whatever lies on its way. Neighbours: the drivers that ask it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping


class LastSent:
    """Targets by axis, each known from the end of its move to the beginning of the next."""

    def __init__(self) -> None:
        self._targets: dict[str, float] = {}

    def away(self, wanted: Mapping[str, float], stands: Callable[[str, float], bool]) -> dict[str, float]:
        """What has to be sent: all but what stands where it was sent last. Forgotten until it is `arrived`."""
        away = {
            name: value for name, value in wanted.items() if self._targets.get(name) != value or not stands(name, value)
        }
        for name in away:
            self._targets.pop(name, None)
        return away

    def arrived(self, values: Mapping[str, float]) -> None:
        """These were sent, and the instrument said done; whether they stand there is read each time."""
        self._targets |= values
