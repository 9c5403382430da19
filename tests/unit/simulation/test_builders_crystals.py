"""Crystals, layers, perovskites, frameworks: densities, bonds, periodicity, and what is refused."""

import ast
from math import sqrt
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list

from simulation import InvalidParameter, InvalidSpecimen, builders
from simulation.builders import (
    CRYSTALS,
    FRAMEWORKS,
    LAYERS,
    STACKINGS,
    areal_density_per_nm2,
    bilayer,
    commensurate_twists,
    crystal,
    framework,
    mass_density_g_per_cm3,
    monolayer,
    perovskite,
    twisted_bilayer,
    zone_axis,
)
from simulation.builders.limits import checked
from simulation.specimens import Specimen


@pytest.mark.parametrize("name", sorted(CRYSTALS))
def test_crystals_have_their_tabulated_density(name):
    assert mass_density_g_per_cm3(crystal(name)) == pytest.approx(CRYSTALS[name].density_g_per_cm3, rel=0.01)


@pytest.mark.parametrize(
    ("name", "axis", "depth_angstrom"),
    [
        ("Au", (1, 1, 0), 4.08 / sqrt(2)),
        ("Si", (1, 1, 0), 5.431 / sqrt(2)),
        ("Au", (1, 1, 1), 4.08 * sqrt(3)),
        ("Fe", (1, 1, 1), 2.87 * sqrt(3) / 2),
        ("SrTiO3", (1, 1, 0), 3.905 * sqrt(2)),
        ("CaTiO3", (0, 1, 0), 7.6401),
        ("BaTiO3", (1, 0, 0), 3.991),
    ],
)
def test_zone_axes_keep_density_and_bonds(name, axis, depth_angstrom):
    atoms = zone_axis(name, axis, thickness_nm=depth_angstrom / 10)
    assert atoms.cell.lengths()[2] == pytest.approx(depth_angstrom, rel=1e-6)
    assert mass_density_g_per_cm3(atoms) == pytest.approx(mass_density_g_per_cm3(crystal(name)), rel=1e-6)
    nearest = [neighbor_list("d", each, 3.2).min() for each in (atoms, crystal(name))]
    assert nearest[0] == pytest.approx(nearest[1], abs=1e-6)
    assert Specimen.of(atoms).cell_angstrom == pytest.approx(tuple(atoms.cell.lengths()))


def test_a_hexagonal_crystal_is_seen_from_the_side():
    magnesium = zone_axis(bulk("Mg"), (1, 0, 0), thickness_nm=1.0, width_nm=2.0, height_nm=2.0, vacuum_nm=0.5)
    width, height, depth = magnesium.cell.lengths()
    assert min(width, height) >= 20
    assert depth == pytest.approx(3 * 3.21 + 10)
    assert magnesium.positions[:, 2].min() >= 5 - 1e-9


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layers_have_their_areal_density_and_bonds(name):
    data = LAYERS[name]
    atoms = monolayer(name, width_nm=1.0, height_nm=1.0)
    assert areal_density_per_nm2(atoms) == pytest.approx(len(data.sites) * 200 / (sqrt(3) * data.a_angstrom**2))
    bonds = {
        "graphene": 1.42, "hBN": 1.446, "MoS2": 2.42, "WS2": 2.41, "MoSe2": 2.53, "WSe2": 2.53, "MoTe2": 2.72,
    }  # fmt: skip
    assert neighbor_list("d", atoms, 3.0).min() == pytest.approx(bonds[name], abs=0.01)
    assert atoms.info["source"] == data.source


def test_graphene_has_38_atoms_per_nm2():
    assert areal_density_per_nm2(monolayer("graphene")) == pytest.approx(38.2, rel=0.003)


@pytest.mark.parametrize("stacking", sorted(STACKINGS))
def test_stackings_put_the_right_atoms_on_top_of_each_other(stacking):
    layers = bilayer("MoS2", stacking)
    middle = layers.cell.lengths()[2] / 2
    seen = set()
    width, height, _ = layers.cell.lengths()
    for upper in np.flatnonzero(layers.positions[:, 2] < middle):
        away = layers.positions[:, :2] - layers.positions[upper, :2]
        away -= np.round(away / (width, height)) * (width, height)
        for lower in np.flatnonzero((np.hypot(*away.T) < 0.1) & (layers.positions[:, 2] > middle)):
            seen.add((layers.symbols[upper], layers.symbols[lower]))
    on_top = {
        "AA": {("Mo", "Mo"), ("S", "S")}, "AA'": {("Mo", "S"), ("S", "Mo")}, "AB'": {("Mo", "Mo")},
        "A'B": {("S", "S")}, "AB": {("Mo", "S")}, "BA": {("S", "Mo")},
    }  # fmt: skip
    assert seen in (on_top[stacking], {(b, a) for a, b in on_top[stacking]})
    assert len(layers) == 12


