"""Site-by-site evidence on an analytic forward model: right sub-lattice, near the bound, honest, small frames too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from instruments import Optics
from orchestrator.features import FeatureSet, LatticeHint, LatticeSites, NormalisedCounts, UnknownSpecies
from tests.unit.orchestrator.features.gaussian_lattice import Exposure, GaussianLattice, Specimen, expose

SPECIES = ("V_Se", "O_Se", "V_Se2", "Mo_W")
DENSITY = dict.fromkeys(SPECIES, 0.05)
MODEL = GaussianLattice()
SITES = LatticeSites(MODEL, SPECIES)


def off_nm(exposure: Exposure, specimen: Specimen, features: FeatureSet) -> float:
    """Largest distance of a reported site from a true one of the same column."""
    arrays = features.arrays
    basis = np.array([[MODEL.cell_width_nm, MODEL.cell_width_nm / 2], [0, MODEL.cell_height_nm / 2]])
    furthest = 0.0
    for number, name in enumerate(("W", "Se2")):
        column = next(column for column in MODEL.columns if column.name == name)
        here = arrays["site_column"] == number
        xy = np.stack([arrays["site_x_nm"][here], arrays["site_y_nm"][here]], axis=1) - specimen.origin_nm
        cycles = np.linalg.solve(exposure.matrix @ basis, (xy - exposure.matrix @ [column.x_nm, column.y_nm]).T)
        away = exposure.matrix @ basis @ (cycles - np.round(cycles))
        furthest = max(furthest, float(np.linalg.norm(away, axis=0).max()))
    return furthest


def labels(exposure: Exposure, features: FeatureSet) -> np.ndarray:
    """Number of the species at each site, -1 for the host."""
    xy = np.stack([features.arrays["site_x_nm"], features.arrays["site_y_nm"]], axis=1)
    found = np.full(len(xy), -1)
    away, nearest = cKDTree(xy).query(exposure.defect_xy_nm)
    for defect in np.flatnonzero(away < 0.1):
        found[nearest[defect]] = SPECIES.index(exposure.defect_species[defect])
    return found


def test_which_column_is_which_over_random_frames() -> None:
    wrong, margins = [], []
    for seed in range(12):
        rng = np.random.default_rng([12, seed])
        mode = ("maadf", "haadf")[seed % 2]
        specimen = Specimen(
            MODEL,
            rotation_deg=float(rng.uniform(-180, 180)),
            shear=float(rng.normal(0, 0.01)),
            origin_nm=tuple(rng.uniform(-0.5, 0.5, 2)),
        )
        truth = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, defocus_nm=float(rng.uniform(-5, 5)))
        exposure = expose(specimen, rng, mode=mode, shape_px=(256, 256), dose_e_per_a2=500.0, true_optics=truth)
        features = SITES.extract(exposure.frame)
        margins.append(features.values["orientation_log_likelihood_margin"].value)
        if off_nm(exposure, specimen, features) > 0.01:
            wrong.append(seed)
    print(f"smallest margin {min(margins):.1f}")
    assert wrong == []
    assert min(margins) > 5


@pytest.fixture(scope="module", params=["maadf", "haadf"])
def judged(request: pytest.FixtureRequest) -> tuple[Exposure, Specimen, FeatureSet]:
    rng = np.random.default_rng(21)
    specimen = Specimen(MODEL, rotation_deg=17.0, shear=0.01, origin_nm=(0.3, 0.1), density_per_nm2=DENSITY)
    exposure = expose(specimen, rng, mode=request.param, dose_e_per_a2=2000.0)
    return exposure, specimen, SITES.extract(exposure.frame)


def test_sites_lie_within_picometres(judged: tuple[Exposure, Specimen, FeatureSet]) -> None:
    exposure, specimen, features = judged
    assert off_nm(exposure, specimen, features) < 3e-3
    # Every column of the frame is there: two in each primitive cell.
    area_nm2 = (512 * 0.039 - 0.2) ** 2
    assert len(features.arrays["site_x_nm"]) == pytest.approx(2 * area_nm2 / (0.3282**2 * np.sqrt(3) / 2), rel=0.02)


def test_detectability_is_near_the_bound(judged: tuple[Exposure, Specimen, FeatureSet]) -> None:
    exposure, _, features = judged
    label, llr = labels(exposure, features), features.arrays["llr"]
    for number, name in enumerate(SPECIES):
        host = llr[(label < 0) & ~np.isnan(llr[:, number]), number]
        there = llr[label == number, number]
        # Under each hypothesis the ideal ratio has mean -+d'^2/2 and variance d'^2.
        bound = np.sqrt(2 * features.arrays["expected_information"][number])
        spread = (host.std() * len(host) + there.std() * len(there)) / (len(host) + len(there))
        distance = (there.mean() - host.mean()) / spread
        print(f"{name}: {len(there)} there, d' {distance:.2f}, bound {bound:.2f}")
        assert len(there) > 8
        assert distance > 0.85 * bound * (1 - 1 / np.sqrt(2 * len(there)))


def test_ratios_under_the_host_are_calibrated(judged: tuple[Exposure, Specimen, FeatureSet]) -> None:
    exposure, _, features = judged
    label, llr = labels(exposure, features), features.arrays["llr"]
    for number in range(len(SPECIES)):
        ratio = llr[(label < 0) & ~np.isnan(llr[:, number]), number].astype(float)
        # A likelihood ratio exceeds x under the null with probability below exp(-x), whatever the distribution.
        for level in (1.0, 2.0, 3.0):
            assert np.mean(ratio > level) < 1.5 * np.exp(-level) + 2 / len(ratio)
    for column in ("W", "Se2"):
        assert 0.9 < features.values[f"overdispersion_{column}"].value < 1.15


def test_amplitudes_have_honest_errors(judged: tuple[Exposure, Specimen, FeatureSet]) -> None:
    exposure, _, features = judged
    label = labels(exposure, features)
    xy = np.stack([features.arrays["site_x_nm"], features.arrays["site_y_nm"]], axis=1)
    alone = np.array([len(near) for near in cKDTree(xy).query_ball_point(exposure.defect_xy_nm, 0.5)])
    assert len(alone)
    near = np.unique(np.concatenate(cKDTree(xy).query_ball_point(exposure.defect_xy_nm, 0.75)).astype(int))
    far = np.setdiff1d(np.flatnonzero(label < 0), near)
    pull = features.arrays["amplitude"][far] / features.arrays["amplitude_std"][far]
    for detector in range(pull.shape[1]):
        coverage = float(np.mean(np.abs(pull[:, detector]) < 1.96))
        print(f"detector {detector}: coverage {coverage:.4f} over {len(far)} columns")
        assert 0.92 < coverage < 0.98


def test_suspects_are_split_by_subframe(judged: tuple[Exposure, Specimen, FeatureSet]) -> None:
    exposure, _, features = judged
    arrays = features.arrays
    assert arrays["suspect_llr_subframes"].shape == (len(arrays["suspect"]), 4, len(SPECIES))
    np.testing.assert_allclose(
        arrays["suspect_llr_subframes"].sum(axis=1), arrays["llr"][arrays["suspect"]], atol=1e-3, rtol=1e-4
    )
    strong = np.flatnonzero(np.nan_to_num(arrays["llr"], nan=-99).max(axis=1) > 2.0)
    np.testing.assert_array_equal(arrays["suspect"], strong)
    assert exposure.frame.counts[exposure.frame.mode.detectors[0].name].shape[0] == 4


def test_a_neighbour_of_a_vacancy_is_judged_with_it() -> None:
    rng = np.random.default_rng(31)
    specimen = Specimen(MODEL, rotation_deg=5.0, density_per_nm2={"V_Se2": 0.25})
    exposure = expose(specimen, rng, shape_px=(256, 256), dose_e_per_a2=8000.0)
    features = SITES.extract(exposure.frame)
    never = LatticeSites(MODEL, SPECIES, settled_llr_threshold=1e9).extract(exposure.frame)
    label = labels(exposure, features)
    xy = np.stack([features.arrays["site_x_nm"], features.arrays["site_y_nm"]], axis=1)
    around = np.unique(np.concatenate(cKDTree(xy).query_ball_point(exposure.defect_xy_nm, 0.35)).astype(int))
    around = around[(label[around] < 0) & (features.arrays["site_column"][around] == 0)]
    with_it, without = features.arrays["llr"][around, 3], never.arrays["llr"][around, 3]
    print(f"{len(around)} metal neighbours: mean ratio {with_it.mean():.1f} with, {without.mean():.1f} without")
    far = features.arrays["llr"][np.setdiff1d(np.flatnonzero(label < 0), around), 3]
    assert abs(with_it.mean() - np.nanmean(far)) < abs(without.mean() - np.nanmean(far))
    assert np.mean(with_it > 3.0) < 0.03


def test_small_frames_use_the_lattice_of_a_large_one() -> None:
    specimen = Specimen(MODEL, rotation_deg=-14.0, shear=0.01, origin_nm=(0.2, -0.1), density_per_nm2=DENSITY)
    large = expose(specimen, np.random.default_rng(41), dose_e_per_a2=500.0)
    hint = LatticeHint.from_features(SITES.extract(large.frame))
    assert hint is not None
    for seed in range(6):
        rng = np.random.default_rng([42, seed])
        moved = Specimen(MODEL, rotation_deg=-14.0, shear=0.01, origin_nm=tuple(rng.uniform(-1, 1, 2)))
        exposure = expose(moved, rng, shape_px=(52, 52), dose_e_per_a2=4000.0)
        features = SITES.extract(exposure.frame, hint)
        np.testing.assert_allclose(features.arrays["lattice_basis_nm"], hint.basis_nm)
        assert off_nm(exposure, moved, features) < 6e-3
        assert len(features.arrays["site_x_nm"]) > 50


def test_a_lattice_that_drifts_between_subframes_is_followed() -> None:
    specimen = Specimen(MODEL, rotation_deg=9.0, density_per_nm2={"V_Se": 0.1}, drift_per_subframe_nm=(0.04, 0.03))
    exposure = expose(specimen, np.random.default_rng(51), dose_e_per_a2=2500.0, shape_px=(384, 384))
    features = SITES.extract(exposure.frame)
    still = Specimen(MODEL, rotation_deg=9.0, origin_nm=(0.06, 0.045))
    assert off_nm(exposure, still, features) < 4e-3
    moved = Exposure(exposure.frame, exposure.defect_xy_nm + 1.5 * np.array([0.04, 0.03]), *_rest(exposure))
    label = labels(moved, features)
    there = features.arrays["llr"][label == 0, 0]
    assert len(there) > 10
    assert there.mean() > 0.8 * features.arrays["expected_information"][0]


def _rest(exposure: Exposure) -> tuple[list[str], np.ndarray, np.ndarray]:
    return exposure.defect_species, exposure.matrix, exposure.clean


def test_contaminated_sites_say_so() -> None:
    def haze(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(x + 0 * y > 3.0, 0.8, 0.0)

    specimen = Specimen(MODEL, rotation_deg=21.0, contamination=haze)
    exposure = expose(specimen, np.random.default_rng(61), dose_e_per_a2=1000.0)
    features = SITES.extract(exposure.frame)
    x = features.arrays["site_x_nm"]
    clean = features.arrays["site_clean_probability"]
    assert clean[x < 2.0].mean() > 0.98
    assert clean[x > 4.0].mean() < 0.02
    assert 0.9 < features.values["gain_ratio"].value < 1.1
    assert off_nm(exposure, specimen, features) < 4e-3
    assert set(np.round(clean[features.arrays["suspect"]])) <= {1.0}


def test_frames_without_a_lattice_have_no_sites() -> None:
    exposure = expose(Specimen(MODEL), np.random.default_rng(71), shape_px=(128, 128))
    for name, counts in exposure.frame.counts.items():
        exposure.frame.counts[name] = np.random.default_rng(72).poisson(counts.mean(), counts.shape).astype(np.uint16)
    features = SITES.extract(exposure.frame)
    assert features.arrays["llr"].shape == (0, len(SPECIES))
    assert "no lattice" in str(features.values["contrast_ratio"].reason)
    assert LatticeHint.from_features(features) is None


def test_normalised_counts_and_unknown_species_are_refused() -> None:
    exposure = expose(Specimen(MODEL), np.random.default_rng(81), shape_px=(64, 64))
    detectors = [detector.model_copy(update={"raw_counts": False}) for detector in exposure.frame.mode.detectors]
    object.__setattr__(exposure.frame, "mode", exposure.frame.mode.model_copy(update={"detectors": tuple(detectors)}))
    with pytest.raises(NormalisedCounts, match=r"'maadf' declares raw_counts false.*describe_normalised"):
        SITES.extract(exposure.frame)
    with pytest.raises(UnknownSpecies, match=r"V_S not in the lattice model.*V_Se"):
        LatticeSites(MODEL, ["V_S"])


def test_the_same_frame_gives_the_same_bytes() -> None:
    exposure = expose(Specimen(MODEL, rotation_deg=3.0), np.random.default_rng(91), shape_px=(128, 128))
    assert SITES.extract(exposure.frame).to_bytes() == LatticeSites(MODEL, SPECIES).extract(exposure.frame).to_bytes()
