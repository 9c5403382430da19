"""The specimens, optics and scans that `benchmarks.simulation` images, written to files that every program reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import mx2
from numpy.typing import NDArray

from simulation.specimens import orthogonal_cell

_STO_ANGSTROM = 3.905


@dataclass(frozen=True, slots=True)
class Case:
    """What is imaged. Lengths in angstrom, angles in mrad; the scan's corners are (x, y)."""

    name: str
    energy_ev: float
    semi_angle_mrad: float
    gpts: int
    slice_angstrom: float
    detectors: dict[str, tuple[float, float]]
    scan_start: tuple[float, float]
    scan_end: tuple[float, float]
    probes_a_side: int
    defocus_angstrom: float = 0.0
    c12_angstrom: float = 0.0

    def write(self, folder: Path, atoms: ase.Atoms) -> Path:
        """The case and its structure, for another process."""
        ase.io.write(folder / f"{self.name}.extxyz", atoms)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path


def strontium_titanate() -> tuple[Case, ase.Atoms]:
    """20 nm of SrTiO3, 5 x 5 cells, one of them scanned."""
    a = _STO_ANGSTROM
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    unit = ase.Atoms("SrTiO3", scaled_positions=places, cell=(a, a, a), pbc=True)
    unit.positions += (0, 0, a / 4)
    case = Case("srtio3_20nm", 200e3, 30, 400, a / 2, {"haadf": (80, 160), "abf": (11, 30)}, (7.81, 7.81),
                (7.81 + a, 7.81 + a), 16)  # fmt: skip
    return case, unit * (5, 5, 51)


def doped_strontium_titanate() -> tuple[Case, ase.Atoms]:
    """The same crystal with one niobium for titanium at mid depth, in the cell that is scanned."""
    case, atoms = strontium_titanate()
    middle = (2.5 * _STO_ANGSTROM, 2.5 * _STO_ANGSTROM, 25.75 * _STO_ANGSTROM)
    atoms.numbers[int(np.argmin(np.sum((atoms.positions - middle) ** 2, axis=1)))] = 41
    return replace(case, name="srtio3_20nm_nb"), atoms


def vibrating_strontium_titanate() -> tuple[Case, ase.Atoms]:
    """100,000 atoms of SrTiO3 in a film of 3 nm, each displaced: no two columns are alike."""
    a = _STO_ANGSTROM
    _, crystal = strontium_titanate()
    unit = crystal[:5]
    unit.set_cell((a, a, a))
    film = unit * (50, 50, 8)
    film.positions += np.random.default_rng(0).normal(0, 0.08, film.positions.shape)
    film.wrap()
    case = Case("srtio3_100000_atoms", 200e3, 25, 2000, a / 2, {"haadf": (70, 110), "abf": (11, 25)}, (0, 0),
                (50 * a, 50 * a), 32)  # fmt: skip
    return case, film


def molybdenum_disulphide(cells: tuple[int, int], gpts: int, probes_a_side: int) -> tuple[Case, ase.Atoms]:
    """A layer with one tungsten dopant and one sulphur vacancy, all of it scanned."""
    layer = orthogonal_cell(mx2("MoS2", kind="2H", a=3.18, thickness=3.19, vacuum=3.0)) * (*cells, 1)
    metals, sulphur = np.flatnonzero(layer.numbers == 42), np.flatnonzero(layer.numbers == 16)
    layer.numbers[metals[len(metals) // 2]] = 74
    del layer[int(sulphur[len(sulphur) // 4])]
    width, height, depth = layer.cell.lengths().tolist()
    name = f"mos2_{width / 10:.0f}nm"
    case = Case(name, 60e3, 30, gpts, depth / 10, {"haadf": (80, 160), "abf": (15, 30)}, (0, 0), (width, height),
                probes_a_side)  # fmt: skip
    return case, layer


def drawn_probes(probes_a_side: int, count: int) -> NDArray[np.int64]:
    """Numbers of some of a scan's probes, at random: every n-th would meet the same place of a lattice again."""
    return np.random.default_rng(0).choice(probes_a_side**2, min(count, probes_a_side**2), replace=False)


def refocused(case: Case) -> Case:
    """The same specimen under other optics."""
    return replace(case, name=case.name + "_again", defocus_angstrom=80.0, c12_angstrom=25.0)
