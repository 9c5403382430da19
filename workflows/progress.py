"""What a loop tells while it runs, as lines and as a fraction of its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.loop import Spent
from orchestrator.spec import Budget


@dataclass
class FrameLines:
    """A listener of the loop that says one line a frame, or why there is none."""

    say: Callable[[str], None]
    frames: int = 0

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Say it."""
        if kind == "scored":
            self.frames = payload["spent"].frames
            facts, score, spent = payload["facts"], payload["score"], payload["spent"]
            self.say(
                f"frame {self.frames:4d}  {facts.purpose:8s} ({facts.x_nm:+7.1f}, {facts.y_nm:+7.1f}) nm  "
                f"{facts.width_nm:5.1f} nm  {facts.mode}  {facts.dose_e_per_a2:7.0f} e/A2  {score.statement}  "
                f"[{spent.electrons:.2e} e, {spent.instrument_time_s:.0f} s]"
            )
        elif kind in ("refused", "failed", "unknown"):
            self.say(f"{kind}: {payload['reason']}")


def fraction_spent(spent: Spent, budget: Budget) -> float:
    """How much of the budget that ends the run first is spent, 0 to 1; 0 without any.

    >>> fraction_spent(Spent(electrons=1e8, frames=3), Budget(electrons=4e8, frames=6))
    0.5
    """
    parts = [
        used / limit
        for used, limit in (
            (spent.electrons, budget.electrons),
            (spent.instrument_time_s, budget.instrument_time_s),
            (float(spent.frames), budget.frames),
        )
        if limit
    ]
    return min(max(parts, default=0.0), 1.0)
