"""What baselines are given of our run: as many measuring frames as it took, and the calibration of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from workflows.evaluation.baselines import OurRun, baseline_plans
from workflows.evaluation.rehearsal import Rehearsal

SPEC = Path(__file__).resolve().parents[2] / "integration" / "specs" / "small_map.yaml"
SURVEY, FIELD = {"purpose": "survey"}, {"purpose": "field"}


@pytest.mark.parametrize("series", [0, 6])
def test_a_calibration_is_no_measurement(series: int) -> None:
    """The raster of 17 frames, one of them the survey, is 4 x 4, however long the focus series before it was."""
    ours = OurRun.of([{"purpose": "calibrate"}] * series + [SURVEY] + [FIELD] * 16)
    assert (ours.frames, ours.calibration_frames, ours.measuring_frames) == (17 + series, series, 17)
    spec = ExperimentSpec.from_yaml(SPEC)
    main = Rehearsal(
        spec=spec, seed=0, settings=InstrumentSettings(adapter="replay"), cache_folder=None, policy="mapping"
    )
    plans = {plan.policy: plan for plan in baseline_plans(main, ours)}
    space = spec.search_space
    width_nm = space["x_nm"]["high"] - space["x_nm"]["low"] + space["field_of_view_nm"]["low"]
    assert plans["raster"].options["step_nm"] == pytest.approx(width_nm / 4)
    assert {plan.spec.budget.frames for plan in plans.values()} == {17 + series}, "their own series is paid from it"


def test_the_end_of_our_run_is_none_of_a_baselines() -> None:
    """It is over when they begin: they would end before their first frame."""
    spec = ExperimentSpec.from_yaml(SPEC)
    stop = spec.stop.model_copy(update={"until": datetime(2026, 1, 1, tzinfo=UTC), "max_consecutive_refusals": 7})
    main = Rehearsal(
        spec=spec.model_copy(update={"stop": stop}), seed=0, settings=InstrumentSettings(adapter="replay"),
        cache_folder=None, policy="mapping",
    )  # fmt: skip
    plans = baseline_plans(main, OurRun.of([SURVEY, FIELD]))
    assert plans
    assert {(plan.spec.stop.until, plan.spec.stop.max_consecutive_refusals) for plan in plans} == {(None, 7)}
