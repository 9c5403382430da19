"""Wires the element map: counts of X-ray lines, a map of each, and a policy that sees the survey image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from instruments import Capabilities, Frame
from orchestrator.errors import SpecError
from orchestrator.features.element_counts import ElementCounts
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.element_map import ElementMap, ElementMapOptions
from orchestrator.objectives.map_grid import MapGrid
from orchestrator.objectives.objective import Objective
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import fault_lines
from policies import Context, Cost
from workflows.questions.costs import CostForecast
from workflows.questions.question import Question, Setting


@dataclass(frozen=True, slots=True)
class StatelessExtraction:
    """Features of a frame depend on that frame alone."""

    counts: ElementCounts

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame."""
        return self.counts.extract(frame)

    def remember(self, features: FeatureSet) -> None:
        """Nothing to remember."""


def element_map_options(spec: ExperimentSpec) -> ElementMapOptions:
    """The objective's options, checked. Raises SpecError."""
    try:
        return ElementMapOptions.model_validate(spec.objective.options)
    except ValidationError as error:
        raise SpecError("objective.options: " + "; ".join(fault_lines(error))) from error


def field_grid(spec: ExperimentSpec, capabilities: Capabilities, bin_px: int) -> MapGrid:
    """Square cells of `bin_px` recorded points over everything the beam shift reaches."""
    x, y = capabilities.axis("beam_shift_x_nm"), capabilities.axis("beam_shift_y_nm")
    if x is None or y is None or x.resolution <= 0:
        raise SpecError("objective element_map needs an instrument with a beam shift of stated resolution")
    cell_nm = 2 * x.resolution * bin_px
    columns, rows = round((x.maximum - x.minimum) / cell_nm), round((y.maximum - y.minimum) / cell_nm)
    if min(rows, columns) < 2:
        raise SpecError(
            f"objective.options.bin_px {bin_px} px leaves a map of {rows} x {columns} cells; choose a smaller one"
        )
    return MapGrid(shape_px=(rows, columns), cell_nm=cell_nm)


def build_element_map(setting: Setting) -> Question:
    """The question `element_map` of a spec."""
    spec, capabilities = setting.spec, setting.capabilities
    options = element_map_options(spec)
    field_grid(spec, capabilities, options.bin_px)
    budget = spec.budget
    context = Context(
        budget=Cost(electrons=budget.electrons or 1e18, seconds=budget.instrument_time_s or 1e7),
        local_dose_limit_e_per_a2=spec.safety.max_dose_e_per_a2,
        cost=CostForecast(spec, capabilities),
        lines=options.lines,
        modes=tuple(mode.name for mode in capabilities.modes),
    )

    def answer(answered: Objective) -> dict[str, np.ndarray]:
        return answered.maps()

    def judge(maps: dict[str, np.ndarray], truth: Mapping[str, Any]) -> dict[str, Any]:
        if f"rate_{options.lines[0]}" not in maps:
            return {}
        verdict = objective.evaluate(truth, maps)
        return {**verdict, **{f"explained_{line}": verdict[line]["explained"] for line in options.lines}}

    objective = ElementMap(options)
    return Question(objective, StatelessExtraction(ElementCounts(options.lines)), context, answer, judge)
