"""Monolayers and bilayers: dichalcogenides, graphene, hexagonal boron nitride; stacked, shifted or twisted."""

from __future__ import annotations

from dataclasses import dataclass
from math import acos, ceil, degrees, gcd, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.argument_kinds import kinds_checked
from simulation.builders.lattice_filling import Lattice, periodic_box, placed, turn_z, with_vacuum
from simulation.builders.limits import checked, known, positive, within
from simulation.errors import InvalidParameter

DEFAULT_VACUUM_NM = 0.3


@dataclass(frozen=True, slots=True)
class LayerData:
    """A hexagonal layer: lattice constant and distance between layers, and (symbol, u, v, z) in its cell, angstrom."""

    a_angstrom: float
    layer_distance_angstrom: float
    sites: tuple[tuple[str, float, float, float], ...]
    source: str


def _dichalcogenide(metal: str, chalcogen: str, a: float, c: float, u: float, source: str) -> LayerData:
    """From the bulk 2H polytype: metal at z = 1/4, chalcogen at z = u, so half the layer is (3/4 - u) c thick."""
    half = (0.75 - u) * c
    sites = ((metal, 1 / 3, 2 / 3, 0.0), (chalcogen, 2 / 3, 1 / 3, -half), (chalcogen, 2 / 3, 1 / 3, half))
    return LayerData(a, c / 2, sites, source)


_BRONSEMA = "2H, Bronsema, De Boer and Jellinek, Z. anorg. allg. Chem. 540 (1986) 15"
_SCHUTTE = "2H, Schutte, De Boer and Jellinek, J. Solid State Chem. 70 (1987) 207"

LAYERS: dict[str, LayerData] = {
    "MoS2": _dichalcogenide("Mo", "S", 3.1604, 12.295, 0.621, _BRONSEMA),
    "MoSe2": _dichalcogenide("Mo", "Se", 3.289, 12.927, 0.621, _BRONSEMA),
    "MoTe2": _dichalcogenide("Mo", "Te", 3.519, 13.964, 0.621, "2H, Puotinen and Newnham, Acta Cryst. 14 (1961) 691"),
    "WS2": _dichalcogenide("W", "S", 3.1532, 12.323, 0.6225, _SCHUTTE),
    "WSe2": _dichalcogenide("W", "Se", 3.282, 12.960, 0.6211, _SCHUTTE),
    "graphene": LayerData(
        2.461,
        3.354,
        (("C", 1 / 3, 2 / 3, 0.0), ("C", 2 / 3, 1 / 3, 0.0)),
        "graphite, Baskin and Meyer, Phys. Rev. 100 (1955) 544",
    ),
    "hBN": LayerData(
        2.504, 3.331, (("B", 1 / 3, 2 / 3, 0.0), ("N", 2 / 3, 1 / 3, 0.0)), "Pease, Acta Cryst. 5 (1952) 356"
    ),
}
"""Layers by name; constants of the bulk crystal at room temperature, which free layers keep to about 0.5 %."""

STACKINGS: dict[str, tuple[bool, tuple[float, float]]] = {
    "AA": (False, (0.0, 0.0)),
    "AA'": (True, (0.0, 0.0)),
    "AB": (False, (1 / 3, -1 / 3)),
    "BA": (False, (-1 / 3, 1 / 3)),
    "AB'": (True, (-1 / 3, 1 / 3)),
    "A'B": (True, (1 / 3, -1 / 3)),
}
"""Second layer of a bilayer: whether it is turned by 180 degrees (A'), and its shift in units of the hexagonal cell.

AA' is 2H (metal over chalcogen, B over N), AB' has metal over metal, A'B chalcogen over chalcogen; AB and BA are 3R for
dichalcogenides and Bernal for graphene, for which turning changes nothing. Names after He, Hummer and Franchini, Phys.
Rev. B 89 (2014) 075409.
"""


