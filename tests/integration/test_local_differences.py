"""Local differences against full multislice with frozen phonons: few configurations, the same code as the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.local_differences import (
    CASES,
    DETECTORS,
    SIGMA_NM,
    STRUCTURE,
    SUPERCELL_NM,
    Crop,
    Row,
    measured,
)
from simulation.specimens import Specimen, orthogonal_cell, read_structure
from simulation.structure_columns import ColumnLattice, Supercell
from simulation.thermal_displacements import unit_displacements

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "local_differences.json"


@pytest.fixture(scope="module")
def rows(image_cache: Path) -> list[Row]:
    """A vacancy beside a substitute, in focus, from three replicates of two displaced crops."""
    return measured(["V_Se + Mo_W"], [0.0], 3, 2, image_cache)


def test_two_neighbours_against_multislice_with_phonons(rows: list[Row]) -> None:
    """About 1 % of the spread, and of the rms of the difference, when written; the benchmark has more of them."""
    assert {row.detector for row in rows} == set(DETECTORS)
    for row in rows:
        print(row)
        assert 0.0 < row.image_error < 0.02
        assert row.image_error_std < 0.004
        assert 0.0 < row.difference_error < 0.02
        assert row.difference_error_std < 0.006
        assert abs(row.level_error) < 0.02


def test_a_missing_defect_would_be_seen(rows: list[Row]) -> None:
    """The differences are an eighth of the spread and more: an image without them would be wrong by as much."""
    assert all(row.difference_rms > 8 * row.image_error * row.spread for row in rows)


def test_displacements_are_shared_between_contents_and_methods() -> None:
    """So that the difference of two crops is that of their defects alone, and both methods see the same atoms."""
    crop = Crop()
    perfect, pair = (crop.displaced(content, 2, 7) for content in ((), CASES["V_Se + Mo_W"]))
    for bare, changed in zip(perfect, pair, strict=True):
        assert len(bare) == len(changed) + 1
        of_bare = {tuple(place) for place in np.round(bare.positions, 9)}
        assert {tuple(place) for place in np.round(changed.positions, 9)} < of_bare
        assert set(changed.numbers) == {34, 42, 74}
        assert set(bare.numbers) == {34, 74}
    cell = ColumnLattice.of(Specimen.of(orthogonal_cell(read_structure(STRUCTURE))))
    unit = unit_displacements(Supercell.at_least(cell, SUPERCELL_NM).columns(), 2, 7)
    of_local = {tuple(step) for step in np.round(10 * SIGMA_NM * unit[0, :, :2], 6)}
    moved = perfect[0].positions - crop.at_rest_angstrom
    assert of_local < {tuple(step) for step in np.round(moved[:, :2], 6)}


def test_the_committed_results_are_of_this_comparison() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert {(row["case"], row["detector"]) for row in rows} == {(case, name) for case in CASES for name in DETECTORS}
    assert {row["defocus_nm"] for row in rows} == {0.0, 15.0, 30.0}
