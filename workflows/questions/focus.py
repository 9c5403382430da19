"""Wires the focus search: sharpness of frames, the defocus of best contrast, and the truth where a world knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from instruments import Capabilities, Frame
from instruments.units import wavelength_nm
from orchestrator.errors import SpecError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.sharpness import Sharpness
from orchestrator.objectives.focus import FocusSearch
from orchestrator.objectives.focus_fit import expected_width_nm
from orchestrator.objectives.objective import Objective
from orchestrator.spec import ExperimentSpec, NominalOptics
from policies import Context, Cost
from workflows.questions.costs import CostForecast
from workflows.questions.question import Question, Setting


class SharpnessExtraction:
    """The sharpness of a frame depends on that frame alone."""

    def __init__(self) -> None:
        self._sharpness = Sharpness()

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame."""
        return self._sharpness.extract(frame)

    def remember(self, features: FeatureSet) -> None:
        """Nothing to remember."""


def focus_search(optics: NominalOptics, capabilities: Capabilities) -> FocusSearch:
    """The objective, with the width of curve that these optics lead to expect and the step of this lens."""
    axis = capabilities.axis("defocus_nm")
    return FocusSearch(
        expected_width_nm(wavelength_nm(optics.beam_energy_ev), optics.semi_convergence_angle_mrad),
        axis.resolution if axis is not None else 0.0,
    )


def build_focus(setting: Setting) -> Question:
    """The question `focus` of a spec. Raises SpecError for options or a search space it cannot use."""
    spec, capabilities = setting.spec, setting.capabilities
    if spec.objective.options:
        raise SpecError(f"objective.options: focus takes none, not {', '.join(sorted(spec.objective.options))}")
    if "defocus_nm" not in spec.search_space:
        raise SpecError("search_space lacks defocus_nm; a focus search needs its low and high")
    budget = spec.budget
    context = Context(
        budget=Cost(electrons=budget.electrons or 1e18, seconds=budget.instrument_time_s or 1e7),
        local_dose_limit_e_per_a2=spec.safety.max_dose_e_per_a2,
        cost=CostForecast(spec, capabilities),
        modes=tuple(mode.name for mode in capabilities.modes),
    )

    def judge(summary: dict[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
        return judge_focus(summary, truth, spec)

    return Question(focus_search(spec.instrument.optics, capabilities), SharpnessExtraction(), context, _answer, judge)


def _answer(answered: Objective) -> dict[str, Any]:
    return cast("dict[str, Any]", answered.summary()["focus"])


def judge_focus(focus: Mapping[str, Any], truth: Mapping[str, Any], spec: ExperimentSpec) -> dict[str, Any]:
    """What defocus would be left at the setting found, and how far that is from the least blur.

    `remaining_defocus_nm` counts from Gaussian focus. With spherical aberration c30 the wavefront's variance over the
    aperture is least at a defocus of c30 angle^2 / 2: `least_blur_defocus_nm`; the error is taken from there.
    """
    actions = [truth["actions"][name] for name in focus["action_ids"] if name in truth.get("actions", {})]
    if focus["defocus_nm"] is None or not actions:
        return {"focus_found": False}
    offset_nm = float(np.mean([action["true_defocus_offset_nm"] for action in actions]))
    angle = spec.instrument.optics.semi_convergence_angle_mrad * 1e-3
    least_blur_nm = 0.5 * float(truth["residual_aberrations"]["c30_nm"]) * angle**2
    remaining_nm = focus["defocus_nm"] + offset_nm
    return {
        "focus_found": True,
        "true_offset_nm": offset_nm,
        "remaining_defocus_nm": remaining_nm,
        "least_blur_defocus_nm": least_blur_nm,
        "defocus_error_nm": remaining_nm - least_blur_nm,
    }