@kinds_checked
def monolayer(name: str, *, width_nm: float = 0.1, height_nm: float = 0.1, vacuum_nm: float = DEFAULT_VACUUM_NM) -> Any:
    """One layer in a rectangular cell, rounded up to whole cells of a x sqrt(3) a; `vacuum_nm` on both sides."""
    return _tiled(_hexagonal(name, 1, "AA"), width_nm, height_nm, vacuum_nm)


@kinds_checked
def bilayer(
    name: str,
    stacking: str = "AA'",
    *,
    width_nm: float = 0.1,
    height_nm: float = 0.1,
    vacuum_nm: float = DEFAULT_VACUUM_NM,
) -> Any:
    """Two layers in one of the `STACKINGS`, at the distance of the bulk crystal."""
    known("stacking", stacking, STACKINGS)
    return _tiled(_hexagonal(name, 2, stacking), width_nm, height_nm, vacuum_nm)


def layer_lattice(name: str, layer_count: int = 1, stacking: str = "AA'") -> Lattice:
    """The hexagonal layer stack without end, a along x.

    Its first plane of atoms lies at z = 1 angstrom, and its cell is 2 angstrom deeper than the stack.
    """
    return Lattice.of(_hexagonal(name, layer_count, stacking))


def layer_thickness_angstrom(name: str, layer_count: int = 1) -> float:
    """From the first to the last plane of atoms of a stack."""
    data = LAYERS[known("layer", name, LAYERS)]
    heights = [site[3] for site in data.sites]
    return max(heights) - min(heights) + (layer_count - 1) * data.layer_distance_angstrom


@dataclass(frozen=True, slots=True)
class Commensurate:
    """A coincidence of two hexagonal layers: m a1 + n a2 of the one is n a1 + m a2 of the other (60 degrees apart)."""

    m: int
    n: int
    a_angstrom: float

    @property
    def angle_deg(self) -> float:
        """cos = (m^2 + 4 m n + n^2) / (2 (m^2 + m n + n^2)); Lopes dos Santos et al., PRL 99 (2007) 256802, eq. 1."""
        m, n = self.m, self.n
        return degrees(acos(min(1.0, (m * m + 4 * m * n + n * n) / (2 * (m * m + m * n + n * n)))))

    @property
    def side_angstrom(self) -> float:
        """Length of the coincidence vector; the rectangular cell is this by sqrt(3) times this."""
        return self.a_angstrom * sqrt(self.m**2 + self.m * self.n + self.n**2)


@kinds_checked
def commensurate_twists(name: str, *, side_limit_nm: float = 15.0) -> list[Commensurate]:
    """All twists between 0 and 60 degrees whose coincidence vector is no longer than the limit, by angle."""
    positive("side_limit_nm", side_limit_nm, "nm")
    a = LAYERS[known("layer", name, LAYERS)].a_angstrom
    highest = int(side_limit_nm * 10 / a) + 1
    pairs = [Commensurate(m, n, a) for m in range(1, highest + 1) for n in range(m) if gcd(m, n) == 1]
    return sorted(
        (pair for pair in pairs if pair.side_angstrom <= side_limit_nm * 10 and pair.n > 0), key=lambda p: p.angle_deg
    )


@kinds_checked
def twisted_bilayer(
    name: str,
    angle_deg: float,
    *,
    tolerance_deg: float = 0.1,
    side_limit_nm: float = 15.0,
    vacuum_nm: float = DEFAULT_VACUUM_NM,
) -> Any:
    """Two layers turned against each other by the commensurate angle nearest to the wanted one, without strain.

    `info` states the angle built (`twist_angle_deg`), the integers (m, n) and the strain (0). The smallest cell within
    `tolerance_deg` is taken. Raises `InvalidParameter`, naming the nearest angle, if no cell within the limit has it.
    """
    within("angle_deg", angle_deg, 0.0, 60.0, "degrees")
    positive("tolerance_deg", tolerance_deg, "degrees")
    twists = commensurate_twists(name, side_limit_nm=side_limit_nm)
    near = [twist for twist in twists if abs(twist.angle_deg - angle_deg) <= tolerance_deg]
    if not near:
        nearest = min((twist.angle_deg for twist in twists), key=lambda angle: abs(angle - angle_deg), default=0.0)
        raise InvalidParameter(
            f"no commensurate twist within {tolerance_deg} degrees of {angle_deg} degrees has a cell side below"
            f" {side_limit_nm} nm; the nearest is {nearest:.3f} degrees: ask for that, or raise side_limit_nm"
        )
    twist = min(near, key=lambda each: (round(each.side_angstrom, 6), abs(each.angle_deg - angle_deg)))
    return checked(_twisted(name, twist, vacuum_nm))


