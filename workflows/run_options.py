"""What `stempilot run` was told besides the spec. Neighbour: `session`, which does it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from orchestrator.catalogue import ExperimentRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything `stempilot run` was told besides the spec; remembered, so that `resume` needs nothing."""

    seed: int = 0
    engine: str = "prefect"
    baselines: bool = True
    report: bool = True
    settings_file: str | None = None

    @classmethod
    def of(cls, row: ExperimentRow) -> RunOptions:
        """Those an experiment was started or submitted with; what it was not told is as if left out."""
        known = {option.name for option in fields(cls)}
        told: dict[str, Any] = {"seed": row.seed} | {key: row.options[key] for key in row.options.keys() & known}
        return cls(**told)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "seed": self.seed, "engine": self.engine, "baselines": self.baselines, "report": self.report,
            "settings_file": self.settings_file,
        }  # fmt: skip
