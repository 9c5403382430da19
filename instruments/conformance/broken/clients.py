"""Clients that share one place for answers, as those of a server do that sends bytes without saying for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from instruments.capabilities import Capabilities
from instruments.conformance.broken.altered import Altered, Ways
from instruments.microscope import Microscope

_ON_THE_WAY_S = 0.001


def crosstalking(client_count: int = 8) -> Callable[[Microscope], Microscope]:
    """Breaks microscopes so: whoever comes first takes the answer that lies there last."""
    answers: list[Any] = [None]

    def answered(answer: Any) -> Any:
        answers[0] = answer
        time.sleep(_ON_THE_WAY_S)
        return answers[0]

    ways = Ways(
        capabilities=lambda microscope: answered(several(microscope.capabilities(), client_count)),
        read_state=lambda microscope: answered(microscope.read_state()),
        outcome=lambda microscope, action_id: answered(microscope.outcome(action_id)),
    )
    return lambda inner: Altered(inner, ways)


def several(card: Capabilities, client_count: int) -> Capabilities:
    """The same capabilities for so many clients."""
    return card.model_copy(update={"concurrent_clients": client_count})
