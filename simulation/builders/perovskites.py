"""Perovskites along any axis, with dopants on their A, B and oxygen sites."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from simulation.argument_kinds import kinds_checked
from simulation.builders.crystals import crystal
from simulation.builders.limits import known, within
from simulation.builders.point_defects import Defective, PointDefect, with_fraction_replaced
from simulation.builders.zone_axes import zone_axis
from simulation.errors import InvalidParameter

PEROVSKITES: dict[str, tuple[str, str]] = {
    "SrTiO3": ("Sr", "Ti"),
    "BaTiO3": ("Ba", "Ti"),
    "PbTiO3": ("Pb", "Ti"),
    "CaTiO3": ("Ca", "Ti"),
    "KTaO3": ("K", "Ta"),
}
"""Names with their A and B species; cells and sources are in `crystals`."""


@kinds_checked
def perovskite(
    name: str,
    *,
    axis: ArrayLike = (0, 0, 1),
    thickness_nm: float,
    width_nm: float = 0.1,
    height_nm: float = 0.1,
    vacuum_nm: float = 0.0,
    a_site: Mapping[str, float] | None = None,
    b_site: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Defective:
    """A perovskite along a zone axis; `a_site` and `b_site` map dopants to the fraction of the sites they take.

    CaTiO3 is orthorhombic in the setting Pnma: its pseudo-cubic axis is [0 1 0] (or [1 0 1], which has no orthogonal
    cell). For BaTiO3 and PbTiO3 [0 0 1] is the polar axis; see it from the side along [1 0 0].
    """
    known("perovskite", name, PEROVSKITES)
    atoms = zone_axis(
        crystal(name), axis, thickness_nm=thickness_nm, width_nm=width_nm, height_nm=height_nm, vacuum_nm=vacuum_nm
    )
    made = Defective(atoms, ())
    for number, (species, dopants) in enumerate(zip(PEROVSKITES[name], (a_site or {}, b_site or {}), strict=True)):
        within(f"sum of the fractions on {species}", sum(dopants.values()), 0.0, 1.0, "(of the sites)")
        remaining = 1.0
        for dopant, fraction in dopants.items():
            _refuse_own(name, dopant, species)
            share = fraction / remaining if remaining > 0 else 0.0
            more = with_fraction_replaced(made.atoms, species, dopant, share, seed=seed + 1000 * number)
            made = Defective(more.atoms, made.sites + more.sites)
            remaining -= fraction
    return made


def _refuse_own(name: str, dopant: str, species: str) -> None:
    PointDefect("substitution", species, dopant)
    if dopant in (*PEROVSKITES[name], "O"):
        raise InvalidParameter(f"{dopant} is a species of {name} itself; use the defect kind 'antisite'")
