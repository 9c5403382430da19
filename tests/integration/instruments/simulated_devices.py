"""ophyd's own simulated devices as a tree: a motor, and a counter that sees a Gaussian around its 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from ophyd.sim import SynAxis, SynSignal


def bench() -> dict[str, Any]:
    """The root of the tree."""
    motor, rng = SynAxis(name="motor"), np.random.default_rng(1)
    counter = SynSignal(func=lambda: int(rng.poisson(10_000 * np.exp(-0.5 * motor.position**2))), name="counter")
    return {"motor": motor, "slow": SynAxis(name="slow", delay=600), "counter": counter}
