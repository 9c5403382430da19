"""Stacks of close-packed planes seen edge on: intrinsic and extrinsic faults, twins, or any sequence of A, B and C."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np

from simulation.argument_kinds import kinds_checked
from simulation.builders.crystals import crystal
from simulation.builders.lattice_filling import placed, with_vacuum
from simulation.builders.limits import checked, known, positive, within
from simulation.errors import InvalidParameter

FAULTS = ("none", "intrinsic", "extrinsic", "twin")
_SHIFTS = {"A": 0, "B": 1, "C": 2}


@dataclass(frozen=True, slots=True)
class Planar:
    """A structure (`ase.Atoms`) and where its planar faults lie: y of each, in nm."""

    atoms: Any
    faults_y_nm: tuple[float, ...]


@kinds_checked
def stacking_fault(
    element: str,
    fault: str = "intrinsic",
    *,
    plane_count: int = 12,
    thickness_nm: float,
    width_nm: float = 0.1,
    vacuum_nm: float = 0.0,
) -> Planar:
    """An fcc element along [1 -1 0] with (1 1 1) planes stacked along y and one fault in the middle of the cell.

    Intrinsic: one plane is missing; extrinsic: one is too many; twin: the upper half is mirrored (the cell then has two
    twin planes, one at its border). Hirth and Lothe, Theory of Dislocations, 2nd ed., section 10-2.
    """
    known("fault", fault, FAULTS)
    return close_packed(
        element, sequence_of(fault, plane_count), thickness_nm=thickness_nm, width_nm=width_nm, vacuum_nm=vacuum_nm
    )


def sequence_of(fault: str, plane_count: int) -> str:
    """The letters of a stack with one fault of that kind; `plane_count` is that of the perfect stack.

    >>> sequence_of("intrinsic", 6), sequence_of("extrinsic", 6), sequence_of("twin", 6)
    ('ABCBC', 'ABCBABC', 'ABCACB')
    """
    if plane_count < 6 or plane_count % 6:
        raise InvalidParameter(f"plane_count = {plane_count} must be a multiple of 6, at least 6")
    half = "ABC" * (plane_count // 6)
    if fault == "intrinsic":
        return half + half[1:]
    if fault == "extrinsic":
        return half + "B" + half
    if fault == "twin":
        return half + "A" + half[:0:-1]
    return half + half


@kinds_checked
def close_packed(
    element: str, sequence: str, *, thickness_nm: float, width_nm: float = 0.1, vacuum_nm: float = 0.0
) -> Planar:
    """Close-packed planes of an fcc element in the given order, periodic along y; x is [1 1 -2], z is [1 -1 0].

    Neighbouring letters must differ, and so must the last and the first. A plane is faulted where both its neighbours
    have the same letter, as in hcp.
    """
    positive("thickness_nm", thickness_nm, "nm")
    positive("width_nm", width_nm, "nm")
    within("vacuum_nm", vacuum_nm, 0.0, 1e3, "nm")
    _check_sequence(sequence)
    unit = crystal(element)
    if len(unit) != 4 or len(set(unit.numbers)) != 1:
        raise InvalidParameter(f"{element} is not an fcc element; choose one")
    a = float(unit.cell.lengths()[0])
    depth, across, rise = a / sqrt(2), a * sqrt(1.5), a / sqrt(3)
    positions = []
    for index, letter in enumerate(sequence):
        x = _SHIFTS[letter] * across / 3
        y = (index + 0.5) * rise
        positions += [(x % across, y, 0.25 * depth), ((x + across / 2) % across, y, 0.75 * depth)]
    cell = placed(
        np.full(len(positions), unit.numbers[0]), positions, (across, len(sequence) * rise, depth), **unit.info
    )
    repeats = (ceil(width_nm * 10 / across - 1e-9), 1, max(1, round(thickness_nm * 10 / depth)))
    count = len(sequence)
    hexagonal = [index for index in range(count) if sequence[index - 1] == sequence[(index + 1) % count]]
    faults = tuple((index + 0.5) * rise / 10 for index in hexagonal)
    return Planar(checked(with_vacuum(cell * repeats, vacuum_nm)), faults)


def _check_sequence(sequence: str) -> None:
    wrong = set(sequence) - set(_SHIFTS)
    if wrong or len(sequence) < 2:
        raise InvalidParameter(f"sequence {sequence!r} must be at least two of the letters A, B and C")
    for index, letter in enumerate(sequence):
        if sequence[index - 1] == letter:
            raise InvalidParameter(
                f"sequence {sequence!r}: planes {(index - 1) % len(sequence)} and {index} are both {letter}, which puts"
                " atoms on top of each other; change one (the last plane meets the first)"
            )
