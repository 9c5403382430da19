"""Where the most is counted: the objective that any instrument with a detector can serve.

Neighbour: `features.brightness`, what a frame tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.objective import FrameFacts, Score


class BrightestPlace:
    """Objective `brightness`: the place of the frame with the highest mean counts so far."""

    def __init__(self) -> None:
        self.frame_count = 0
        self.electrons = 0.0
        self._best: tuple[float, float, FrameFacts] | None = None

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Take in one frame; the score is the highest mean so far."""
        del point
        seen = features.values["counts_per_px"]
        self.frame_count += 1
        self.electrons += facts.electrons
        if self._best is None or seen.value > self._best[0]:
            self._best = (seen.value, seen.std or 0.0, facts)
        value, std, place = self._best
        return Score(
            value=value,
            std=std,
            statement=f"brightest at ({place.x_nm:.4g}, {place.y_nm:.4g}) nm: {value:.4g} counts per pixel",
            outcomes={"counts_per_px": (seen.value, seen.std or 0.0)},
        )

    def stop_reason(self) -> str | None:
        """The plan or the budget ends it."""
        return None

    def summary(self) -> dict[str, Any]:
        """The answer under `brightness`: where, how bright, and what it took."""
        value, std, place = self._best if self._best is not None else (None, None, None)
        return {
            "brightness": {
                "action_id": place.action_id if place else None,
                "x_nm": place.x_nm if place else None,
                "y_nm": place.y_nm if place else None,
                "counts_per_px": value,
                "std": std,
                "frames": self.frame_count,
                "electrons": self.electrons,
            }
        }

    def maps(self) -> dict[str, np.ndarray]:
        """None: places are few, and far apart."""
        return {}
