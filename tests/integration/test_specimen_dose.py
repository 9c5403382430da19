"""Experiments that name the same piece of a specimen share its dose; the second one counts what the first put on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.events import SPECIMEN_DOSE
from tests.integration.harness import RASTER, Outcome, data_folder, stempilot

LIMIT = 3000.0


@pytest.fixture
def data(tmp_path: Path, forward_model: Path) -> Path:
    return data_folder(tmp_path, forward_model)


def run(data: Path, **settings: object) -> Outcome:
    """Three frames of 2340 e/A2, no two of them over another, by the same raster each time."""
    given = {"budget.frames": 3, "safety.max_dose_e_per_a2": LIMIT, **settings}
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    quick = ("--engine", "local", "--no-baselines", "--no-report")
    return stempilot("run", RASTER, "--data", data, *quick, "--json", *words)


def test_a_second_experiment_on_the_same_piece_is_refused_what_the_first_has_burnt(data: Path) -> None:
    first = run(data, **{"specimen.id": "lamella-7"}).expect(0).document
    assert 0.7 * LIMIT < first["dose_max_e_per_a2"] <= LIMIT
    run(data, **{"specimen.id": "lamella-7"}).complains(
        3, "the first frame would be refused", "dose of a 1 nm2 cell", "'lamella-7' got", "from earlier experiments"
    )

    other = run(data, **{"specimen.id": "lamella-8"}).expect(0).document
    assert other["dose_max_e_per_a2"] == pytest.approx(first["dose_max_e_per_a2"], rel=0.02)

    again = run(data, **{"specimen.id": "lamella-7", "safety.max_dose_e_per_a2": 2 * LIMIT}).expect(0).document
    assert again["dose_max_e_per_a2"] == pytest.approx(first["dose_max_e_per_a2"], rel=0.02), "its own sums are its own"
    with Catalogue.open(data) as catalogue:
        [told] = catalogue.events(again["id"], kinds=(SPECIMEN_DOSE,))
    assert told.payload["specimen"] == "lamella-7"
    assert told.payload["electrons"] == pytest.approx(first["electrons"], rel=1e-9)
