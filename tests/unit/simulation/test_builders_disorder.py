"""Defects, particles, boundaries, faults and amorphous films: counts, distances, truth, determinism."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from instruments import Optics
from simulation import AnnularDetector, InvalidParameter, InvalidSpecimen, PointScan, simulate
from simulation.builders import (
    SHAPES,
    PointDefect,
    amorphous_film,
    areal_density_per_nm2,
    core_shell,
    dopant_at_depth,
    layer_tilt_boundary,
    mass_density_g_per_cm3,
    monolayer,
    nanoparticle,
    on_film,
    stacking_fault,
    tilt_boundary,
    with_defects,
    with_random_defects,
    zone_axis,
)
from simulation.builders.limits import close_pairs
from simulation.builders.stacking_faults import close_packed
from simulation.specimens import Specimen


@pytest.fixture(scope="module")
def layer():
    return monolayer("MoS2", width_nm=6.0, height_nm=6.0)


def changed(defective, before):
    """Atoms gained and lost by species."""
    symbols = set(before.symbols) | set(defective.atoms.symbols)
    return {
        symbol: defective.atoms.symbols.count(symbol) - before.symbols.count(symbol)
        for symbol in symbols
        if defective.atoms.symbols.count(symbol) != before.symbols.count(symbol)
    }


@pytest.mark.parametrize(
    ("defect", "difference"),
    [
        (PointDefect("vacancy", "S"), {"S": -1}),
        (PointDefect("column_vacancy", "S"), {"S": -2}),
        (PointDefect("double_vacancy", "Mo", partner="S"), {"Mo": -1, "S": -1}),
        (PointDefect("substitution", "Mo", "W"), {"Mo": -1, "W": 1}),
        (PointDefect("antisite", "S", "Mo"), {"S": -1, "Mo": 1}),
        (PointDefect("adatom", "Mo", "Re", height_nm=0.3), {"Re": 1}),
    ],
)
def test_one_defect_changes_what_it_says_and_nothing_else(layer, defect, difference):
    index = list(layer.symbols).index(defect.species)
    made = with_defects(layer, [(defect, index)])
    assert changed(made, layer) == difference
    (site,) = made.sites
    assert site.name == defect.name
    assert (site.x_nm, site.y_nm, site.z_nm) == pytest.approx(tuple(layer.positions[index] / 10))
    net = {symbol: site.added.count(symbol) - site.removed.count(symbol) for symbol in site.added + site.removed}
    assert {symbol: count for symbol, count in net.items() if count} == difference
    assert layer.symbols.count("S") == 2 * layer.symbols.count("Mo")  # the argument is not changed


def test_an_adatom_drawn_at_random_is_a_bond_before_its_atom_and_near_no_other():
    layer = monolayer("WSe2", width_nm=2.0, height_nm=2.0)
    for symbol, bond_angstrom in (("O", 0.66 + 1.20), ("Au", 1.36 + 1.20)):
        made = with_random_defects(layer, {PointDefect("adatom", "Se", symbol): 1.5}, seed=1)
        assert made.sites
        distances = made.atoms.get_all_distances(mic=True)[made.atoms.symbols == symbol]
        np.testing.assert_allclose(np.sort(distances, axis=1)[:, 1], bond_angstrom, atol=0.01)


def test_random_defects_are_as_many_as_listed_and_as_dense_as_asked(layer):
    densities = {PointDefect("vacancy", "S"): 0.5, PointDefect("substitution", "Mo", "W"): 0.3}
    area_nm2 = len(layer) / areal_density_per_nm2(layer)
    counts = []
    for seed in range(20):
        made = with_random_defects(layer, densities, seed=seed)
        names = [site.name for site in made.sites]
        assert changed(made, layer).get("W", 0) == names.count("W_Mo")
        assert changed(made, layer).get("S", 0) == -names.count("V_S")
        counts.append(len(names))
    expected = 0.8 * area_nm2
    assert abs(np.mean(counts) - expected) < 4 * np.sqrt(expected / 20)  # Poisson
    assert with_random_defects(layer, densities, seed=7).sites == with_random_defects(layer, densities, seed=7).sites


def test_clustered_defects_stand_nearer_to_each_other(layer):
    def mean_nearest_nm(sigma):
        found = []
        for seed in range(12):
            sites = with_random_defects(
                layer, {PointDefect("vacancy", "S"): 0.8}, seed=seed, clustering_sigma=sigma, clustering_length_nm=1.0
            ).sites
            points = np.array([(site.x_nm, site.y_nm) for site in sites])
            away = points[:, None] - points[None]
            box = layer.cell.lengths()[:2] / 10
            distance = np.hypot(*np.moveaxis(away - np.round(away / box) * box, -1, 0)) + 99 * np.eye(len(points))
            found.append(distance.min(axis=1).mean())
        return np.mean(found)

    assert mean_nearest_nm(2.0) < 0.8 * mean_nearest_nm(0.0)


def test_a_dopant_lies_at_its_depth():
    gold = zone_axis("Si", (1, 1, 0), thickness_nm=6, width_nm=1.0, height_nm=1.0)
    made = dopant_at_depth(gold, "Si", "Au", x_nm=0.5, y_nm=0.5, depth_nm=3.0)
    assert abs(made.sites[0].z_nm - 3.0) < 0.2
    assert np.hypot(made.sites[0].x_nm - 0.5, made.sites[0].y_nm - 0.5) < 0.3
    assert made.atoms.symbols.count("Au") == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_particles_have_the_volume_and_bonds_asked_for(shape):
    particle = nanoparticle("Au", shape, diameter_nm=3.0, axis=(1, 1, 0), azimuth_deg=20)
    expected = np.pi / 6 * 30**3 / (4.08**3 / 4)
    # cut through an atom, facets gain or lose up to half a layer: 3 nm are 13 layers of {111}, so up to a quarter
    assert len(particle) == pytest.approx(expected, rel=0.25 if shape != "sphere" else 0.08)
    bonds = neighbor_list("d", particle, 3.4)
    assert bonds.min() == pytest.approx(4.08 / np.sqrt(2), abs=1e-3)
    assert bonds.max() < 3.1  # an icosahedron is stretched by 5 % along its shells
    assert Specimen.of(particle).cell_angstrom[0] > 30


def test_the_crystal_direction_asked_for_lies_along_the_beam():
    seen = nanoparticle("Au", "octahedron", diameter_nm=3.0, axis=(1, 1, 0))
    heights = np.unique((seen.positions[:, 2]).round(3))
    np.testing.assert_allclose(np.diff(heights), 4.08 / np.sqrt(8), atol=2e-3)  # {220} planes


def test_twins_and_decahedra_have_their_symmetry():
    twin = nanoparticle("Au", "twin", diameter_nm=3.0, axis=(1, 1, 1))
    z = twin.positions[:, 2] - twin.cell.lengths()[2] / 2
    np.testing.assert_allclose(np.sort(z), np.sort(-z), atol=1e-6)
    inner = np.bincount(neighbor_list("i", twin, 3.2), minlength=len(twin)).max()
    assert inner == 12
    five = nanoparticle("Au", "decahedron", diameter_nm=3.0)
    points = five.positions - five.positions.mean(axis=0)
    angle = 2 * np.pi / 5
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = points @ turn.T
    assert max(np.linalg.norm(points - point, axis=1).min() for point in turned) < 1e-3


def test_a_core_lies_in_a_shell():
    particle = core_shell("Au", "Ag", "sphere", core_diameter_nm=2.0, diameter_nm=4.0)
    away = np.linalg.norm(particle.positions - particle.cell.lengths() / 2, axis=1)
    gold = particle.numbers == 79
    assert away[gold].max() < away[~gold].min() + 1e-6
    assert particle.info["mismatch_fraction"] == pytest.approx(4.08 / 4.09 - 1)
    with pytest.raises(InvalidParameter, match=r"mismatch of Au and Ni = 0\.15"):
        core_shell("Au", "Ni", core_diameter_nm=2.0, diameter_nm=4.0)


def test_particles_lie_on_their_film():
    atoms = on_film(nanoparticle("Pt", "cube", diameter_nm=1.5), film_thickness_nm=1.0, margin_nm=0.5, seed=2)
    carbon = atoms.numbers == 6
    assert atoms.positions[~carbon, 2].max() < atoms.positions[carbon, 2].min()
    film_nm3 = np.prod(atoms.cell.lengths()[:2]) / 100 * 1.0
    assert carbon.sum() * 12.011 * 1.66053907e-3 / film_nm3 == pytest.approx(2.0, rel=2e-3)  # g/cm3


def test_amorphous_films_keep_density_distance_and_composition():
    film = amorphous_film({"Si": 1, "O": 2}, density_g_per_cm3=2.2, least_distance_nm=0.15, width_nm=3.0, height_nm=3.0,
                          thickness_nm=3.0, vacuum_nm=0.0, seed=1)  # fmt: skip
    assert mass_density_g_per_cm3(film) == pytest.approx(2.2, rel=3e-3)
    assert film.symbols.count("O") == pytest.approx(2 * film.symbols.count("Si"), abs=2)
    assert len(close_pairs(film.positions, film.cell.lengths(), 1.4999)) == 0  # through all faces too
    layers, _ = np.histogram(film.positions[:, 2], bins=6, range=(0, 30))
    assert layers.std() < 0.15 * layers.mean()
    same = amorphous_film({"Si": 1, "O": 2}, density_g_per_cm3=2.2, least_distance_nm=0.15, width_nm=3.0, height_nm=3.0,
                          thickness_nm=3.0, vacuum_nm=0.0, seed=1)  # fmt: skip
    np.testing.assert_array_equal(same.positions, film.positions)
    with pytest.raises(InvalidParameter, match=r"1002\.8 atoms per nm3 cannot keep 0\.13 nm .* lower the density"):
        amorphous_film(width_nm=1, height_nm=1, thickness_nm=1, density_g_per_cm3=20)


@pytest.mark.parametrize(
    ("fault", "fault_count", "planes"), [("none", 0, 12), ("intrinsic", 2, 11), ("extrinsic", 2, 13), ("twin", 2, 12)]
)
def test_stacking_faults_keep_twelve_neighbours(fault, fault_count, planes):
    made = stacking_fault("Cu", fault, thickness_nm=0.8)
    np.testing.assert_array_equal(np.bincount(neighbor_list("i", made.atoms, 2.8)), 12)
    assert len(made.faults_y_nm) == fault_count  # planes whose neighbours repeat, as in hcp
    assert made.atoms.cell.lengths()[1] == pytest.approx(planes * 3.61 / np.sqrt(3))
    with pytest.raises(InvalidParameter, match="planes 1 and 2 are both B"):
        close_packed("Cu", "ABBC", thickness_nm=1)


@pytest.mark.parametrize(
    ("material", "plane", "axis", "sigma", "angle_deg"),
    [
        ("Au", (3, 1, 0), (0, 0, 1), 5, 36.87),
        ("Au", (2, 1, 0), (0, 0, 1), 5, 53.13),
        ("Al", (1, 1, 3), (1, -1, 0), 11, 50.48),
        ("Cu", (1, 1, 1), (1, -1, 0), 3, 109.47),
        ("Cu", (1, 2, -3), (1, 1, 1), 7, 21.79),
    ],
)
def test_tilt_boundaries_have_their_sigma_and_angle(material, plane, axis, sigma, angle_deg):
    made = tilt_boundary(material, plane, axis=axis, thickness_nm=0.4, grain_height_nm=1.0)
    assert made.sigma == sigma
    assert made.misorientation_deg == pytest.approx(angle_deg, abs=0.01)
    perfect = mass_density_g_per_cm3(zone_axis(material, (0, 0, 1), thickness_nm=1))
    assert 0.9 * perfect < mass_density_g_per_cm3(made.atoms) <= perfect * (1 + 1e-9)
    bond = {"Au": 2.885, "Al": 2.864, "Cu": 2.553}[material]
    coordination = np.bincount(neighbor_list("i", made.atoms, 1.2 * bond))
    assert int((coordination != 12).sum()) == made.odd_atom_count
    away_nm = distances_nm(made, coordination != 12)
    assert away_nm.min(axis=1).max(initial=0) < 0.45  # the grains are perfect
    assert made.odd_atom_count == 0 or (away_nm < 0.45).any(axis=0).all()  # and both boundaries are where they are said


def distances_nm(made, chosen):
    """Of chosen atoms from each of the boundaries, (n, 2), in the periodic cell."""
    height_nm = made.atoms.cell.lengths()[1] / 10
    away_nm = made.atoms.positions[chosen, 1, None] / 10 - np.array(made.boundaries_y_nm)
    return np.abs(away_nm - height_nm * np.round(away_nm / height_nm))


def test_the_coherent_twin_has_no_odd_atom_and_is_its_own_image_in_both_boundaries():
    made = tilt_boundary("Cu", (1, 1, 1), axis=(1, -1, 0), thickness_nm=0.4)
    assert made.odd_atom_count == 0
    box = made.atoms.cell.lengths()
    for boundary_nm in made.boundaries_y_nm:
        mirrored = made.atoms.positions * (1, -1, 1) + (0, 20 * boundary_nm, 0)
        apart = made.atoms.positions[:, None] - mirrored[None, :]
        apart -= box * np.round(apart / box)
        assert np.linalg.norm(apart, axis=-1).min(axis=0).max() < 0.01


@pytest.mark.parametrize(("m", "n", "sigma", "angle_deg"), [(2, 1, 7, 21.787), (3, 1, 13, 32.204)])
def test_graphene_boundaries_bond_every_atom_three_times(m, n, sigma, angle_deg):
    made = layer_tilt_boundary("graphene", m, n)
    assert (made.sigma, made.misorientation_deg) == (sigma, pytest.approx(angle_deg, abs=1e-3))
    first, bonds = neighbor_list("iD", made.atoms, 1.705)
    np.testing.assert_array_equal(np.bincount(first), 3)
    pull = np.linalg.norm([np.bincount(first, bonds[:, axis]) for axis in range(3)], axis=0)  # 0 in the perfect layer
    away_nm = distances_nm(made, pull > 0.1)
    assert away_nm.min(axis=1).max() < 0.3
    assert (away_nm < 0.3).any(axis=0).all()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda layer: PointDefect("hole", "S"), InvalidParameter, "unknown kind of defect"),
        (lambda layer: PointDefect("vacancy", "Xx"), InvalidSpecimen, "unknown element 'Xx'"),
        (lambda layer: PointDefect("substitution", "S"), InvalidParameter, "needs `becomes`"),
        (lambda layer: with_defects(layer, [(PointDefect("vacancy", "S"), 10**6)]), InvalidParameter, "does not exist"),
        (
            lambda layer: with_defects(layer, [(PointDefect("vacancy", "S"), 1.0, 2.0)]),
            InvalidParameter,
            "index of the",
        ),
        (
            lambda layer: with_random_defects(layer, {PointDefect("vacancy", "S"): 900.0}, seed=1),
            InvalidParameter,
            r"density of V_S = 900\.0 1/nm2 .* outside 0 to 23\.1",
        ),
        (
            lambda layer: with_random_defects(layer, {PointDefect("antisite", "S", "Au"): 0.1}, seed=1),
            InvalidParameter,
            "no Au; use a substitution",
        ),
        (
            lambda layer: with_defects(
                layer, [(PointDefect("adatom", "Mo", "W", height_nm=0.9), list(layer.symbols).index("Mo"))]
            ),
            InvalidSpecimen,
            "outside the cell in z",
        ),
        (
            lambda layer: nanoparticle("Au", "sphere", diameter_nm=0),
            InvalidParameter,
            "diameter_nm = 0 must",
        ),
        (lambda layer: nanoparticle("MgO", "icosahedron", diameter_nm=2), InvalidParameter, "fcc elements"),
        (lambda layer: tilt_boundary("Au", (1, 0, 1), thickness_nm=1), InvalidParameter, "must hold the tilt axis"),
        (lambda layer: layer_tilt_boundary("graphene", 2, 2), InvalidParameter, "without a common factor"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(layer, build, error, message):
    with pytest.raises(error, match=message):
        build(layer)


def test_a_built_vacancy_is_dark_in_a_simulated_image():
    layer = monolayer("MoS2", width_nm=1.2, height_nm=1.0)
    empty, full = np.flatnonzero(layer.symbols == "S")[[0, -1]]
    made = with_defects(layer, [(PointDefect("column_vacancy", "S"), int(empty))])
    columns = PointScan(layer.positions[[empty, full], :2] / 10)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30)
    images = simulate(
        made.atoms, optics, columns, {"haadf": AnnularDetector(50, 80)}, method="multislice", sampling_nm=0.02
    )
    dark, bright = np.asarray(images["haadf"])
    assert dark < 0.3 * bright
