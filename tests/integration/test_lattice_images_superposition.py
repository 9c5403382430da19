"""Superposed differences against full multislice of a 3 x 3 nm crop, overlapping defects included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from instruments.optics import Optics
from simulation import AnnularDetector, PointScan, simulate
from simulation.lattice_images import LatticeImages
from tests.unit.simulation.lattice_cases import (
    ABERRATED,
    FOCUSED,
    MAADF,
    SHARP,
    column_atoms,
    lattice_images,
    supercell,
)

pytestmark = pytest.mark.slow

CROP = (9, 5)  # 2.95 x 2.84 nm
SLICE_NM = 1.3341 / 24  # three slices from plane to plane
DETECTORS = {"maadf": MAADF, "haadf": (80.0, 200.0)}
STEPS_NM = np.arange(-3, 3) * 0.12 + 0.04


@pytest.fixture(scope="module")
def images() -> LatticeImages:
    """The default supercell, atoms at rest."""
    return lattice_images(supercell_nm=1.6, potential_sampling_nm=0.0016, detector_ranges_mrad=DETECTORS.values())


def site_nm(images: LatticeImages) -> tuple[float, float]:
    """An Se2 column near the middle of the crop."""
    column = images.columns[1]
    return 4 * images.cell_width_nm + column.x_nm, 2 * images.cell_height_nm + column.y_nm


def multislice(sites_nm: list[tuple[float, float]], optics: Optics) -> dict[str, np.ndarray]:
    """Images of the crop with one Se gone at each site, around the first; propagated as a whole."""
    atoms = supercell(CROP)
    del atoms[[column_atoms(atoms, *site)[1] for site in sites_nm]]
    atoms.positions[:, 2] += 0.02 - atoms.positions[:, 2].min()  # the first plane at the entrance, in the first slice
    x_nm, y_nm = np.meshgrid(sites_nm[0][0] + STEPS_NM, sites_nm[0][1] + STEPS_NM)
    detectors = {name: AnnularDetector(*limits) for name, limits in DETECTORS.items()}
    found = simulate(
        atoms, optics, PointScan(np.column_stack([x_nm.ravel(), y_nm.ravel()])), detectors,
        method="multislice", sampling_nm=0.0065, slice_thickness_nm=SLICE_NM, device="cpu",
    )  # fmt: skip
    return {name: np.asarray(found[name], dtype=np.float64).reshape(x_nm.shape) for name in DETECTORS}


def superposed(
    images: LatticeImages, sites_nm: list[tuple[float, float]], detector: tuple[float, float], optics: Optics
) -> Any:
    """The periodic image and a patch per site, each interpolated by cubic splines."""
    host = images.site_image("Se2", None, *detector, optics, SHARP)
    patch = images.difference_image("V_Se", *detector, optics, SHARP).values
    total = _at(host, images.step_nm, (0.0, 0.0))
    for x_nm, y_nm in sites_nm:
        total = total + _at(patch, images.step_nm, (x_nm - sites_nm[0][0], y_nm - sites_nm[0][1]))
    return total


def _at(patch: np.ndarray, step_nm: float, place_nm: tuple[float, float]) -> np.ndarray:
    middle = patch.shape[0] // 2
    rows, columns = np.meshgrid(
        middle + (STEPS_NM - place_nm[1]) / step_nm, middle + (STEPS_NM - place_nm[0]) / step_nm, indexing="ij"
    )
    return map_coordinates(patch, [rows, columns], order=3, mode="constant")


@pytest.mark.parametrize("optics", [FOCUSED, ABERRATED], ids=["focused", "aberrated"])
def test_vacancies_against_multislice(images: LatticeImages, optics: Optics) -> None:
    """One vacancy, then two 0.328 nm apart, whose differences overlap; 1 to 2 % of the spread when written."""
    first = site_nm(images)
    pair = [first, (first[0] + images.cell_width_nm, first[1])]
    for sites in (pair[:1], pair):
        full = multislice(sites, optics)
        for name, detector in DETECTORS.items():
            found = superposed(images, sites, detector, optics)
            rms = np.sqrt(np.mean((found - full[name]) ** 2))
            assert rms < 0.025 * full[name].std(), f"{name}, {len(sites)} vacancies: {rms / full[name].std():.4f}"
            assert found.mean() == pytest.approx(full[name].mean(), rel=0.01)
