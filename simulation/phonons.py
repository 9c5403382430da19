"""Thermal vibration: images averaged over specimens with displaced atoms, or Debye-Waller factors on atoms at rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulation.arguments import checked_seed, not_negative, whole
from simulation.errors import InvalidParameter, InvalidSpecimen
from simulation.scattering_factors import symbol_of
from simulation.specimens import CELL_TOLERANCE_ANGSTROM, Atoms, Specimen

_ANGSTROM_PER_NM = 10.0
_SMALLEST_SIGMA_NM, _LARGEST_SIGMA_NM = 0.001, 0.05


@dataclass(frozen=True, slots=True)
class FrozenPhonons:
    """`count` configurations of independent Gaussian displacements.

    `sigmas_nm`: rms displacement per axis in nm, one number or by element symbol. `seed`: None takes the simulation's.
    Configuration i depends on (seed, i) alone.
    """

    count: int
    sigmas_nm: float | Mapping[str, float]
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse counts below one and displacements that are negative or not finite."""
        object.__setattr__(self, "count", whole("count", self.count, 1))
        if self.seed is not None:
            object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "sigmas_nm", _checked_sigmas_nm(self.sigmas_nm))

    def configurations(self, specimen: Specimen, seed: int = 0) -> list[Specimen]:
        """The displaced specimens, in order; `seed` is used if the phonons have none of their own."""
        by_number = _sigmas_angstrom(self.sigmas_nm, specimen)
        sigma = np.array([by_number[number] for number in specimen.numbers.tolist()])
        key = seed if self.seed is None else self.seed
        shape = specimen.positions_angstrom.shape
        return [
            specimen.displaced(sigma[:, None] * np.random.default_rng([key, index]).standard_normal(shape))
            for index in range(self.count)
        ]