def test_twisted_layers_are_perfect_layers_at_the_stated_angle():
    layers = twisted_bilayer("graphene", 21.8)
    assert layers.info["twist_angle_deg"] == pytest.approx(21.787, abs=1e-3)
    assert areal_density_per_nm2(layers) == pytest.approx(2 * areal_density_per_nm2(monolayer("graphene")))
    bonds = neighbor_list("d", layers, 1.6)
    assert len(bonds) == 3 * len(layers)
    np.testing.assert_allclose(bonds, 2.461 / sqrt(3), atol=1e-6)
    directions = []
    is_upper = layers.positions[:, 2] < layers.cell.lengths()[2] / 2
    for half in (is_upper, ~is_upper):
        vectors = neighbor_list("D", layers[half], 1.6)
        directions.append(np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])).min() % 60)
    difference = (directions[0] - directions[1]) % 60
    assert min(difference, 60 - difference) == pytest.approx(21.787, abs=1e-3)


def test_the_first_magic_angle_is_commensurate():
    angles = [twist.angle_deg for twist in commensurate_twists("graphene", side_limit_nm=14)]
    assert min(abs(angle - 1.0845) for angle in angles) < 1e-3  # (31, 30); 11,164 atoms
    with pytest.raises(InvalidParameter, match=r"0\.2 degrees .* the nearest is .* raise side_limit_nm"):
        twisted_bilayer("graphene", 0.2)


BONDS = {
    "SOD": {("Si", "O"): 1.62, ("Al", "O"): 1.74, ("Na", "Cl"): 2.73},
    "LTA": {("Si", "O"): 1.605},
    "FAU": {("Si", "O"): 1.605},
    "MOF-5": {("Zn", "O"): 1.94, ("C", "O"): 1.26, ("C", "H"): 0.93},
}


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_frameworks_have_the_bonds_and_density_of_their_source(name):
    atoms = framework(name, thickness_nm=1.0)
    assert mass_density_g_per_cm3(atoms) == pytest.approx(FRAMEWORKS[name].density_g_per_cm3, rel=0.01)
    first, second, distance = neighbor_list("ijd", atoms, 2.8)
    for (one, other), expected in BONDS[name].items():
        of_pair = (np.array(atoms.symbols)[first] == one) & (np.array(atoms.symbols)[second] == other)
        nearest = distance[of_pair & (distance < expected + 0.15)]
        np.testing.assert_allclose(nearest, expected, atol=0.02)
        assert len(nearest) >= 1


def test_perovskites_are_doped_by_fraction():
    def doped():
        sites = {"a_site": {"La": 0.1, "Ca": 0.2}, "b_site": {"Nb": 0.04}}
        return perovskite("SrTiO3", thickness_nm=2.0, width_nm=2.0, height_nm=2.0, seed=3, **sites)

    made = doped()
    count = {symbol: made.atoms.symbols.count(symbol) for symbol in ("Sr", "La", "Ca", "Ti", "Nb")}
    sites = count["Sr"] + count["La"] + count["Ca"]
    assert sites == count["Ti"] + count["Nb"]
    assert count["La"] == round(0.1 * sites)
    assert count["Ca"] == pytest.approx(0.2 * sites, abs=1)
    assert count["Nb"] == round(0.04 * sites)
    assert len(made.sites) == count["La"] + count["Ca"] + count["Nb"]
    assert doped().sites == made.sites


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: zone_axis("Au", (0, 0, 1), thickness_nm=-2),
            InvalidParameter,
            "thickness_nm = -2 must be a positive",
        ),
        (lambda: zone_axis("Au", (0, 0, 0), thickness_nm=1), InvalidParameter, "axis"),
        (lambda: zone_axis("Xx", (0, 0, 1), thickness_nm=1), InvalidParameter, "unknown crystal 'Xx'; choose one of"),
        (lambda: zone_axis("CaTiO3", (1, 0, 1), thickness_nm=1), InvalidSpecimen, "no orthogonal cell"),
        (lambda: monolayer("MoS3"), InvalidParameter, "unknown layer"),
        (lambda: bilayer("MoS2", "XY"), InvalidParameter, "unknown stacking"),
        (lambda: framework("MFI", thickness_nm=1), InvalidParameter, "unknown framework"),
        (
            lambda: perovskite("SrTiO3", thickness_nm=1, a_site={"La": 0.7, "Ca": 0.7}),
            InvalidParameter,
            r"fractions on Sr = 1\.4",
        ),
        (lambda: perovskite("SrTiO3", thickness_nm=1, a_site={"Ti": 0.7}), InvalidParameter, "antisite"),
        (
            lambda: checked(ase.Atoms("Au2", positions=[(0.1, 0, 1), (9.9, 0, 1)], cell=(10, 10, 2), pbc=True)),
            InvalidSpecimen,
            r"nearer than 0\.5 angstrom, the first Au 0 and Au 1",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_no_builder_loads_ase_when_it_is_imported():
    for path in Path(builders.__file__).parent.rglob("*.py"):
        tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [getattr(node, "module", None) or node.names[0].name for node in tops]
        assert not [name for name in names if name.split(".")[0] in ("ase", "matplotlib")], path
