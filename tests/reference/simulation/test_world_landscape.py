"""Contamination, native defects and the lattice they sit on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

from simulation.specimens import orthogonal_cell, read_structure
from simulation.world.config import SimulatedConfig
from simulation.world.crystal import Crystal
from simulation.world.defect_field import CLUSTERINGS, DefectField, draw_natives
from simulation.world.landscape import STEP_NM, Landscape

STRUCTURE = str(Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz")
SEEDS = range(6)


def config(**changes: object) -> SimulatedConfig:
    return SimulatedConfig.model_validate({"structure": STRUCTURE, **changes})


@pytest.fixture(scope="module")
def crystal() -> Crystal:
    return Crystal.of(orthogonal_cell(read_structure(STRUCTURE)), np.random.default_rng(3))


@pytest.mark.parametrize("seed", SEEDS)
def test_clean_fraction_is_met_by_windows_of_the_right_size(seed: int) -> None:
    landscape = Landscape.draw(config(seed=seed))
    inside = landscape.clean_mask()
    assert inside.shape == (200, 200)
    assert inside.mean() == pytest.approx(0.4, abs=0.01)
    windows, count = label(landscape.is_clean)
    rows, columns = landscape.is_clean.shape
    for number in range(1, count + 1):
        r, c = np.nonzero(windows == number)
        pad = 40 / STEP_NM
        touches = min(r.min() - pad, c.min() - pad, rows - pad - 1 - r.max(), columns - pad - 1 - c.max()) < 1.5
        diameter_nm = 2 * np.sqrt(len(r) * STEP_NM**2 / np.pi)
        assert diameter_nm < 60 * 1.1
        assert touches or diameter_nm > 15 * 0.9


def test_clean_means_no_film_and_covered_means_film() -> None:
    landscape = Landscape.draw(config(seed=1))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-100, 100, (2, 2000))
    clean = landscape.clean_at(x, y)
    thickness = landscape.thickness_at(x, y)
    assert 0.3 < clean.mean() < 0.5
    assert np.mean(thickness[clean]) < 0.02  # only the half-step at the rim
    assert thickness[~clean].mean() == pytest.approx(6.0 * 0.9, rel=0.2)
    assert not landscape.clean_at(np.array([130.0]), np.array([0.0])).any()
    assert landscape.thickness_at(np.array([500.0]), np.array([500.0]))[0] > 0


def test_thickness_on_lines_is_the_same_bilinear_value() -> None:
    landscape = Landscape.draw(config(seed=2))
    x, y = np.linspace(-160, 160, 57), np.linspace(-90, 170, 43)
    grid_x, grid_y = np.meshgrid(x, y)
    np.testing.assert_allclose(
        landscape.thickness_on_lines(x, y), landscape.thickness_at(grid_x, grid_y), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("sigma", CLUSTERINGS)
def test_density_field_has_unit_mean_and_the_stated_spread(sigma: float) -> None:
    logs, values = [], []
    for seed in range(40):
        field = DefectField.draw(config(seed=seed, clustering_sigma=sigma, width_nm=400, height_nm=400)).relative
        logs.append(np.log(field))
        values.append(field.mean())
    assert np.mean(values) == pytest.approx(1, abs=0.1 + 0.2 * sigma)
    assert np.std(logs) == pytest.approx(sigma, abs=0.06 * sigma + 1e-12)
    if sigma:
        g = (np.array(logs) + sigma**2 / 2) / sigma
        lag = 15  # 30 nm: covariance exp(-1/2)
        assert np.mean(g[:, :, lag:] * g[:, :, :-lag]) == pytest.approx(np.exp(-0.5), abs=0.1)


def test_clustering_is_drawn_from_three_values_by_seed() -> None:
    drawn = {DefectField.draw(config(seed=seed)).clustering_sigma for seed in range(30)}
    assert drawn == set(CLUSTERINGS)
    assert DefectField.draw(config(seed=5, world_seed=9)).clustering_sigma == (
        DefectField.draw(config(seed=6, world_seed=9)).clustering_sigma
    )


def test_native_densities_are_right_over_seeds(crystal: Crystal) -> None:
    totals = dict.fromkeys(config().densities_per_nm2, 0)
    count = 20
    for seed in range(count):
        settings = config(seed=seed, clustering_sigma=0.0)
        for species in draw_natives(settings, crystal, DefectField.draw(settings)).values():
            totals[species] += 1
    for species, total in totals.items():
        expected = config().densities_per_nm2[species] * 40_000 * count
        assert abs(total - expected) < 4 * np.sqrt(expected), species


def test_clustered_natives_follow_the_field(crystal: Crystal) -> None:
    settings = config(seed=11, clustering_sigma=1.2)
    field = DefectField.draw(settings)
    xy = np.array([crystal.position_nm(site) for site in draw_natives(settings, crystal, field)])
    rng = np.random.default_rng(0)
    anywhere = rng.uniform(-100, 100, (2, 4000))
    assert field.at(xy[:, 0], xy[:, 1]).mean() > 1.5 * field.at(*anywhere).mean()


def test_every_native_sits_on_a_site_of_its_column(crystal: Crystal) -> None:
    settings = config(seed=4)
    natives = draw_natives(settings, crystal, DefectField.draw(settings))
    assert len(natives) > 300
    for site, species in natives.items():
        assert crystal.columns[site.column].name == settings.defects[species].column
        x_nm, y_nm = crystal.position_nm(site)
        assert max(abs(x_nm), abs(y_nm)) < 100.5
        (again,) = crystal.nearest(settings.defects[species].column, np.array([x_nm]), np.array([y_nm]))
        assert again == site


def test_six_neighbours_at_the_lattice_constant(crystal: Crystal) -> None:
    for index in range(len(crystal.columns)):
        (site,) = crystal.nearest(crystal.columns[index].name, np.array([3.0]), np.array([-2.0]))
        here = np.array(crystal.position_nm(site))
        distances = [np.hypot(*(np.array(crystal.position_nm(other)) - here)) for other in crystal.neighbours(site)]
        np.testing.assert_allclose(distances, [0.3282] * 6, atol=2e-4)
