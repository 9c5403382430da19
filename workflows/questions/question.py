"""A question as the wiring needs it: objective, extraction and what the policy may know, built from one spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruments import Capabilities
from orchestrator.loop import Extraction
from orchestrator.objectives.objective import Objective
from orchestrator.spec import ExperimentSpec
from policies import Context, SearchSpace


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that depends on what is asked. `judge` compares an answered objective with a world's truth."""

    objective: Objective
    extraction: Extraction
    context: Context
    judge: Callable[[Objective, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a question is built from."""

    spec: ExperimentSpec
    space: SearchSpace
    capabilities: Capabilities
    cache_folder: Path | None


QuestionBuilder = Callable[[Setting], Question]
