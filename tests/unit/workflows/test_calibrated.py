"""The section `calibrate`: what it refuses, what it becomes alone, and who sees which frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instruments import Frame
from orchestrator.errors import Refused, SpecError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.focus import FocusSearch
from orchestrator.spec import ExperimentSpec
from policies import GaveUp, Observation, SearchSpace, Suggestion, create
from tests.unit.orchestrator import microscope_frames as microscope
from workflows.flows.calibrate import calibration_spec
from workflows.questions.calibrated import (
    PURPOSE,
    CalibratedExtraction,
    CalibratedPolicy,
    Correction,
    check_sacrificial_area,
    series_policy,
)

SPECS = Path(__file__).resolve().parents[2] / "integration" / "specs"
AREA = {
    "x_nm": 40.0, "y_nm": 0.0, "field_of_view_nm": 6.0, "mode": "maadf", "dwell_time_us": 1.0, "probe_current_pa": 30.0,
}  # fmt: skip
SPACE = SearchSpace.from_dict({"x_nm": {"low": 0, "high": 9}, "y_nm": {"low": 0, "high": 9}})


def spec(**calibrate: Any) -> ExperimentSpec:
    return ExperimentSpec.from_yaml(SPECS / "small_raster.yaml", {"calibrate": {**AREA, **calibrate}})


@pytest.mark.parametrize(
    ("where", "is_refused"),
    [
        ({}, False),
        ({"x_nm": 33.0}, False),
        ({"x_nm": 32.9}, True),
        ({"x_nm": 0.0}, True),
        ({"x_nm": 0.0, "y_nm": -33.5}, False),
        ({"x_nm": 0.0, "allow_overlap": True}, False),
    ],
)
def test_the_search_area_is_not_sacrificed(where: dict[str, Any], is_refused: bool) -> None:
    if not is_refused:
        check_sacrificial_area(spec(**where))
        return
    with pytest.raises(Refused, match=r"lies in the search area, x -30 to 30 nm and y -30 to 30 nm; move it out"):
        check_sacrificial_area(spec(**where))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"low_nm": 5.0, "high_nm": -5.0}, "must be in order"),
        ({"widest_low_nm": -8.0}, "within widest_low_nm -8"),
        ({"count": 1}, "allowed >= 3"),
        ({"on_failure": "hope"}, "'stop' or 'uncorrected'"),
        ({"dose": 3}, "unknown key"),
    ],
)
def test_sections_that_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec(**wrong)


def test_alone_it_is_an_experiment_with_the_same_frames() -> None:
    alone = calibration_spec(spec(low_nm=-6.0, high_nm=6.0, count=4))
    assert (alone.objective.name, alone.policy.name, alone.calibrate) == ("focus", "focus_series", None)
    assert alone.name == "Focus for Small raster"
    policy = create("focus_series", SearchSpace.from_dict(alone.search_space), seed=0, **alone.policy.options)
    joined = series_policy(spec(low_nm=-6.0, high_nm=6.0, count=4).calibrate or pytest.fail("no section"), 0)
    assert policy.suggest(4) == joined.suggest(4)
    assert alone.budget.frames == joined.most_frames
    assert calibration_spec(alone) is alone


def test_alone_needs_something_to_calibrate() -> None:
    with pytest.raises(SpecError, match="no section calibrate"):
        calibration_spec(ExperimentSpec.from_yaml(SPECS / "small_raster.yaml"))
    with pytest.raises(Refused, match="search area"):
        calibration_spec(spec(x_nm=0.0))


class Found(FocusSearch):
    """A search that has found what it is told."""

    answer_nm: float | None = None

    @property
    def found_nm(self) -> float | None:
        return self.answer_nm


def calibrated(found_nm: float | None, **calibrate: Any) -> CalibratedPolicy:
    section = spec(count=3, dose_factor=1.0, **calibrate).calibrate
    assert section is not None
    search = Found(3.4)
    search.answer_nm = found_nm
    inner = create("raster", SPACE, seed=0, step_nm=5.0)
    return CalibratedPolicy(series_policy(section, 0), inner, Correction(search, section))


def seen(made: Suggestion, **outcomes: tuple[float, float]) -> Observation:
    return Observation(suggestion_id=made.id, point=made.point, outcomes=outcomes)


def test_series_first_then_the_question_each_with_its_own_frames() -> None:
    policy = calibrated(2.3)
    series: list[Suggestion] = []
    for _ in range(3):
        (made,) = policy.suggest()
        series.append(made)
        policy.ingest([seen(made, best_defocus_nm=(2.3, 0.1))])
    assert [made.point["purpose"] for made in series] == [PURPOSE] * 3
    (first,) = policy.suggest()
    assert first.id == "raster-0-0000", "the question's policy has not seen a frame yet"
    assert first.reason["defocus_offset_nm"] == 2.5, "on the steps of the lens"
    policy.ingest([seen(first)])
    again = calibrated(2.3)
    again.restore(policy.snapshot())
    assert again.suggest() == policy.suggest()
    assert policy.suggest()[0].id == "raster-0-0001"


class Looking:
    """Notes the optics a question is shown, and what it is reminded of."""

    def __init__(self) -> None:
        self.seen_nm: list[float] = []

    def extract(self, frame: Frame) -> FeatureSet:
        self.seen_nm.append(frame.state.optics.defocus_nm)
        return FeatureSet(extractor="looking", action_id=frame.action_id, values={}, arrays={})

    def remember(self, features: FeatureSet) -> None:
        raise AssertionError(features)


def test_the_question_sees_the_defocus_that_was_there() -> None:
    """2.5 nm were added to the command to be in focus: read back they are no defocus. The frame itself stays."""
    search, inner = Found(3.4), Looking()
    search.answer_nm = 2.3
    correction = Correction(search, spec().calibrate or pytest.fail("no section"))
    asked = microscope.command("a")
    command = correction.added_to(asked)
    assert command.optics == asked.optics.model_copy(update={"defocus_nm": asked.optics.defocus_nm + 2.5})
    frame = microscope.frame(command)
    read_back = frame.state.model_copy(update={"optics": command.optics})
    CalibratedExtraction(inner, correction).extract(replace(frame, state=read_back))
    assert inner.seen_nm == [asked.optics.defocus_nm]
    assert read_back.optics == command.optics
    series = replace(frame, requested=command.model_copy(update={"purpose": PURPOSE}))
    sharp = CalibratedExtraction(inner, correction).extract(series)
    assert sharp.values["commanded_defocus_nm"].value == command.optics.defocus_nm, "the series has nothing taken off"
    assert len(inner.seen_nm) == 1


def test_a_series_that_says_found_without_a_focus_has_given_up() -> None:
    """The search knows which frames could be measured: where it has no focus there is nothing to correct by."""
    policy = calibrated(None)
    for _ in range(3):
        (made,) = policy.suggest()
        policy.ingest([seen(made, best_defocus_nm=(2.3, 0.1))])
    assert not isinstance(policy.series.should_stop(), GaveUp)
    assert isinstance(policy.should_stop(), GaveUp)


def test_without_a_focus_it_stops_or_goes_on_uncorrected() -> None:
    for on_failure in ("stop", "uncorrected"):
        policy = calibrated(None, on_failure=on_failure)
        for _ in range(3):
            (made,) = policy.suggest()
            policy.ingest([seen(made)])
        if on_failure == "stop":
            assert isinstance(policy.should_stop(), GaveUp)
            assert "calibration: no focus found" in str(policy.should_stop())
            assert policy.suggest() == []
        else:
            assert policy.should_stop() is None
            assert policy.suggest()[0].reason["defocus_offset_nm"] == 0.0
