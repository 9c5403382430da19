"""The atoms that are imaged: a file or a name, turned to the beam, repeated, with vacuum before and after."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments import Optics
from orchestrator.errors import SpecError
from simulation import InvalidSpecimen
from simulation.builders import CRYSTALS, LAYERS, crystal, monolayer
from simulation.builders.lattice_filling import with_vacuum
from simulation.builders.limits import LEAST_DISTANCE_ANGSTROM, close_pairs
from simulation.builders.zone_axes import oriented_cell
from simulation.probe_size import probe_width_nm
from simulation.specimens import orthogonal_cell, read_structure

LEAST_SIDE_NM: Final = 2.0
"""Cells are repeated at least to this side where nothing else is asked, and further for a wider probe."""
LARGEST_ATOM_COUNT: Final = 2_000_000
_FACE_ANGSTROM: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureRequest:
    """What is asked of the structure; None where this module chooses."""

    name: str
    zone_axis: tuple[int, int, int] | None = None
    repeat: tuple[int, int, int] | None = None
    thickness_nm: float | None = None
    vacuum_nm: float = 0.0
    optics: Optics | None = None
    """Cells are repeated until the probe has room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The atoms, and how they came about."""

    atoms: Any
    unit: Any
    repeat: tuple[int, int, int]
    vacuum_nm: float
    source: str
    notes: tuple[str, ...]

    @property
    def cell_nm(self) -> tuple[float, float, float]:
        """Width, height and depth, vacuum included."""
        width, height, depth = (float(length) / 10 for length in self.atoms.cell.lengths())
        return width, height, depth


def built(request: StructureRequest) -> Built:
    """The structure asked for. Raises SpecError and InvalidSpecimen with what to do."""
    notes: list[str] = []
    found, source = _unit(request.name)
    unit = _turned(found, request.zone_axis, notes)
    if request.vacuum_nm == 0:
        _check_depth(unit)
    repeat = _repeat(request, unit)
    count = len(unit) * repeat[0] * repeat[1] * repeat[2]
    if count > LARGEST_ATOM_COUNT:
        chosen = request.repeat is None
        less = "reduce defocus, aberrations or thickness, or give --repeat" if chosen else "repeat it less"
        raise SpecError(
            f"{unit.get_chemical_formula()} repeated {repeat} has {count} atoms, above {LARGEST_ATOM_COUNT}; {less}"
        )
    if not 0 <= request.vacuum_nm <= 1e3:
        raise SpecError(f"--vacuum-nm {request.vacuum_nm:g}: give 0 to 1000 nm")
    _note_close_atoms(unit, notes)
    atoms = with_vacuum(unit * repeat, request.vacuum_nm)
    return Built(
        atoms=atoms, unit=unit, repeat=repeat, vacuum_nm=request.vacuum_nm, source=source, notes=tuple(notes)
    )  # fmt: skip


def _note_close_atoms(unit: Any, notes: list[str]) -> None:
    lengths = np.asarray(unit.cell.lengths())
    pairs = close_pairs(np.asarray(unit.positions), lengths, min(LEAST_DISTANCE_ANGSTROM, 0.49 * float(lengths.min())))
    if len(pairs):
        first, second = sorted(pairs[0].tolist())
        notes.append(
            f"atoms {first} and {second} are nearer than {LEAST_DISTANCE_ANGSTROM / 10:g} nm (pairs like this:"
            f" {len(pairs)}): are they in the file twice?"
        )


def _unit(name: str) -> tuple[Any, str]:
    """Atoms of a file, or of a layer or crystal by its name."""
    path = Path(name)
    if name and path.is_dir():
        raise SpecError(f"{name} is a folder; give a structure file in it")
    if path.is_file():
        return read_structure(path), f"file {path.name}"
    if name in LAYERS:
        return monolayer(name), f"layer {name}: {LAYERS[name].source}"
    if name in CRYSTALS:
        return crystal(name), f"crystal {name}: {CRYSTALS[name].source}"
    known = {each.lower(): each for each in (*LAYERS, *CRYSTALS)}
    close = get_close_matches(name.lower(), known, n=1)
    meant = f"did you mean {known[close[0]]}? Known" if close else "known"
    raise SpecError(
        f"{name or 'an empty name'}: there is no such file, and no structure of this name; {meant} are the layers"
        f" {', '.join(sorted(LAYERS))} and the crystals {', '.join(sorted(CRYSTALS))}"
    )


def _check_depth(atoms: Any) -> None:
    """Refuse atoms outside the cell along the beam, which only the user can tell for a crystal's or a layer's."""
    z, depth = np.asarray(atoms.positions)[:, 2], float(atoms.cell[2, 2])
    outside = np.flatnonzero((z < -_FACE_ANGSTROM) | (z > depth + _FACE_ANGSTROM))
    if len(outside):
        raise InvalidSpecimen(
            f"{len(outside)} atoms of the file lie outside its cell along the beam, the first, atom {outside[0]}, at z"
            f" = {z[outside[0]]:.4g} angstrom, and the cell reaches from 0 to {depth:.4g}; those of a crystal are put"
            " into it with --zone-axis 0,0,1; a layer or particle finds room with --vacuum-nm"
        )


def _turned(atoms: Any, zone_axis: tuple[int, int, int] | None, notes: list[str]) -> Any:
    """In an orthogonal cell, the beam along z; `notes` gets what was done for it."""
    if zone_axis is not None:
        turned = oriented_cell(atoms, zone_axis)
        notes.append(f"zone axis [{' '.join(map(str, zone_axis))}]: orthogonal cell of {len(turned)} atoms")
        return turned
    cell = np.asarray(atoms.cell[:])
    if np.max(np.abs(cell - np.diag(np.diagonal(cell)))) < 1e-4:
        return atoms
    try:
        turned = orthogonal_cell(atoms)
    except InvalidSpecimen as error:
        raise InvalidSpecimen(
            f"{error}; with --zone-axis 0,0,1 (or another direction) an orthogonal cell along it is sought"
        ) from error
    notes.append(f"cell not orthogonal: replaced by its orthogonal supercell of {len(turned)} atoms")
    return turned


def _repeat(request: StructureRequest, unit: Any) -> tuple[int, int, int]:
    width_nm, height_nm, depth_nm = (float(length) / 10 for length in unit.cell.lengths())
    if request.repeat is not None:
        if min(request.repeat) < 1:
            raise SpecError(f"--repeat {request.repeat}: give whole numbers from 1 on")
        if request.thickness_nm is not None:
            raise SpecError("--repeat says how often along the beam as well; leave --thickness-nm or --repeat out")
        return request.repeat
    layers = 1
    if request.thickness_nm is not None:
        if request.name in LAYERS:
            raise SpecError(f"{request.name} is a layer and has its own thickness; leave --thickness-nm out")
        if not 0 < request.thickness_nm <= 1e4:
            raise SpecError(f"--thickness-nm {request.thickness_nm:g}: give more than 0, up to 10000 nm")
        layers = max(1, round(request.thickness_nm / depth_nm))
    least_nm = LEAST_SIDE_NM
    if request.optics is not None:
        least_nm = max(least_nm, probe_width_nm(request.optics, layers * depth_nm + 2 * request.vacuum_nm))
    return ceil(least_nm / width_nm - 1e-6), ceil(least_nm / height_nm - 1e-6), layers
