"""What the beam removes: cross-sections against the textbook, rates against the cross-section."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulation.specimens import orthogonal_cell, read_structure
from simulation.world.config import SimulatedConfig
from simulation.world.cross_sections import (
    displacement_barn,
    excitation_barn,
    hidden_factor,
    loss_barn,
    max_transfer_ev,
    rms_velocity_m_per_s,
    thermal_displacement_barn,
)
from simulation.world.crystal import Crystal, Site
from simulation.world.damage import Columns, Raster

STRUCTURE = str(Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz")
CONFIG = SimulatedConfig(structure=STRUCTURE)


CRYSTAL = Crystal.of(orthogonal_cell(read_structure(STRUCTURE)), np.random.default_rng(3))


def columns(barn: float, natives: dict[Site, str] | None = None, factor: float = 1.0) -> Columns:
    return Columns(
        crystal=CRYSTAL,
        contents={name: defect.becomes for name, defect in CONFIG.defects.items()},
        columns_of={name: defect.column for name, defect in CONFIG.defects.items()},
        natives=natives or {},
        barn_by_symbol={"Se": barn, "W": 0.0},
        neighbour_factor=factor,
    )


def test_se_cannot_be_displaced_at_60_kv() -> None:
    assert thermal_displacement_barn("Se", 60e3, 6.3) == 0.0
    assert displacement_barn("Se", 100e3, 6.3) == 0.0


def test_s_in_mos2_at_80_kv_is_about_one_barn_and_only_thanks_to_heat() -> None:
    assert max_transfer_ev("S", 80e3) < 6.9
    assert displacement_barn("S", 80e3, 6.9) == 0.0
    assert 0.5 < thermal_displacement_barn("S", 80e3, 6.9) < 2.0
    assert 200 < rms_velocity_m_per_s("S") < 400


def test_displacement_of_carbon_at_high_energy_matches_published_value() -> None:
    # Zobelli et al. 2007, fig. 1: some 20 barn for a threshold of 17 eV at 150 to 200 kV; the maximum is near there.
    assert 15 < displacement_barn("C", 200e3, 17.0) < 30
    assert displacement_barn("C", 80e3, 17.0) == 0.0


def test_excitation_goes_through_the_two_stated_values() -> None:
    assert excitation_barn(CONFIG, 60e3) == pytest.approx(1)
    assert excitation_barn(CONFIG, 80e3) == pytest.approx(5)
    assert excitation_barn(CONFIG, 70e3) == pytest.approx(np.sqrt(5))


def test_hidden_factor_is_lognormal_with_a_factor_three() -> None:
    logs = [np.log(hidden_factor(CONFIG.model_copy(update={"seed": seed}))) for seed in range(300)]
    assert np.std(logs) == pytest.approx(np.log(3), rel=0.12)
    assert abs(np.mean(logs)) < 4 * np.log(3) / np.sqrt(300)
    assert loss_barn(CONFIG, "W") == 0.0


def test_rate_matches_the_cross_section() -> None:
    barn, flux = 4.0, 3000.0
    raster = Raster(0.0, 0.0, 60.0, 40.0, 0.0, flux)
    expected = 2 * 60 * 40 * CRYSTAL.sites_per_nm2("Se2") * barn * 1e-8 * flux
    assert expected > 4
    many = []
    for seed in range(60):
        world = columns(barn)
        world.expose_raster(raster, 1.0, "a", 1, np.random.default_rng(seed))
        many.append(len(world.births))
    assert np.mean(many) == pytest.approx(expected, abs=4 * np.sqrt(expected / 60))
    assert np.var(many) == pytest.approx(expected, rel=0.6)


def test_every_loss_lies_in_the_exposed_rectangle_also_when_it_is_turned() -> None:
    world = columns(2000.0)
    raster = Raster(12.0, -7.0, 30.0, 10.0, 25.0, 2000.0)
    world.expose_raster(raster, 1.0, "a", 1, np.random.default_rng(2))
    xy = np.array([world.crystal.position_nm(birth.site) for birth in world.births])
    assert len(xy) > 100
    assert raster.contains(xy[:, 0], xy[:, 1], margin_nm=0.2).all()
    assert not raster.contains(xy[:, 0] + 40, xy[:, 1]).any()


def test_strong_exposure_ends_in_double_vacancies_and_not_beyond() -> None:
    world = columns(1e6)
    raster = Raster(0.0, 0.0, 4.0, 4.0, 0.0, 2000.0)  # hazard 20
    world.expose_raster(raster, 1.0, "a", 1, np.random.default_rng(2))
    inner = Raster(0.0, 0.0, 3.2, 3.2, 0.0, 0.0)
    sites = {birth.site for birth in world.births if inner.contains(*np.array(CRYSTAL.position_nm(birth.site)))}
    assert len(sites) == pytest.approx(3.2**2 * CRYSTAL.sites_per_nm2("Se2"), rel=0.15)
    assert {world.species_at(site) for site in sites} == {"V_Se2"}
    assert len(world.births) <= 2 * len({birth.site for birth in world.births})


def test_loss_follows_declared_species_only() -> None:
    world = columns(1e6)
    (site,) = world.crystal.nearest("Se2", np.array([0.0]), np.array([0.0]))
    oxygen = columns(1e6, {site: "O_Se"})
    oxygen.expose_raster(
        Raster(*oxygen.crystal.position_nm(site), 0.2, 0.2, 0.0, 1e4), 1.0, "a", 1, np.random.default_rng(0)
    )
    assert oxygen.species_at(site) == "O_Se"
    single = columns(1e6, {site: "V_Se"})
    single.expose_raster(
        Raster(*single.crystal.position_nm(site), 0.2, 0.2, 0.0, 1e4), 1.0, "a", 1, np.random.default_rng(0)
    )
    assert single.species_at(site) == "V_Se2"


def test_loss_beside_a_vacancy_is_five_times_as_likely() -> None:
    grid = np.arange(-98.0, 99.0, 4.0)
    x, y = np.meshgrid(grid, grid)
    vacancies = dict.fromkeys(CRYSTAL.nearest("Se2", x.ravel(), y.ravel()), "V_Se2")
    near = {other for site in vacancies for other in CRYSTAL.neighbours(site)}
    assert len(near) == 6 * len(vacancies)
    beside = elsewhere = 0
    for seed in range(3):
        world = columns(100.0, dict(vacancies), factor=5.0)
        world.expose_raster(Raster(0.0, 0.0, 200.0, 200.0, 0.0, 2000.0), 1.0, "a", 1, np.random.default_rng(seed))
        lost = [birth.site in near for birth in world.births]
        beside += sum(lost)
        elsewhere += len(lost) - sum(lost)
    host = 40_000 * CRYSTAL.sites_per_nm2("Se2") - 7 * len(vacancies)
    assert beside > 500
    assert (beside / len(near)) / (elsewhere / host) == pytest.approx(5, rel=4 / np.sqrt(beside))


def test_the_atom_left_in_a_vacancy_is_as_exposed_as_its_neighbours() -> None:
    grid = np.arange(-98.0, 99.0, 4.0)
    x, y = np.meshgrid(grid, grid)
    vacancies = dict.fromkeys(CRYSTAL.nearest("Se2", x.ravel(), y.ravel()), "V_Se")
    world = columns(500.0, dict(vacancies), factor=5.0)
    world.expose_raster(Raster(0.0, 0.0, 200.0, 200.0, 0.0, 2000.0), 1.0, "a", 1, np.random.default_rng(0))
    doubled = sum(world.species_at(site) == "V_Se2" for site in vacancies)
    expected = len(vacancies) * -np.expm1(-5 * 500e-8 * 2000)
    assert doubled == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_parked_beam_burns_the_column_below_it_and_no_other() -> None:
    world = columns(1.0)
    (site,) = world.crystal.nearest("Se2", np.array([1.0]), np.array([2.0]))
    x_nm, y_nm = world.crystal.position_nm(site)
    world.expose_spot(x_nm, y_nm, 1.9e8, 1.0, "park", 0, np.random.default_rng(0))
    assert 1 <= len(world.births) <= 2
    assert {birth.site for birth in world.births} == {site}
    (metal,) = world.crystal.nearest("W", np.array([5.0]), np.array([5.0]))
    before = len(world.births)
    world.expose_spot(*world.crystal.position_nm(metal), 1.9e8, 1.0, "park", 0, np.random.default_rng(0))
    assert len(world.births) == before
