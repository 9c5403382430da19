"""The extractor on wave-optical images of WSe2 with aberrations that it does not know, and on a measured file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from instruments import Aberrations, Optics
from orchestrator.features import FeatureSet, LatticeSites
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import read_structure
from tests.unit.orchestrator.features.gaussian_lattice import A_NM, Column, Exposure, GaussianLattice, Specimen, expose

ROOT = Path(__file__).resolve().parents[3]
SPECIES = ("V_Se", "Mo_W")
HIDDEN = Aberrations(
    c12_nm=1, phi12_deg=40, c21_nm=30, phi21_deg=200, c23_nm=30, phi23_deg=15, c30_nm=1000
)  # fmt: skip


@pytest.fixture(scope="module")
def images(image_cache: Path) -> LatticeImages:
    return LatticeImages.from_structure(
        read_structure(ROOT / "examples" / "structures" / "WSe2.extxyz"),
        {"V_Se": Defect(column="Se2", becomes=("Se",)), "Mo_W": Defect(column="W", becomes=("Mo",))},
        beam_energy_ev=60e3,
        semi_convergence_angle_mrad=31.5,
        detector_ranges_mrad=[(0, 10), (16, 31), (40, 100), (80, 200)],
        rms_displacement_nm=0.007,
        phonon_count=1,
        supercell_nm=1.2,
        cache_folder=image_cache,
    )


def believed(defocus_nm: float) -> Optics:
    return Optics(
        beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30, defocus_nm=defocus_nm,
        aberrations=HIDDEN,
    )  # fmt: skip


def found(images: LatticeImages, mode: str, seed: int, dose_e_per_a2: float) -> tuple[Exposure, Specimen, FeatureSet]:
    rng = np.random.default_rng([7, seed])
    specimen = Specimen(
        images,
        rotation_deg=float(rng.uniform(-180, 180)),
        origin_nm=tuple(rng.uniform(-0.5, 0.5, 2)),
        density_per_nm2=dict.fromkeys(SPECIES, 0.15),
    )
    truth = believed(round(float(rng.uniform(-5, 5)) * 2) / 2)
    exposure = expose(specimen, rng, mode=mode, shape_px=(256, 256), dose_e_per_a2=dose_e_per_a2, true_optics=truth)
    features = LatticeSites(images, SPECIES).extract(exposure.frame)
    print(f"{mode}: true defocus {truth.defocus_nm}, fitted {features.values['fitted_defocus_nm'].value}")
    assert abs(features.values["fitted_defocus_nm"].value - truth.defocus_nm) <= 2.0
    return exposure, specimen, features


def off_nm(images: LatticeImages, exposure: Exposure, specimen: Specimen, features: FeatureSet) -> float:
    basis = np.array([[images.cell_width_nm, images.cell_width_nm / 2], [0, images.cell_height_nm / 2]])
    away = []
    for number, name in enumerate(("W", "Se2")):
        column = next(column for column in images.columns if column.name == name)
        here = features.arrays["site_column"] == number
        xy = np.stack([features.arrays["site_x_nm"][here], features.arrays["site_y_nm"][here]], axis=1)
        xy = xy - specimen.origin_nm - exposure.matrix @ [column.x_nm, column.y_nm]
        cycles = np.linalg.solve(exposure.matrix @ basis, xy.T)
        away.append(np.linalg.norm(exposure.matrix @ basis @ (cycles - np.round(cycles)), axis=0).max())
    return float(max(away))


@pytest.mark.parametrize("mode", ["maadf", "haadf"])
def test_sub_lattices_and_focus_despite_unknown_aberrations(images: LatticeImages, mode: str) -> None:
    for seed in range(3):
        exposure, specimen, features = found(images, mode, seed, 500.0)
        # Coma and threefold astigmatism move columns by some picometres; a wrong assignment would be 190 pm.
        assert off_nm(images, exposure, specimen, features) < 0.02


@pytest.mark.parametrize(("mode", "species"), [("maadf", "V_Se"), ("haadf", "Mo_W")])
def test_defects_are_told_from_the_host(images: LatticeImages, mode: str, species: str) -> None:
    exposure, _, features = found(images, mode, 11, 4000.0)
    xy = np.stack([features.arrays["site_x_nm"], features.arrays["site_y_nm"]], axis=1)
    away, nearest = cKDTree(xy).query(exposure.defect_xy_nm)
    wanted = np.array([name == species for name in exposure.defect_species])
    there = np.unique(nearest[wanted & (away < 0.1)])
    llr = features.arrays["llr"][:, SPECIES.index(species)]
    host = np.setdiff1d(np.flatnonzero(~np.isnan(llr)), nearest)
    bound = np.sqrt(2 * features.arrays["expected_information"][SPECIES.index(species)])
    distance = (llr[there].mean() - llr[host].mean()) / llr[host].std()
    print(f"{species} in {mode}: {len(there)} there, d' {distance:.2f}, predicted {bound:.2f}")
    assert len(there) >= 5
    assert distance > 0.85 * bound * (1 - 1 / np.sqrt(2 * len(there)))
    assert np.mean(llr[host] > 4.0) < 2e-3


@pytest.mark.real_data
def test_measured_mos2_is_described_without_probabilities(real_data: Path) -> None:
    image = np.load(real_data / "real" / "mos2" / "MoS2_stem_Exp-000-2.npy")
    height = 0.316 * np.sqrt(3)
    columns = (
        Column("W", 0.0, 0.0, ("W",)), Column("Se2", 0.158, height / 6, ("Se", "Se")),
        Column("W", 0.158, height / 2, ("W",)), Column("Se2", 0.0, height * 2 / 3, ("Se", "Se")),
    )  # fmt: skip
    model = GaussianLattice(cell_width_nm=0.316, cell_height_nm=height, columns=columns)
    assert model.cell_width_nm < A_NM
    features = LatticeSites(model, ["V_Se"]).describe_normalised(
        image,
        9.0 / 512,
        inner_mrad=80,
        outer_mrad=200,
        optics=believed(0.0).model_copy(update={"aberrations": Aberrations()}),
    )
    # 9 nm at 0.316 nm: calibration and lattice constant agree within 2 %.
    assert features.values["scale_ratio"].value == pytest.approx(1.0, abs=0.02)
    assert features.values["lattice_power_ratio"].value > 100
    metal = features.arrays["intensity"][features.arrays["site_column"] == 0]
    assert 700 < len(metal) < 950
    assert np.median(np.abs(metal - 1)) < 0.2
    assert not {"llr", "suspect", "site_clean_probability"} & set(features.arrays)
    assert "not raw counts" in str(features.values["poisson_statistics"].reason)
