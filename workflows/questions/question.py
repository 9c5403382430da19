"""A question as the wiring needs it: objective, extraction and what the policy may know, built from one spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruments import Capabilities
from orchestrator.loop import Extraction
from orchestrator.objectives.objective import Objective
from orchestrator.report.measured_image import Measured
from orchestrator.spec import ExperimentSpec
from policies import Context, SearchSpace


def _nothing() -> None:
    """Nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that depends on what is asked.

    `answer` takes what an objective says now out of it, `judge` compares an answer with a world's truth; `prepare`
    computes beforehand what the forward model will need (kept in the cache folder), so that no frame waits for it;
    `on_measured` shows the same extractor on measured images: (their folder, cache folder) to what the report says.
    """

    objective: Objective
    extraction: Extraction
    context: Context
    answer: Callable[[Objective], Any]
    judge: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
    prepare: Callable[[], None] = _nothing
    on_measured: Callable[[Path | None, Path | None], Measured] | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What a question is built from."""

    spec: ExperimentSpec
    space: SearchSpace
    capabilities: Capabilities
    cache_folder: Path | None


QuestionBuilder = Callable[[Setting], Question]
