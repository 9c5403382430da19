"""Bulk crystals by name, each with the source of its cell and coordinates; `zone_axes` turns them to the beam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulation.argument_kinds import kinds_checked
from simulation.builders.limits import known


@dataclass(frozen=True, slots=True)
class CrystalData:
    """One published structure: space group, cell lengths in angstrom (all angles 90 degrees), sites, source."""

    space_group: int
    cell_angstrom: tuple[float, float, float]
    sites: tuple[tuple[str, float, float, float], ...]
    density_g_per_cm3: float
    source: str
    setting: int = 1


def _fcc(symbol: str, a: float, density: float) -> CrystalData:
    source = "lattice constant at room temperature: Kittel, Introduction to Solid State Physics, 8th ed., table 1.3"
    return CrystalData(225, (a, a, a), ((symbol, 0, 0, 0),), density, source)


def _bcc(symbol: str, a: float, density: float) -> CrystalData:
    source = "lattice constant at room temperature: Kittel, Introduction to Solid State Physics, 8th ed., table 1.3"
    return CrystalData(229, (a, a, a), ((symbol, 0, 0, 0),), density, source)


def _rocksalt(cation: str, anion: str, a: float, density: float) -> CrystalData:
    source = "Wyckoff, Crystal Structures, 2nd ed., vol. 1 (1963), chapter III"
    return CrystalData(225, (a, a, a), ((cation, 0, 0, 0), (anion, 0.5, 0.5, 0.5)), density, source)


def _cubic_perovskite(a_site: str, b_site: str, a: float, density: float, source: str) -> CrystalData:
    sites = ((a_site, 0, 0, 0), (b_site, 0.5, 0.5, 0.5), ("O", 0.5, 0.5, 0))
    return CrystalData(221, (a, a, a), sites, density, source)


CRYSTALS: dict[str, CrystalData] = {
    "Al": _fcc("Al", 4.05, 2.70),
    "Ni": _fcc("Ni", 3.52, 8.91),
    "Cu": _fcc("Cu", 3.61, 8.96),
    "Pd": _fcc("Pd", 3.89, 12.02),
    "Ag": _fcc("Ag", 4.09, 10.49),
    "Pt": _fcc("Pt", 3.92, 21.45),
    "Au": _fcc("Au", 4.08, 19.30),
    "Fe": _bcc("Fe", 2.87, 7.87),
    "Mo": _bcc("Mo", 3.15, 10.22),
    "W": _bcc("W", 3.16, 19.25),
    "Si": CrystalData(227, (5.431, 5.431, 5.431), (("Si", 0, 0, 0),), 2.33, "Kittel, 8th ed., table 1.3"),
    "MgO": _rocksalt("Mg", "O", 4.213, 3.58),
    "CoO": _rocksalt("Co", "O", 4.26, 6.44),
    "NaCl": _rocksalt("Na", "Cl", 5.640, 2.165),
    "CeO2": CrystalData(
        225, (5.411, 5.411, 5.411), (("Ce", 0, 0, 0), ("O", 0.25, 0.25, 0.25)), 7.215, "Wyckoff (1963), chapter IV"
    ),
    "Fe3O4": CrystalData(
        227,
        (8.396, 8.396, 8.396),
        (("Fe", 0.125, 0.125, 0.125), ("Fe", 0.5, 0.5, 0.5), ("O", 0.2549, 0.2549, 0.2549)),
        5.18,
        "Fleet, Acta Cryst. B37 (1981) 917, origin at the centre",
        setting=2,
    ),
    "SrTiO3": _cubic_perovskite("Sr", "Ti", 3.905, 5.12, "Abramov et al., Acta Cryst. B51 (1995) 942"),
    "KTaO3": _cubic_perovskite("K", "Ta", 3.988, 7.02, "Zhurova et al., Acta Cryst. B56 (2000) 594"),
    "BaTiO3": CrystalData(
        99,
        (3.9910, 3.9910, 4.0352),
        (("Ba", 0, 0, 0), ("Ti", 0.5, 0.5, 0.5224), ("O", 0.5, 0.5, -0.0244), ("O", 0.5, 0, 0.4895)),
        6.02,
        "tetragonal at room temperature: Kwei et al., J. Phys. Chem. 97 (1993) 2368",
    ),
    "PbTiO3": CrystalData(
        99,
        (3.904, 3.904, 4.152),
        (("Pb", 0, 0, 0), ("Ti", 0.5, 0.5, 0.539), ("O", 0.5, 0.5, 0.114), ("O", 0.5, 0, 0.617)),
        7.95,
        "tetragonal at room temperature: Shirane, Pepinsky and Frazer, Acta Cryst. 9 (1956) 131",
    ),
    "CaTiO3": CrystalData(
        62,
        (5.4423, 7.6401, 5.3796),
        (("Ca", 0.0360, 0.25, -0.0068), ("Ti", 0.5, 0, 0), ("O", 0.4838, 0.25, 0.0714), ("O", 0.2888, 0.0371, 0.7108)),
        4.03,
        "Sasaki, Prewitt, Bass and Schulze, Acta Cryst. C43 (1987) 1668, here in the setting Pnma",
    ),
}
"""Crystals by name. The densities are measured or tabulated ones, for comparison with what the cell gives."""


@kinds_checked
def crystal(name: str) -> Any:
    """The conventional cell of a crystal of `CRYSTALS` as `ase.Atoms`; `info["source"]` says where it is from."""
    return crystal_from(CRYSTALS[known("crystal", name, CRYSTALS)], name)


def crystal_from(data: CrystalData, name: str) -> Any:
    """The conventional cell of one published structure."""
    from ase.spacegroup import crystal as crystal_of_space_group

    atoms = crystal_of_space_group(
        [site[0] for site in data.sites],
        [site[1:] for site in data.sites],
        spacegroup=data.space_group,
        setting=data.setting,
        cellpar=[*data.cell_angstrom, 90, 90, 90],
    )
    del atoms.arrays["spacegroup_kinds"]
    atoms.info.clear()
    atoms.info.update(name=name, source=data.source)
    return atoms
