"""Open, beam-sensitive frameworks from published coordinates: zeolites and a metal-organic framework."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from simulation.argument_kinds import kinds_checked
from simulation.builders.crystals import CrystalData, crystal_from
from simulation.builders.limits import known
from simulation.builders.zone_axes import zone_axis

FRAMEWORKS: dict[str, CrystalData] = {
    "SOD": CrystalData(
        218,
        (8.882, 8.882, 8.882),
        (
            ("Al", 0.25, 0, 0.5),
            ("Si", 0.25, 0.5, 0),
            ("O", 0.1390, 0.1494, 0.4383),
            ("Na", 0.1778, 0.1778, 0.1778),
            ("Cl", 0, 0, 0),
        ),
        2.30,
        "sodalite, Na8 Al6 Si6 O24 Cl2: Hassan and Grundy, Acta Cryst. B40 (1984) 6",
    ),
    "LTA": CrystalData(
        221,
        (11.919, 11.919, 11.919),
        (
            ("Si", 0, 0.1823, 0.3684),
            ("O", 0, 0.2122, 0.5),
            ("O", 0, 0.2967, 0.2967),
            ("O", 0.1103, 0.1103, 0.3431),
        ),
        1.42,  # 14.2 T atoms per nm3
        "idealised SiO2 framework LTA: Baerlocher, McCusker and Olson, Atlas of Zeolite Framework Types, 2007",
    ),
    "FAU": CrystalData(
        227,
        (24.2576, 24.2576, 24.2576),
        (
            ("Si", -0.05392, 0.1253, 0.03589),
            ("O", 0, -0.10623, 0.10623),
            ("O", -0.00323, -0.00323, 0.14066),
            ("O", 0.0757, 0.0757, -0.03577),
            ("O", 0.07063, 0.07063, 0.32115),
        ),
        1.34,
        "siliceous faujasite: Hriljac, Eddy, Cheetham, Donohue and Ray, J. Solid State Chem. 106 (1993) 66",
        setting=2,
    ),
    "MOF-5": CrystalData(
        225,
        (25.832, 25.832, 25.832),
        (
            ("Zn", 0.2935, 0.2935, 0.2935),
            ("O", 0.25, 0.25, 0.25),
            ("O", 0.2806, 0.2194, 0.1340),
            ("C", 0.25, 0.25, 0.1113),
            ("C", 0.25, 0.25, 0.0536),
            ("C", 0.2829, 0.2171, 0.0268),
            ("H", 0.3049, 0.1951, 0.0448),
        ),
        0.59,
        "Zn4O(C8H4O4)3 without guests: Li, Eddaoudi, O'Keeffe and Yaghi, Nature 402 (1999) 276, in Fm-3m",
    ),
}
"""Frameworks by name. Bond lengths that follow from the coordinates are part of the tests."""


@kinds_checked
def framework(
    name: str,
    axis: ArrayLike = (0, 0, 1),
    *,
    thickness_nm: float,
    width_nm: float = 0.1,
    height_nm: float = 0.1,
    vacuum_nm: float = 0.0,
) -> Any:
    """A framework along a zone axis in an orthogonal cell; thickness, width and height as for `zone_axis`."""
    unit = crystal_from(FRAMEWORKS[known("framework", name, FRAMEWORKS)], name)
    return zone_axis(
        unit, axis, thickness_nm=thickness_nm, width_nm=width_nm, height_nm=height_nm, vacuum_nm=vacuum_nm,
        repeat_limit=3,
    )  # fmt: skip
