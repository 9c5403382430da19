"""An experiment that focuses first: its series in the same journal and ledger, later commands corrected by it.

The policy, the features and the objective of the question never see a frame of the series. Wrapped, not changed:
everything here is a function of the journal, so resume and replay need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from instruments import AcquireFrame, Capabilities, Frame, Optics
from orchestrator.errors import Refused, SpecError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.sharpness import NAME as SHARPNESS
from orchestrator.loop import Experiment, Extraction
from orchestrator.objectives.focus import FocusSearch
from orchestrator.objectives.objective import FrameFacts, Objective, Score
from orchestrator.spec import Calibration, ExperimentSpec
from policies import Cost, Observation, Policy, PolicyError, SearchSpace, Suggestion, create
from policies.focus_series import FocusSeries
from policies.policy import GaveUp
from workflows.questions.costs import CostForecast
from workflows.questions.focus import SharpnessExtraction, focus_search
from workflows.questions.question import Question

PURPOSE = "calibrate"


def series_space(calibration: Calibration) -> SearchSpace:
    """The defoci a series may take."""
    low, high = calibration.widest_nm
    return SearchSpace.from_dict({"defocus_nm": {"low": low, "high": high, "resolution": calibration.resolution_nm}})


def series_options(calibration: Calibration) -> dict[str, Any]:
    """Options of the policy `focus_series`: where, how, and how far."""
    names = ("low_nm", "high_nm", "count", "refine_count", "target_std_nm", "dose_factor")
    return {**{name: getattr(calibration, name) for name in names}, "fixed": series_point(calibration)}


def series_point(calibration: Calibration) -> dict[str, Any]:
    """What all frames of a series have in common."""
    names = ("x_nm", "y_nm", "field_of_view_nm", "pixel_size_nm", "mode", "dwell_time_us", "probe_current_pa")
    return {"purpose": PURPOSE, **{name: getattr(calibration, name) for name in names}}


def series_policy(calibration: Calibration, seed: int) -> FocusSeries:
    """The policy of the series. Raises SpecError."""
    try:
        policy = create("focus_series", series_space(calibration), seed=seed, **series_options(calibration))
    except PolicyError as error:
        raise SpecError(f"calibrate: {error}") from error
    assert isinstance(policy, FocusSeries)
    return policy


def check_sacrificial_area(spec: ExperimentSpec) -> None:
    """Raises Refused where the series would burn a part of the search area that nobody gave up."""
    calibration = spec.calibrate
    if calibration is None or calibration.allow_overlap:
        return
    bounds = search_bounds_nm(spec)
    if bounds is None:
        return
    half = calibration.field_of_view_nm / 2
    distance = [
        max(low - (centre + half), (centre - half) - high)
        for centre, (low, high) in zip((calibration.x_nm, calibration.y_nm), bounds, strict=True)
    ]
    if max(distance) < 0:
        (x_low, x_high), (y_low, y_high) = bounds
        raise Refused(
            f"calibrate: the sacrificial area of {calibration.field_of_view_nm:g} nm at ({calibration.x_nm:g}, "
            f"{calibration.y_nm:g}) nm lies in the search area, x {x_low:g} to {x_high:g} nm and y {y_low:g} to "
            f"{y_high:g} nm; move it out, narrow the search space, or set calibrate.allow_overlap: true"
        )


def search_bounds_nm(spec: ExperimentSpec) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """((x low, x high), (y low, y high)) of fields' edges, as far as the search space says where it looks."""
    try:
        x, y = (
            (float(spec.search_space[axis]["low"]), float(spec.search_space[axis]["high"])) for axis in ("x_nm", "y_nm")
        )
    except KeyError:
        return None
    return x, y


def with_calibration(question: Question, spec: ExperimentSpec, capabilities: Capabilities) -> Question:
    """The question whose policy knows that the series has to be paid first. Raises Refused, SpecError."""
    calibration, budget = spec.calibrate, question.context.budget
    if calibration is None:
        return question
    check_sacrificial_area(spec)
    if capabilities.mode(calibration.mode) is None:
        known = ", ".join(mode.name for mode in capabilities.modes)
        raise SpecError(f"calibrate.mode: {calibration.mode!r} is not a mode of this instrument; it has {known}")
    series = series_policy(calibration, 0)
    if budget is None:
        return question
    dearest = CostForecast(spec, capabilities)(series.dearest_point, None)
    price = Cost(dearest.electrons * series.most_frames, dearest.seconds * series.most_frames)
    return replace(question, context=replace(question.context, budget=budget.minus(price)))


