"""Several policies on the same worlds: a table, curves, and counts to conclude from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from instruments import cards
from workflows.notebook.table import Table
from workflows.notebook.trial import Trial

if TYPE_CHECKING:
    from workflows.notebook.drawing import Axes


@dataclass(frozen=True, slots=True)
class Comparison:
    """Trials by policy, one of every seed in the same order."""

    trials: Mapping[str, tuple[Trial, ...]]

    @property
    def measure(self) -> str:
        """The number they are compared by."""
        return next(iter(self.trials.values()))[0].measure

    @property
    def seeds(self) -> tuple[int, ...]:
        """The worlds, one a seed."""
        return tuple(trial.seed for trial in next(iter(self.trials.values())))

    def trial(self, policy: str, seed: int) -> Trial:
        """The run of one policy on one seed. Raises KeyError naming the seeds there are."""
        if seed not in self.seeds:
            raise KeyError(f"no seed {seed}; there are {', '.join(map(str, self.seeds))}")
        return self.trials[policy][self.seeds.index(seed)]

    def __or__(self, other: Comparison) -> Comparison:
        """Both together, on the same seeds. Raises ValueError where the seeds differ."""
        if self.seeds != other.seeds:
            raise ValueError(f"seeds {self.seeds} and {other.seeds} differ: only runs on the same worlds compare")
        return Comparison({**self.trials, **other.trials})

    def values(self, policy: str, measure: str | None = None) -> np.ndarray:
        """(seeds,) the measure of one policy at its end, NaN where it could not be determined."""
        return np.array([trial.value(measure or self.measure) for trial in self.trials[policy]])

    def medians(self, measure: str | None = None) -> dict[str, float]:
        """Policy -> median over the seeds."""
        return {name: float(np.nanmedian(self.values(name, measure))) for name in self.trials}

    def won(self, policy: str, against: str, measure: str | None = None) -> int:
        """On how many seeds `policy` ended above `against`."""
        return int((self.values(policy, measure) > self.values(against, measure)).sum())

    def table(self, measure: str | None = None) -> Table:
        """A line for each policy: the measure on every seed, its median, and what it cost (medians)."""
        name = measure or self.measure
        rows = tuple(
            {
                "policy": policy,
                f"median {name}": float(np.nanmedian(self.values(policy, name))),
                **{f"seed {trial.seed}": trial.value(name) for trial in trials},
                "electrons": float(np.median([trial.electrons for trial in trials])),
                "instrument_time_s": float(np.median([trial.instrument_time_s for trial in trials])),
                "decisions": int(np.median([len(trial.steps) for trial in trials])),
            }
            for policy, trials in self.trials.items()
        )
        return Table(f"{name} at the end of each run", rows)

    def plot(self, measure: str | None = None, against: str = "electrons", axes: Axes | None = None) -> Axes:
        """Draw every run thin and the median of each policy thick, against `electrons` or `instrument_time_s`."""
        from workflows.notebook import drawing

        return drawing.draw_comparison(self, measure or self.measure, against, axes)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        table = self.table()
        rows = [[row.get(name, "") for name in table.columns] for row in table]
        return cards.card(table.title, f"{len(self.seeds)} seeds", cards.table(table.columns, rows))