@dataclass(frozen=True, slots=True)
class DebyeWaller:
    """Atoms at rest whose potential is smeared by their motion: scattering factors times exp(-2 pi^2 sigma^2 k^2).

    That is the potential averaged over displacements, and what the coherent (Bragg) beams of a thin crystal see, at
    the cost of one static image. What vibration scatters between them (the thermal diffuse background, most of what
    reaches 60 mrad and more) is left out: for dark field at high angles and absolute intensities take `FrozenPhonons`.
    `sigmas_nm`: rms displacement per axis in nm, one number or by element symbol; B = 8 pi^2 sigma^2.
    """

    sigmas_nm: float | Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse displacements that are negative, not finite, or too small to smear anything."""
        checked = _checked_sigmas_nm(self.sigmas_nm)
        for sigma_nm in checked.values() if isinstance(checked, Mapping) else (checked,):
            if 0 < sigma_nm < _SMALLEST_SIGMA_NM:
                raise InvalidParameter(
                    f"an rms displacement of {sigma_nm:g} nm is below {_SMALLEST_SIGMA_NM:g} nm, less than the"
                    " zero-point motion of any solid; give it in nm (0.008 nm is 0.08 angstrom), or 0 for atoms at rest"
                )
        object.__setattr__(self, "sigmas_nm", checked)

    def rms_angstrom(self, specimen: Specimen) -> tuple[tuple[int, float], ...]:
        """(atomic number, rms displacement) of each element of the specimen."""
        return tuple(_sigmas_angstrom(self.sigmas_nm, specimen).items())


def _sigmas_angstrom(sigmas_nm: float | Mapping[str, float], specimen: Specimen) -> dict[int, float]:
    """By atomic number, of every element that is there."""
    by_number: dict[int, float] = {}
    for number in np.unique(specimen.numbers).tolist():
        symbol = symbol_of(number)
        if isinstance(sigmas_nm, Mapping) and symbol not in sigmas_nm:
            raise InvalidParameter(f"sigmas_nm names no rms displacement for {symbol}; give one for every element")
        sigma_nm = sigmas_nm[symbol] if isinstance(sigmas_nm, Mapping) else sigmas_nm
        by_number[number] = sigma_nm * _ANGSTROM_PER_NM
    return by_number


def _checked_sigmas_nm(sigmas_nm: Any) -> float | dict[str, float]:
    if not isinstance(sigmas_nm, Mapping):
        return _checked_sigma_nm("sigmas_nm", sigmas_nm)
    return {
        symbol_of(symbol): _checked_sigma_nm(f"sigmas_nm[{symbol!r}]", value) for symbol, value in sigmas_nm.items()
    }


def _checked_sigma_nm(name: str, value: Any) -> float:
    sigma_nm = not_negative(name, value, "nm")
    if sigma_nm > _LARGEST_SIGMA_NM:
        raise InvalidParameter(
            f"{name} = {sigma_nm:g} nm is above {_LARGEST_SIGMA_NM:g} nm, where any crystal has melted; give the rms"
            " displacement per axis in nm (0.008 nm is 0.08 angstrom)"
        )
    return sigma_nm


Phonons = FrozenPhonons | DebyeWaller | Sequence[Atoms]
"""A rule for displacements, their mean potential, or the displaced structures themselves."""


def configurations(specimen: Specimen, phonons: Phonons | None, seed: int) -> list[Specimen]:
    """The specimens to average over: the one given, if nothing vibrates."""
    if phonons is None or isinstance(phonons, DebyeWaller):
        return [specimen]
    if isinstance(phonons, FrozenPhonons):
        return phonons.configurations(specimen, seed)
    if isinstance(phonons, str | np.ndarray | Mapping | Atoms) or not isinstance(phonons, Iterable):
        kind = type(phonons).__name__
        raise InvalidParameter(
            f"phonons is a {kind}; give FrozenPhonons(count, sigmas_nm), DebyeWaller(sigmas_nm) or a list of structures"
        )
    displaced = [_displaced(index, structure, specimen) for index, structure in enumerate(phonons)]
    if not displaced:
        raise InvalidSpecimen("phonons is an empty list; give at least one displaced structure, or phonons=None")
    return displaced


def _displaced(index: int, structure: Atoms, specimen: Specimen) -> Specimen:
    """One structure of a list; an error where its cell or its elements are not those of the specimen.

    Atoms moved out of an outer face stay at it, as those of `FrozenPhonons` do, and do not wrap to the other.
    """
    try:
        found = Specimen.wrapped(structure)
    except InvalidSpecimen as error:
        raise InvalidSpecimen(f"phonons[{index}]: {error}") from error
    if np.max(np.abs(np.subtract(found.cell_angstrom, specimen.cell_angstrom))) > CELL_TOLERANCE_ANGSTROM:
        raise InvalidSpecimen(
            f"phonons[{index}] has another cell, {_lengths(found)} angstrom, than atoms with {_lengths(specimen)}:"
            " displaced structures keep the cell; give them that of atoms"
        )
    own, wanted = _composition(found), _composition(specimen)
    if own != wanted:
        raise InvalidSpecimen(
            f"phonons[{index}] holds {own}, and atoms {wanted}: displaced structures hold the same atoms at moved"
            " places; make each from a copy of atoms, or simulate another structure by itself"
        )
    if not np.array_equal(found.numbers, specimen.numbers):
        return found  # in another order: which atom moved where is not known
    moved = found.positions_angstrom - specimen.positions_angstrom
    cell = np.asarray(specimen.cell_angstrom)
    return specimen.displaced(moved - cell * np.round(moved / cell))


def _lengths(specimen: Specimen) -> str:
    return " x ".join(f"{length:g}" for length in specimen.cell_angstrom)


def _composition(specimen: Specimen) -> str:
    """`Sr 4, Ti 4, O 12`, heaviest first."""
    numbers, counts = np.unique(specimen.numbers, return_counts=True)
    pairs = zip(numbers[::-1].tolist(), counts[::-1].tolist(), strict=True)
    return ", ".join(f"{symbol_of(number)} {count}" for number, count in pairs) or "no atoms"
