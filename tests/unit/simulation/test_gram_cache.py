"""Matrices on disk: the same bits back, and no trust in damaged files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.gram import GramCalculator
from tests.unit.simulation.lattice_cases import DEFECTS, FOCUSED, MAADF, SHARP, lattice_images


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which contents were computed rather than read."""
    seen: list[Any] = []
    compute = GramCalculator.matrices

    def counted(self: GramCalculator, column: str | None = None, content: tuple[str, ...] = ()) -> np.ndarray:
        seen.append((column, content))
        return compute(self, column, content)

    monkeypatch.setattr(GramCalculator, "matrices", counted)
    return seen


def patch(folder: Path | None, **changes: Any) -> np.ndarray:
    images = lattice_images(slices=1, detector_ranges_mrad=[MAADF], cache_folder=folder, **changes)
    return images.difference_image("V_Se", *MAADF, FOCUSED, SHARP).values


def test_the_same_bits_come_back(tmp_path: Path, calls: list[Any]) -> None:
    without = patch(None)
    calls.clear()
    first = patch(tmp_path / "cache")
    assert calls == [("Se2", ("Se",)), (None, ())]
    second = patch(tmp_path / "cache")
    assert len(calls) == 2
    assert np.array_equal(first, second)
    assert np.array_equal(first, without)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".npz", ".npz"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another"])
def test_a_damaged_file_is_computed_again(
    tmp_path: Path, calls: list[Any], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = patch(tmp_path)
    for path in tmp_path.iterdir():
        content = bytearray(path.read_bytes())
        if damage == "truncated":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[len(content) // 2] ^= 0x10
        elif damage == "empty":
            content = bytearray()
        path.write_bytes(content)
        if damage == "another":
            np.savez(path, matrices=np.zeros((1, 2, 2), np.complex64))
    calls.clear()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(patch(tmp_path), first)
    assert len(calls) == 2
    assert "computing it again" in caplog.text
    calls.clear()
    assert np.array_equal(patch(tmp_path), first)
    assert calls == []


def test_a_folder_that_cannot_be_made_costs_only_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        found = patch(tmp_path / "file")
    assert np.array_equal(found, patch(None))
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"phonon_count": 2},
        {"potential_sampling_nm": 0.003},
        {"supercell_nm": 1.2},
        {"parametrization": "kirkland"},
        {"semi_convergence_angle_mrad": 32.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_parameters_are_other_files(tmp_path: Path, calls: list[Any], change: dict[str, Any]) -> None:
    patch(tmp_path)
    calls.clear()
    patch(tmp_path, **change)
    assert len(calls) == 2


def test_other_defects_share_the_perfect_lattice(tmp_path: Path, calls: list[Any]) -> None:
    patch(tmp_path)
    calls.clear()
    patch(tmp_path, defects={**DEFECTS, "V_Se": DEFECTS["V_Se2"]})
    assert calls == [("Se2", ())]
