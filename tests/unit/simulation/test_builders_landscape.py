"""A landscape is the same from every field, and its overview says what its atoms are."""

from math import pi

import numpy as np
import pytest
from scipy.spatial import cKDTree

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, InvalidParameter, InvalidSpecimen, simulate
from simulation.builders import Landscape, LandscapeConfig
from simulation.builders.landscape.places import uniform_at

CONFIG = LandscapeConfig(
    seed=5, film_thickness_nm=1.0, contamination_nm=0.3, dirty_contamination_nm=1.0, contamination_limit_nm=1.5,
    particles_per_um2=12_000, particle_diameter_min_nm=1.5, particle_diameter_max_nm=3.0, flakes_per_um2=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def landscape():
    return Landscape(CONFIG)


@pytest.fixture(scope="module")
def corner_nm(landscape):
    """A place at the edge of a flake: film, flake and particles."""
    flake = landscape.flakes(700, 700, 900, 900)[0]
    edge = flake.normals[0] * flake.distances_nm[0]
    return float(flake.x_nm + edge[0]), float(flake.y_nm + edge[1])


def in_world(atoms, corner_nm, low_nm, high_nm):
    """Atoms between two corners, sorted: number, x, y, z in angstrom of the landscape."""
    positions = atoms.positions + 10 * np.array([*corner_nm, 0.0])
    inside = np.all((positions[:, :2] > 10 * low_nm) & (positions[:, :2] < 10 * high_nm), axis=1)
    rows = np.column_stack([atoms.numbers, positions])[inside]
    return rows[np.lexsort(rows.round(3).T)]


def test_overlapping_fields_hold_identical_atoms(landscape, corner_nm):
    x_nm, y_nm = corner_nm
    one = landscape.atoms(x_nm, y_nm, 4.0, 4.0)
    other = Landscape(CONFIG).atoms(x_nm + 1.5, y_nm - 2.0, 4.0, 4.0)  # another object, asked for something else first
    low, high = np.array([x_nm + 1.5, y_nm]), np.array([x_nm + 4.0, y_nm + 2.0])
    shared = in_world(one, (x_nm, y_nm), low, high), in_world(other, (x_nm + 1.5, y_nm - 2.0), low, high)
    assert len(shared[0]) > 500
    np.testing.assert_allclose(*shared, atol=1e-6)
    assert cKDTree(one.positions).query(one.positions, k=2)[0][:, 1].min() > 1.29  # angstrom
    assert one.positions[:, 2].min() > 0
    assert one.positions[:, 2].max() < one.cell.lengths()[2] == pytest.approx(10 * landscape.depth_nm)


def test_another_seed_is_another_place(landscape):
    other = Landscape(CONFIG.model_copy(update={"seed": 6}))
    assert [flake.x_nm for flake in other.flakes(0, 0, 3e3, 3e3)] != [
        flake.x_nm for flake in landscape.flakes(0, 0, 3e3, 3e3)
    ]


def test_the_overview_counts_the_atoms(landscape, corner_nm):
    field = (corner_nm[0] - 6, corner_nm[1] - 4, 9.0, 8.0)
    atoms = landscape.atoms(*field)
    maps = landscape.overview(*field, (160, 180))
    assert {"C", "Mo", "S", "Au"} == set(maps.atoms_per_nm2)
    for symbol, per_nm2 in maps.atoms_per_nm2.items():
        expected, count = per_nm2.mean() * 72.0, atoms.symbols.count(symbol)
        assert count == pytest.approx(expected, abs=5 * np.sqrt(expected) + 0.02 * expected), symbol
    assert atoms.symbols.count("Mo") > 100
    assert atoms.symbols.count("Au") > 100
    assert maps.thickness_nm["film"].max() == 1.0


def test_the_overview_shows_squares_holes_tears_and_dirt():
    landscape = Landscape(CONFIG.model_copy(update={"flakes_per_um2": 0.01}))
    maps = landscape.overview(-50_000, -50_000, 100_000, 100_000, (160, 160))
    bar = maps.thickness_nm["bar"] > 0
    assert bar.mean() == pytest.approx(1 - 0.75**2, abs=0.02)
    states = [landscape.terrain.square(i, j).state for i in range(-10, 10) for j in range(-10, 10)]
    assert states.count("broken") / 400 == pytest.approx(0.15, abs=0.06)  # three standard deviations
    assert states.count("dirty") / 400 == pytest.approx(0.17, abs=0.06)
    column, row = next((i, j) for i in range(9) for j in range(9) if landscape.terrain.square(i, j).state == "intact")
    middle = landscape.overview(20_000 * column - 5e3, 20_000 * row - 5e3, 1e4, 1e4, (100, 100)).thickness_nm
    holes = (middle["film"] == 0).mean()
    assert holes == pytest.approx(pi / 4 * (1200 / 2500) ** 2, abs=0.02)
    bare = (middle["film"] == 0) & (middle["flake"] == 0)
    assert not middle["contamination"][bare].any()
    assert middle["contamination"][~bare].mean() == pytest.approx(0.3, rel=0.3)


def test_particles_keep_apart_and_are_as_many_as_asked(landscape):
    particles = landscape.particles(700, 700, 150, 150)
    centres = np.array([(each.x_nm, each.y_nm) for each in particles])
    radii = np.array([each.radius_nm for each in particles])
    apart = np.hypot(*(centres[:, None] - centres[None]).T) - radii[:, None] - radii[None] + 99 * np.eye(len(radii))
    assert apart.min() >= 0.5
    reach = CONFIG.particles_per_um2 * 1e-6 * pi * (2.25 + 0.5) ** 2  # expected number of candidates in the way
    expected = CONFIG.particles_per_um2 * 1e-6 * 152.25**2 * (1 - np.exp(-reach)) / reach
    assert len(particles) == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_a_particle_alone_in_its_field_is_found(landscape):
    one = landscape.particles(700, 700, 150, 150)[0]
    reach_nm = one.radius_nm
    around = landscape.particles(one.x_nm - reach_nm / 9, one.y_nm - reach_nm / 9, reach_nm / 4, reach_nm / 4)
    assert [each.x_nm for each in around] == [one.x_nm]
    row = landscape.overview(one.x_nm - 50, one.y_nm, 100, 1, shape_px=(1, 40)).thickness_nm["flake"]
    assert row.shape == (1, 40)


def test_draws_by_place_are_even():
    chance = uniform_at(3, np.random.default_rng(1).uniform(-1e7, 1e7, (20_000, 3)))
    assert chance.min() >= 0
    assert chance.max() < 1
    counts, _ = np.histogram(chance, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi squared of 19 degrees of freedom: 1 in 10,000


def test_a_hole_is_imaged_as_vacuum():
    empty = Landscape(CONFIG.model_copy(update={"flakes_per_um2": 0.0})).atoms(0, 0, 2, 2)
    assert len(empty) == 0
    optics = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20)
    rings = {"adf": AnnularDetector(25, 40), "bf": AnnularDetector(0, 25)}
    images = simulate(empty, optics, GridScan(0.5, 0.5, 1, 1, (2, 2)), rings, sampling_nm=0.02)
    assert images["adf"].values == pytest.approx(np.zeros((2, 2)), abs=1e-9)
    assert images["bf"].values == pytest.approx(np.ones((2, 2)), rel=1e-5)


def test_places_that_cannot_be_seen_are_refused_in_words(landscape):
    with pytest.raises(InvalidSpecimen, match=r"\(9995, 0\) nm meets an opaque grid bar; move"):
        landscape.atoms(9995, 0, 5, 5)
    with pytest.raises(InvalidParameter, match=r"40000 nm2 is above 10000 nm2; make it smaller"):
        landscape.atoms(0, 0, 200, 200)
    with pytest.raises(InvalidParameter, match=r"hole_diameter_nm = 3000\.0 nm must be below hole_pitch_nm"):
        LandscapeConfig(seed=1, hole_diameter_nm=3000)
    with pytest.raises(InvalidParameter, match="unknown flake_material"):
        LandscapeConfig(seed=1, flake_material="paper")
