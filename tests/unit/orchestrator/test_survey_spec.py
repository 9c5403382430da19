"""Surveys as they are written: squares, grids, budgets, ends; and what each square becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import SpecError
from orchestrator.spec import Budget
from orchestrator.survey_spec import SurveySpec

TEMPLATE = Path(__file__).resolve().parents[2] / "integration" / "specs" / "small_raster.yaml"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "overnight_survey.yaml"
OVERVIEW = {"mode": "maadf", "probe_current_pa": 10.0}


def written(tmp_path: Path, **changes: Any) -> Path:
    document = {"name": "s", "template": str(TEMPLATE), "grid": {"rows": 2, "columns": 3, "side_nm": 20.0}, **changes}
    path = tmp_path / "survey.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    return path


def read(tmp_path: Path, **changes: Any) -> SurveySpec:
    return SurveySpec.from_yaml(written(tmp_path, **changes))


def test_the_example_is_one() -> None:
    plan = SurveySpec.from_yaml(EXAMPLE)
    assert [square.name for square in plan.places] == ["A1", "A2", "B1", "B2"]
    assert plan.template.policy.options["focus_count"] == 3
    assert SurveySpec.checked(plan.model_dump(mode="json")) == plan


def test_a_grid_lies_about_its_centre(tmp_path: Path) -> None:
    plan = read(tmp_path, grid={"rows": 2, "columns": 2, "side_nm": 20.0, "gap_nm": 4.0, "x_nm": 100.0})
    assert [(square.name, square.x_nm, square.y_nm) for square in plan.places] == [
        ("A1", 88.0, -12.0), ("A2", 112.0, -12.0), ("B1", 88.0, 12.0), ("B2", 112.0, 12.0),
    ]  # fmt: skip


def test_a_square_is_the_template_moved(tmp_path: Path) -> None:
    calibrate = {"calibrate.x_nm": 900, "calibrate.y_nm": 0, "calibrate.mode": "maadf", "calibrate.dwell_time_us": 1,
                 "calibrate.probe_current_pa": 30}  # fmt: skip
    grid = {"rows": 2, "columns": 3, "side_nm": 20.0, "gap_nm": 10.0}
    plan = read(tmp_path, set=calibrate, sacrificial_offset_nm=[15.0, 0.0], grid=grid)
    square = plan.places[5]
    spec = plan.square_experiment(square, Budget(electrons=1e7))
    assert spec.name == "s: B3"
    assert spec.labels["square"] == "B3"
    assert spec.search_space["x_nm"] == {"low": 20.0, "high": 40.0, "resolution": 0.1}
    assert spec.search_space["y_nm"]["low"] == 5.0
    assert spec.budget == Budget(electrons=1e7)
    assert spec.calibrate is not None
    assert (spec.calibrate.x_nm, spec.calibrate.y_nm) == (45.0, 15.0)
    assert plan.template.search_space["x_nm"]["low"] == -30, "the template stays as it is"


CALIBRATE = {"calibrate.x_nm": 900, "calibrate.y_nm": 0, "calibrate.mode": "maadf", "calibrate.dwell_time_us": 1,
             "calibrate.probe_current_pa": 30, "calibrate.field_of_view_nm": 6}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sacrificial_offset_nm": [15.0, 0.0]},
            r"square A1 calibrates on 6 nm at \(-5, -10\) nm, which reaches 8 nm into square A2; change sacrificial",
        ),
        ({"sacrificial_offset_nm": [0.0, 11.5]}, r"square A1 .* reaches 4\.5 nm into square B1"),
        (
            {"set": {**CALIBRATE, "calibrate.x_nm": 31.0}},
            r"square A1 .* at \(31, 0\) nm, which reaches 2 nm into .* A3",
        ),
    ],
)
def test_no_square_burns_its_neighbour(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read(tmp_path, **{"set": CALIBRATE, **changes})


def test_the_gap_between_squares_may_be_sacrificed(tmp_path: Path) -> None:
    """All of it, and whatever is outside the grid; a square's own area is checked with its experiment."""
    grid = {"rows": 1, "columns": 3, "side_nm": 20.1, "gap_nm": 6.0}
    for offset_nm in ([13.05, 0.0], [0.0, 13.05], [0.0, 0.0]):
        read(tmp_path, set=CALIBRATE, grid=grid, sacrificial_offset_nm=offset_nm)
    with pytest.raises(SpecError, match=r"reaches 0\.1 nm into square A2"):
        read(tmp_path, set=CALIBRATE, grid={**grid, "gap_nm": 5.9}, sacrificial_offset_nm=[13.05, 0.0])


def test_the_overview_is_one_frame_a_square(tmp_path: Path) -> None:
    plan = read(tmp_path, overview=OVERVIEW, order="cleanest", total_budget={"electrons": 1e8})
    spec = plan.overview_experiment()
    points = spec.policy.options["points"]
    assert [(point["x_nm"], point["y_nm"], point["field_of_view_nm"]) for point in points] == [
        (square.x_nm, square.y_nm, 20.0) for square in plan.places
    ]
    assert {point["purpose"] for point in points} == {"survey"}
    assert spec.budget == Budget(frames=6, electrons=1e8)
    assert spec.search_space["x_nm"]["low"] == -30.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": None}, "either squares"),
        ({"squares": [{"name": "a", "x_nm": 0, "y_nm": 0, "side_nm": 9}]}, "either squares"),
        ({"grid": None, "squares": [{"name": "a", "x_nm": x, "y_nm": 0, "side_nm": 9} for x in (0, 9)]}, "must differ"),
        ({"grid": None, "squares": [{"name": "overview", "x_nm": 0, "y_nm": 0, "side_nm": 9}]}, "none be 'overview'"),
        ({"order": "cleanest"}, "need an overview"),
        ({"least_clean_fraction": 0.1}, "need an overview"),
        ({"until": "2026-11-22T06:00:00"}, "no time zone"),
        ({"sacrificial_offset_nm": [1.0, 1.0]}, "no section calibrate"),
        ({"grid": {"rows": 0, "columns": 1, "side_nm": 9}}, r"grid\.rows.*>= 1"),
        ({"square_budget": {"electrons": -1}}, r"square_budget\.electrons"),
        ({"template": None}, "name the spec of an experiment"),
        ({"template": "missing.yaml"}, "no such file"),
        ({"set": {"budget.electrons": -1}}, r"budget\.electrons"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_every_fault_has_its_words(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read(tmp_path, **changes)
