"""Columns of structures, which of them are equal, and what stands in a changed one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, mx2

from simulation.errors import InvalidParameter
from simulation.specimens import Specimen, orthogonal_cell, read_structure
from simulation.structure_columns import ColumnLattice, Supercell, column_name, placed
from tests.unit.simulation.lattice_cases import STRUCTURE


def lattice_of(atoms: Atoms) -> ColumnLattice:
    return ColumnLattice.of(Specimen.of(orthogonal_cell(atoms)))


def test_columns_of_the_example() -> None:
    lattice = lattice_of(read_structure(STRUCTURE))
    assert [(column.name, column.symbols) for column in lattice.columns] == [
        ("W", ("W",)), ("Se2", ("Se", "Se")), ("W", ("W",)), ("Se2", ("Se", "Se")),
    ]  # fmt: skip
    width, height, _ = lattice.specimen.cell_angstrom
    assert (width, height) == pytest.approx((3.282, 3.282 * np.sqrt(3)))
    assert lattice.translations_angstrom == pytest.approx(np.array([(0, 0), (width / 2, height / 2)]))
    assert lattice.columns[1].x_nm == pytest.approx(0.1641)
    assert lattice.columns[1].y_nm == pytest.approx(0.3282 / np.sqrt(12))


def test_columns_that_no_translation_joins_have_names_of_their_own() -> None:
    sheet = graphene(vacuum=3.0)
    sheet.pbc = True
    names = [column.name for column in lattice_of(sheet).columns]
    assert sorted(names) == ["C", "C", "C#2", "C#2"]


def test_atoms_across_the_border_are_one_column() -> None:
    atoms = Atoms("WSe", positions=[(0.001, 0, 1), (2.999, 4.0, 2)], cell=(3, 4, 5), pbc=True)
    (column,) = ColumnLattice.of(Specimen.of(atoms)).columns
    assert column.name == "WSe"
    assert column.symbols == ("W", "Se")
    assert column.x_nm == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("host", "content", "slots"),
    [
        (("Se", "Se"), ("Se",), [34, 0]),
        (("Se", "Se"), (), [0, 0]),
        (("Se", "Se"), ("S", "O"), [16, 8]),
        (("W",), ("Mo",), [42]),
        (("W", "Se"), ("Se", "Mo"), [42, 34]),
    ],
)
def test_atoms_that_stay_keep_their_slot(host: tuple[str, ...], content: tuple[str, ...], slots: list[int]) -> None:
    assert placed(host, content).tolist() == slots


def test_a_column_cannot_gain_atoms() -> None:
    with pytest.raises(InvalidParameter, match=r"1 atoms.*cannot hold 2.*at most 1"):
        placed(("W",), ("W", "W"))


def test_names_fall_in_atomic_number() -> None:
    assert column_name(("O", "Se")) == "SeO"
    assert column_name(("S", "Mo", "S")) == "MoS2"


def test_only_the_site_in_the_middle_changes() -> None:
    supercell = Supercell.at_least(lattice_of(mx2("MoS2", a=3.18, thickness=3.19, vacuum=3.0)), 1.0)
    assert supercell.repeats == (4, 2)
    perfect, changed = supercell.atoms(), supercell.atoms("S2", ("S",))
    (slot,) = np.flatnonzero(perfect.numbers != changed.numbers)
    assert changed.numbers[slot] == 0
    assert np.array_equal(perfect.positions_angstrom, changed.positions_angstrom)
    assert changed.positions_angstrom[slot, :2] == pytest.approx(supercell.site_angstrom("S2"))
    assert sorted(atom for atoms in supercell.columns() for atom in atoms) == list(range(len(perfect.numbers)))