@dataclass
class Correction:
    """What the series has found so far, read by the policy that adds it and by the command that carries it."""

    search: FocusSearch
    calibration: Calibration

    @property
    def offset_nm(self) -> float:
        """Defocus to add, on the steps of the lens; 0 without a focus."""
        found = self.search.found_nm
        step = self.calibration.resolution_nm
        return 0.0 if found is None else float(np.round(found / step) * step)

    def added_to(self, command: AcquireFrame) -> AcquireFrame:
        """The command that puts the lens where a defocus of 0 is the best contrast."""
        return command.model_copy(update={"optics": _defocused(command.optics, self.offset_nm)})

    def taken_off(self, frame: Frame) -> Frame:
        """The frame with its defocus counted from the best contrast, as the question counts it; the image is shared."""
        optics = _defocused(frame.state.optics, -self.offset_nm)
        return replace(frame, state=frame.state.model_copy(update={"optics": optics}))


def _defocused(optics: Optics, by_nm: float) -> Optics:
    return optics.model_copy(update={"defocus_nm": optics.defocus_nm + by_nm})


@dataclass
class CalibratedPolicy:
    """The series first, then the policy of the question; each sees its own observations only."""

    series: FocusSeries
    inner: Policy
    correction: Correction

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """Frames of the series while it lasts, then those of the question, each saying the offset it will get."""
        if self.series.should_stop() is None:
            return self.series.suggest(count)
        if self._gave_up() is not None:
            return []
        offset = self.correction.offset_nm
        return [
            replace(made, reason={**made.reason, "defocus_offset_nm": offset}) for made in self.inner.suggest(count)
        ]

    def ingest(self, observations: Sequence[Observation]) -> None:
        """Each to whom it belongs."""
        for observation in observations:
            (self.series if observation.point.get("purpose") == PURPOSE else self.inner).ingest([observation])

    def should_stop(self) -> str | None:
        """Why to stop: a series without a focus, where the spec says so; else as the question's policy does."""
        if self.series.should_stop() is None:
            return None
        return self._gave_up() or self.inner.should_stop()

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"series": self.series.snapshot(), "inner": self.inner.snapshot()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self.series.restore(state["series"])
        self.inner.restore(state["inner"])

    def _gave_up(self) -> GaveUp | None:
        """Whatever the series says of its end: without a focus there is nothing to correct by."""
        if self.correction.search.found_nm is not None or self.correction.calibration.on_failure == "uncorrected":
            return None
        return GaveUp(
            f"calibration: {self.series.should_stop()}; move calibrate.x_nm, y_nm, widen its range or raise its "
            "dwell_time_us"
        )


@dataclass
class CalibratedExtraction:
    """Sharpness of the series' frames, the question's features of all others.

    The question sees the frames of others as focused as they were: what was added to find the focus is no defocus.
    """

    inner: Extraction
    correction: Correction
    sharpness: SharpnessExtraction = field(default_factory=SharpnessExtraction)

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame."""
        if frame.requested.purpose == PURPOSE:
            return self.sharpness.extract(frame)
        return self.inner.extract(self.correction.taken_off(frame))

    def remember(self, features: FeatureSet) -> None:
        """What the question wants to remember of its own frames."""
        if features.extractor != SHARPNESS:
            self.inner.remember(features)


@dataclass
class CalibratedObjective:
    """The question's objective, beside the focus search that came first."""

    inner: Objective
    search: FocusSearch

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Each frame to whom it belongs."""
        return (self.search if facts.purpose == PURPOSE else self.inner).update(point, facts, features)

    def summary(self) -> dict[str, Any]:
        """The answer, with the focus found under `focus`."""
        return {**self.inner.summary(), **self.search.summary()}

    def stop_reason(self) -> str | None:
        """The question's."""
        return self.inner.stop_reason()

    def maps(self) -> dict[str, np.ndarray]:
        """Arrays of both."""
        return {**self.inner.maps(), **self.search.maps()}


def calibrated(experiment: Experiment, seed: int) -> Experiment:
    """The experiment as its spec wants it calibrated; itself where the spec does not."""
    calibration = experiment.spec.calibrate
    if calibration is None:
        return experiment
    correction = Correction(focus_search(experiment.spec.instrument.optics, experiment.capabilities), calibration)

    def adjust(suggestion: Suggestion, command: AcquireFrame) -> AcquireFrame:
        if suggestion.point.get("purpose") == PURPOSE:
            return command
        return correction.added_to(command)

    return replace(
        experiment,
        policy=CalibratedPolicy(series_policy(calibration, seed), experiment.policy, correction),
        extraction=CalibratedExtraction(experiment.extraction, correction),
        objective=CalibratedObjective(experiment.objective, correction.search),
        adjust=adjust,
    )
