"""Laws of built specimens: turning keeps density and distances, borders are no seams, a seed means the same atoms."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from simulation.builders import (
    PointDefect,
    amorphous_film,
    close_packed,
    crystal,
    mass_density_g_per_cm3,
    monolayer,
    with_random_defects,
    zone_axis,
)
from simulation.builders.amorphous import spaced

AXES = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)
CUBIC = st.sampled_from(["Au", "Fe", "Si", "SrTiO3", "CeO2"])


def neighbours(atoms, reach_angstrom):
    """Sorted numbers of neighbours within a reach, through all faces of the cell."""
    lengths = atoms.cell.lengths()
    repeats = np.ceil(2.1 * reach_angstrom / lengths).astype(int)
    many = atoms * tuple(np.maximum(repeats, 1))
    box = many.cell.lengths()
    points = np.mod(many.positions, box)
    points[points >= box] = 0.0
    tree = cKDTree(points, boxsize=box)
    counts = tree.query_ball_point(points, reach_angstrom, return_length=True)
    return np.unique(np.column_stack([many.numbers, counts]), axis=0).tolist()


@settings(max_examples=15)
@given(CUBIC, AXES)
def test_a_turned_crystal_is_the_same_crystal(name, axis):
    turned = zone_axis(name, axis, thickness_nm=0.1, repeat_limit=5)
    assume(len(turned) < 800)
    unit = crystal(name)
    assert np.isclose(mass_density_g_per_cm3(turned), mass_density_g_per_cm3(unit), rtol=1e-6)
    assert neighbours(turned, 4.3) == neighbours(unit, 4.3)


@settings(max_examples=15)
@given(st.lists(st.sampled_from((1, 2)), min_size=1, max_size=10))
def test_close_packed_planes_have_twelve_neighbours(steps):
    """No letter beside itself, the first one is beside the last: steps of one or two that end where they began."""
    back = 3 - sum(steps) % 3
    closed = [*steps, *((1, 2) if back == 3 else (back,))]
    sequence = "".join("ABC"[place % 3] for place in accumulate(closed))
    atoms = close_packed("Cu", sequence, thickness_nm=0.1).atoms
    assert neighbours(atoms, 2.8) == [[29, 13]]  # itself and twelve


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.floats(0.5, 3.0), st.floats(0.08, 0.16))
def test_amorphous_matter_keeps_its_distance_across_borders(seed, density_g_per_cm3, distance_nm):
    def film():
        return amorphous_film(
            width_nm=1.5, height_nm=1.2, thickness_nm=1.0, vacuum_nm=0.0, seed=seed,
            density_g_per_cm3=density_g_per_cm3, least_distance_nm=distance_nm,
        )  # fmt: skip

    atoms = film()
    assert np.isclose(mass_density_g_per_cm3(atoms), density_g_per_cm3, rtol=0.02)
    assert {count for _, count in neighbours(atoms, 10 * distance_nm * (1 - 1e-9))} == {1}
    np.testing.assert_array_equal(film().positions, atoms.positions)


@given(st.integers(0, 2**31))
def test_what_is_kept_does_not_depend_on_the_order_of_the_points(seed):
    rng = np.random.default_rng(seed)
    points, marks = rng.random((60, 3)), rng.random(60)
    order = rng.permutation(60)
    kept = spaced(points, marks, 0.2)
    np.testing.assert_array_equal(spaced(points[order], marks[order], 0.2), kept[order])


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.floats(0.0, 3.0), st.floats(0.0, 1.5))
def test_defects_are_what_the_list_says(seed, per_nm2, sigma):
    layer = monolayer("WS2", width_nm=2.0, height_nm=2.0)
    densities = {PointDefect("vacancy", "S"): per_nm2, PointDefect("antisite", "W", "S"): per_nm2 / 2}
    made = with_random_defects(layer, densities, seed=seed, clustering_sigma=sigma, clustering_length_nm=1.0)
    removed = [symbol for site in made.sites for symbol in site.removed]
    added = [symbol for site in made.sites for symbol in site.added]
    for symbol in ("W", "S"):
        difference = made.atoms.symbols.count(symbol) - layer.symbols.count(symbol)
        assert difference == added.count(symbol) - removed.count(symbol)
    places = {(site.x_nm, site.y_nm, site.z_nm) for site in made.sites}
    assert len(places) == len(made.sites)
