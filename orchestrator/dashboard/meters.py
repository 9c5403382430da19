"""Budgets as bars: what is spent of what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.dashboard.chronicle import Chronicle
from orchestrator.dashboard.phrases import duration, percent
from orchestrator.report.headline import scientific


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One budget; `fraction` is between 0 and 1, None where there is no limit."""

    name: str
    spent: str
    limit: str | None
    fraction: float | None

    @property
    def share(self) -> str:
        """Per cent of the limit, in words; empty where there is none."""
        return "" if self.fraction is None else percent(self.fraction)

    @property
    def sentence(self) -> str:
        """All of it in one line, for those who do not see the bar."""
        limit = "no limit" if self.limit is None else f"of {self.limit}, {self.share}"
        return f"{self.name}: {self.spent}, {limit}"


def budget_meters(chronicle: Chronicle, spec: Mapping[str, Any], dose_max_e_per_a2: float) -> list[Meter]:
    """Electrons, microscope time, frames where they are limited, and the highest local dose."""
    budget, safety = spec.get("budget", {}), spec.get("safety", {})
    frame_count = len(chronicle.frames)
    meters = [
        _meter("electrons", chronicle.electrons, budget.get("electrons"), scientific),
        _meter("microscope time", chronicle.instrument_time_s, budget.get("instrument_time_s"), duration),
        _meter("frames", frame_count, budget.get("frames"), lambda value: f"{value:,.0f}"),
        _meter("dose in any 1 nm²", dose_max_e_per_a2, safety.get("max_dose_e_per_a2"), _dose),
    ]
    return meters


def _dose(value_e_per_a2: float) -> str:
    return f"{value_e_per_a2:,.0f} e/Å²"


def _meter(name: str, spent: float, limit: float | None, write: Callable[[float], str]) -> Meter:
    return Meter(
        name=name,
        spent=write(spent),
        limit=None if limit is None else write(limit),
        fraction=None if not limit else min(1.0, spent / limit),
    )