def _twisted(name: str, twist: Commensurate, vacuum_nm: float) -> Any:
    data = LAYERS[name]
    depth = layer_thickness_angstrom(name) + 2.0
    side = twist.side_angstrom
    numbers: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.float64]] = []
    for index, (m, n) in enumerate(((twist.m, twist.n), (twist.n, twist.m))):
        hexagonal = _hexagonal(name, 1, "AA", depth)
        a1, a2, _ = hexagonal.cell[:]
        along = m * a1 + n * (a1 + a2)
        lattice = Lattice.of(hexagonal).turned(turn_z(-float(np.arctan2(along[1], along[0]))))
        layer = periodic_box(lattice, (side, side * sqrt(3), depth))
        numbers.append(layer.numbers)
        positions.append(layer.positions + np.array([0, 0, index * data.layer_distance_angstrom - 1.0]))
    lengths = (side, side * sqrt(3), layer_thickness_angstrom(name, 2))
    info = {"twist_angle_deg": twist.angle_deg, "twist_m_n": (twist.m, twist.n), "strain_fraction": 0.0}
    atoms = placed(np.concatenate(numbers), np.concatenate(positions), lengths, name=name, source=data.source, **info)
    return with_vacuum(atoms, vacuum_nm)


def _hexagonal(name: str, layer_count: int, stacking: str, depth_angstrom: float | None = None) -> Any:
    """Primitive cell of a stack, its atoms from z = 1 angstrom on; a along x, b at 120 degrees."""
    from ase import Atoms

    data = LAYERS[known("layer", name, LAYERS)]
    flipped, shift = STACKINGS[stacking]
    top = min(site[3] for site in data.sites)
    symbols, scaled, heights = [], [], []
    for index in range(layer_count):
        turned = flipped and index % 2 == 1
        moved = (index % 2 if flipped else index) * np.array(shift)
        for symbol, u, v, z in data.sites:
            place = -np.array([u, v]) if turned else np.array([u, v])
            symbols.append(symbol)
            scaled.append(place + moved)
            heights.append(1.0 + z - top + index * data.layer_distance_angstrom)
    a = data.a_angstrom
    depth = depth_angstrom or layer_thickness_angstrom(name, layer_count) + 2.0
    basis = np.array([[a, 0.0], [-a / 2, a * sqrt(3) / 2]])
    flat = np.mod(np.array(scaled), 1.0) @ basis
    cell = np.array([[*basis[0], 0.0], [*basis[1], 0.0], [0.0, 0.0, depth]])
    atoms = Atoms(symbols, positions=np.column_stack([flat, heights]), cell=cell, pbc=True)
    atoms.info.update(name=name, source=data.source)
    return atoms


def _tiled(hexagonal: Any, width_nm: float, height_nm: float, vacuum_nm: float) -> Any:
    positive("width_nm", width_nm, "nm")
    positive("height_nm", height_nm, "nm")
    within("vacuum_nm", vacuum_nm, 0.05, 100.0, "nm")
    a, depth = float(hexagonal.cell.lengths()[0]), float(hexagonal.cell.lengths()[2])
    rectangle = periodic_box(Lattice.of(hexagonal), (a, a * sqrt(3), depth), **hexagonal.info)
    rectangle.positions[:, 2] -= 1.0
    rectangle.set_cell([a, a * sqrt(3), depth - 2.0])
    repeats = (ceil(width_nm * 10 / a - 1e-9), ceil(height_nm * 10 / (a * sqrt(3)) - 1e-9), 1)
    return checked(with_vacuum(rectangle * repeats, vacuum_nm))
