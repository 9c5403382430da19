"""The flow `calibrate`: focus by a short series on a sacrificial area, alone or as an experiment says it.

A calibration is an experiment like any other (objective `focus`, policy `focus_series`), so journal, ledger, resume,
replay, report, queue and worker know it already; what is here turns an experiment's section `calibrate` into one and
reads the answer. Without Prefect it is the same functions. Neighbour: `questions.calibrated`, the step of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.catalogue import Catalogue
from orchestrator.errors import SpecError
from orchestrator.spec import Budget, Calibration, ExperimentSpec, ObjectiveChoice, PolicyChoice
from workflows.questions.calibrated import check_sacrificial_area, series_options, series_point, series_policy
from workflows.session import RunOptions, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusFound:
    """What a calibration ended with; `defocus_nm` is None where there is no focus, `reason` says why."""

    experiment_id: str
    status: str
    reason: str
    defocus_nm: float | None
    std_nm: float | None
    frames: int
    electrons: float
    dose_e_per_a2: float

    def in_words(self) -> str:
        """One line."""
        spent = f"{self.frames} frames, {self.dose_e_per_a2:.0f} e/A2 there, {self.electrons:.3g} electrons"
        if self.defocus_nm is None or self.std_nm is None:
            return f"no focus: {self.reason} ({spent})"
        return f"best contrast at {self.defocus_nm:+.2f} nm of defocus, standard error {self.std_nm:.2f} nm ({spent})"


def calibration_spec(spec: ExperimentSpec) -> ExperimentSpec:
    """The calibration of an experiment as one of its own: a focus search as it is, or the section `calibrate`.

    Raises SpecError where there is neither, Refused where it would burn a part of the search area.
    """
    if spec.objective.name == "focus":
        return spec
    calibration = spec.calibrate
    if calibration is None:
        raise SpecError(
            "calibrate: this experiment has no section calibrate and its objective is not focus; add the section"
        )
    check_sacrificial_area(spec)
    return spec.model_copy(
        update={
            "name": f"Focus for {spec.name}"[:200],
            "search_space": {"defocus_nm": _defocus(calibration)},
            "instrument": spec.instrument.model_copy(
                update={"fixed": {**spec.instrument.fixed, **series_point(calibration)}}
            ),
            "objective": ObjectiveChoice(name="focus"),
            "policy": PolicyChoice(name="focus_series", options=series_options(calibration)),
            "budget": _budget(spec, calibration),
            "calibrate": None,
        }
    )


def _defocus(calibration: Calibration) -> dict[str, Any]:
    low, high = calibration.widest_nm
    return {"low": low, "high": high, "resolution": calibration.resolution_nm}


def _budget(spec: ExperimentSpec, calibration: Calibration) -> Budget:
    """The experiment's own, and no more frames than a series takes."""
    return spec.budget.model_copy(update={"frames": series_policy(calibration, 0).most_frames})


def calibrate(session: Session, spec: ExperimentSpec, options: RunOptions) -> FocusFound:
    """Run the calibration of this experiment to its end, in the flow `calibrate` where the session has Prefect.

    Raises SpecError, Refused, an InstrumentError.
    """
    return focus_found(session.catalogue, session.start(calibration_spec(spec), options))


def focus_found(catalogue: Catalogue, experiment_id: str) -> FocusFound:
    """What a calibration that has ended found, from its journal."""
    row = catalogue.experiment(experiment_id)
    focus: dict[str, Any] = {}
    for event in catalogue.events(row.id, kinds=("closed",)):
        focus = (event.payload.get("summary") or {}).get("focus") or {}
    return FocusFound(
        experiment_id=row.id,
        status=row.status,
        reason=row.reason or "",
        defocus_nm=focus.get("defocus_nm"),
        std_nm=focus.get("std_nm"),
        frames=focus.get("frames", 0),
        electrons=focus.get("electrons", 0.0),
        dose_e_per_a2=focus.get("dose_e_per_a2", 0.0),
    )
