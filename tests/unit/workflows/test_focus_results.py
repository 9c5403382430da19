"""The focus benchmark: its committed results are those in the docs, and say what is claimed of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import SpecError
from workflows.benchmarks.focus import PLACES, table, top_of_cubic

ROOT = Path(__file__).resolve().parents[3]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "focus.json").read_text(encoding="utf-8"))


def test_the_table_in_the_docs_is_of_the_committed_results() -> None:
    assert RESULT["seeds"] == 12
    assert table(RESULT) in (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", PLACES)
def test_the_stated_error_is_that_of_the_focus_as_set(place: str) -> None:
    runs = [run for run in RESULT["runs"] if run["place"] == place]
    assert [run["seed"] for run in runs] == list(range(12))
    error = np.array([run["error_as_set_nm"] for run in runs])
    stated = np.array([run["std_nm"] for run in runs])
    assert 0.5 < np.sqrt(np.mean((error / stated) ** 2)) < 1.5
    assert all(abs(error) < 3 * stated)


def test_the_reference_is_the_top_of_a_skew_curve() -> None:
    rng = np.random.default_rng(2)
    x_nm = np.arange(-5.0, 5.01, 0.5) + 0.75
    tops_nm = [
        top_of_cubic(x_nm, -((x_nm - 0.6) ** 2) / 22 + 0.002 * (x_nm - 0.6) ** 3 + rng.normal(0, 0.03, x_nm.size))
        for _ in range(200)
    ]
    assert np.mean(tops_nm) == pytest.approx(0.6, abs=0.03)
    assert np.std(tops_nm) < 0.1, "with 3 % of scan jitter in each frame"
    with pytest.raises(SpecError, match=r"no maximum from -4\.2 to 5\.8 nm"):
        top_of_cubic(x_nm, x_nm)
