"""Reading structures, refusing bad ones, and making cells orthogonal."""

from types import SimpleNamespace

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk, graphene, mx2

from simulation import InvalidSpecimen
from simulation.slices import slices_of
from simulation.specimens import Specimen, orthogonal_cell, read_structure


@pytest.mark.parametrize("name", ["wse2.cif", "wse2.extxyz", "wse2.xyz", "POSCAR", "wse2.vasp"])
def test_structures_come_back_from_files(tmp_path, name):
    atoms = mx2("WSe2", kind="2H", a=3.28, thickness=3.34, vacuum=5)
    atoms.pbc = True
    path = tmp_path / name
    ase.io.write(path, atoms, format={".cif": "cif", "": "vasp", ".vasp": "vasp"}.get(path.suffix, "extxyz"))
    read = read_structure(path)
    assert sorted(read.symbols) == ["Se", "Se", "W"]
    np.testing.assert_allclose(read.cell.lengths(), atoms.cell.lengths(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.cif", None, "does not exist"),
        ("void.cif", "", "is empty"),
        ("junk.cif", "this is no structure\n", "cannot be read; give a CIF, .*POSCAR"),
        ("junk.xyz", "three\nC 0 0 0\n", "cannot be read"),
        ("short.xyz", '2\nLattice="3 0 0 0 3 0 0 0 3"\nC 0 0 0\n', "cannot be read"),
        ("junk.dat", "?", "cannot be read"),
        ("bare.xyz", "1\n\nC 0 0 0\n", "no three-dimensional cell"),
        ("none.xyz", '0\nLattice="3 0 0 0 3 0 0 0 3"\n', "holds no atoms|cannot be read"),
        ("nan.xyz", '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nC 0 nan 0\n', "not finite"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidSpecimen, match=message):
        read_structure(tmp_path / name)
    with pytest.raises(InvalidSpecimen, match="is a folder"):
        read_structure(tmp_path)


@pytest.mark.parametrize("gamma_deg", [60, 120])
def test_hexagonal_layers_become_rectangles(gamma_deg):
    layer = mx2("MoS2", kind="2H", a=3.18, thickness=3.19, vacuum=4)
    if gamma_deg == 60:
        layer.set_cell([layer.cell[0], layer.cell[0] + layer.cell[1], layer.cell[2]])
    rectangle = orthogonal_cell(layer)
    np.testing.assert_allclose(rectangle.cell.lengths()[:2], [3.18, 3.18 * np.sqrt(3)], rtol=1e-9)
    np.testing.assert_allclose(rectangle.cell.angles(), 90)
    assert len(rectangle) == 2 * len(layer)
    assert rectangle.cell.volume == pytest.approx(2 * layer.cell.volume)
    for atoms in (layer, rectangle):
        atoms.pbc = True
    nearest = [np.sort(np.unique(a.get_all_distances(mic=True).round(6)))[1] for a in (layer * (2, 2, 1), rectangle)]
    assert nearest[0] == pytest.approx(nearest[1])


def test_orthogonal_cells_stay_as_they_are_and_rotated_ones_are_turned():
    crystal = bulk("Au", cubic=True)
    np.testing.assert_allclose(orthogonal_cell(crystal).cell.lengths(), crystal.cell.lengths())
    assert len(orthogonal_cell(crystal)) == 4
    turned = graphene(a=2.46, vacuum=3)
    turned.rotate(17, "z", rotate_cell=True)
    made = orthogonal_cell(turned)
    assert len(made) == 4
    Specimen.of(made)


def test_cells_without_a_rectangle_are_refused():
    oblique = ase.Atoms("C", cell=[[3, 0, 0], [1.1234, 3.77, 0], [0, 0, 5]], pbc=True)
    with pytest.raises(InvalidSpecimen, match="no orthogonal supercell"):
        orthogonal_cell(oblique)
    with pytest.raises(InvalidSpecimen, match="not perpendicular"):
        orthogonal_cell(bulk("Au"))
    with pytest.raises(InvalidSpecimen, match=r"one has no length; give a layer room .*vacuum=3"):
        orthogonal_cell(mx2("MoS2"))


def test_specimens_need_only_numbers_positions_and_cell():
    plain = SimpleNamespace(numbers=[6, 74], positions=[[-0.5, 1, 1], [4.5, 1, 1.5]], cell=[4.0, 4.0, 8.0])
    specimen = Specimen.of(plain)
    np.testing.assert_allclose(specimen.positions_angstrom, [[3.5, 1, 1], [0.5, 1, 1.5]])
    assert specimen.cell_angstrom == (4.0, 4.0, 8.0)


@pytest.mark.parametrize("wrong", ["Au", None, [3]])
def test_what_is_no_structure_is_refused_by_name(wrong):
    with pytest.raises(InvalidSpecimen, match=f"atoms is a {type(wrong).__name__}; give ase.Atoms"):
        Specimen.of(wrong)


def test_displaced_surface_atoms_stay_at_their_surface():
    specimen = Specimen.of(ase.Atoms("W2", positions=[[1, 1, 0], [1, 1, 9.99]], cell=(4, 4, 10), pbc=True))
    moved = specimen.displaced(np.array([[-2.0, 0, -0.1], [0, 0, 0.1]]))
    assert moved.positions_angstrom[0].tolist() == [3.0, 1.0, 0.0]
    assert slices_of(moved, 0.2).order == (0, -1, -1, -1, 1)


def test_equal_slices_are_found_once():
    crystal = ase.Atoms("SrTi", positions=[[0, 0, 1], [2, 2, 3]], cell=(4, 4, 4), pbc=True) * (2, 2, 5)
    slices = slices_of(Specimen.of(crystal), 0.1)
    assert len(slices.distinct) == 2
    assert slices.order == (-1, 0, -1, 1) * 5
    assert slices.thickness_angstrom == pytest.approx(1.0)
