"""Wires the search for the brightest place: what can be asked of every instrument, with a beam or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from instruments import Frame
from orchestrator.errors import SpecError
from orchestrator.features.brightness import Brightness
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.brightness import BrightestPlace
from orchestrator.objectives.objective import Objective
from policies import Context, Cost
from workflows.questions.costs import CostForecast
from workflows.questions.question import Question, Setting


class BrightnessExtraction:
    """The brightness of a frame depends on that frame alone."""

    def __init__(self) -> None:
        self._brightness = Brightness()

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame."""
        return self._brightness.extract(frame)

    def remember(self, features: FeatureSet) -> None:
        """Nothing to remember."""


def build_brightness(setting: Setting) -> Question:
    """The question `brightness` of a spec. Raises SpecError for options."""
    spec, capabilities = setting.spec, setting.capabilities
    if spec.objective.options:
        raise SpecError(f"objective.options: brightness takes none, not {', '.join(sorted(spec.objective.options))}")
    context = Context(
        budget=Cost(electrons=spec.budget.electrons or 1e18, seconds=spec.budget.instrument_time_s or 1e7),
        local_dose_limit_e_per_a2=spec.safety.max_dose_e_per_a2,
        cost=CostForecast(spec, capabilities),
        modes=tuple(mode.name for mode in capabilities.modes),
    )
    return Question(BrightestPlace(), BrightnessExtraction(), context, _answer, _judge)


def _answer(answered: Objective) -> dict[str, Any]:
    return cast("dict[str, Any]", answered.summary()["brightness"])


def _judge(answer: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing: no world says beforehand which of its places is brightest."""
    del answer, truth
    return {}
