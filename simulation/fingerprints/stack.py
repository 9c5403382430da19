"""A candidate structure through its full depth, and the slices at which it is cut to each thickness."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import ase
import numpy as np

from simulation.errors import InvalidParameter
from simulation.fingerprints.settings import Candidate
from simulation.slices import owners, slice_count
from simulation.specimens import Specimen

_WHOLE_PERIODS = 1e-6


@dataclass(frozen=True, slots=True)
class Stack:
    """`cuts`: for each thickness, ascending, how many slices it has; slices divide the period along the beam evenly."""

    specimen: Specimen
    slice_thickness_nm: float
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, candidate: Candidate, slice_thickness_nm: float) -> Stack:
        """Repeat the structure along the beam up to its largest thickness."""
        period = Specimen.of(candidate.atoms)
        width, height, depth = period.cell_angstrom
        count = slice_count(depth, slice_thickness_nm)
        step_nm = depth / count / 10
        if not candidate.thicknesses_nm:
            return cls(period, step_nm, (count,))
        cuts = [max(1, round(thickness / step_nm)) for thickness in sorted(candidate.thicknesses_nm)]
        if any(first == second for first, second in pairwise(cuts)):
            raise InvalidParameter(
                f"two thicknesses of {candidate.name!r} fall on the same slice of {step_nm:.3f} nm;"
                " set them further apart or reduce slice_thickness_nm"
            )
        repeats = max(1, ceil(cuts[-1] / count - _WHOLE_PERIODS))
        offsets = np.repeat(np.arange(repeats) * depth, len(period.numbers))
        positions = np.tile(period.positions_angstrom, (repeats, 1))
        positions[:, 2] += offsets
        whole = Specimen(np.tile(period.numbers, repeats), positions, (width, height, repeats * depth))
        return cls(whole, step_nm, tuple(cuts))

    @property
    def thicknesses_nm(self) -> tuple[float, ...]:
        """What each cut amounts to."""
        return tuple(cut * self.slice_thickness_nm for cut in self.cuts)

    def atoms(self, cut: int) -> ase.Atoms:
        """The specimen of so many slices."""
        inside = owners(self.specimen, self.slice_thickness_nm) < cut
        width, height, _ = self.specimen.cell_angstrom
        cell = (width, height, cut * self.slice_thickness_nm * 10)
        return ase.Atoms(self.specimen.numbers[inside], self.specimen.positions_angstrom[inside], cell=cell, pbc=True)
