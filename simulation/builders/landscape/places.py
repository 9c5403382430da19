"""Random draws that belong to a place: the same whatever is asked for first, and from whichever field."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a draw is for; the numbers are part of what a seed means and never change."""

    SQUARE = 101
    CONTAMINATION = 102
    FLAKES = 103
    PARTICLES = 104
    CARBON = 105
    VACANCIES = 106


def generator_at(seed: int, purpose: Purpose, *tile: int) -> np.random.Generator:
    """A generator that belongs to (seed, purpose, tile) and to nothing else; tiles may be negative."""
    keys = [2 * index if index >= 0 else -2 * index - 1 for index in tile]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, int(purpose), *keys])))


def tiles(low: NDArray[np.float64], high: NDArray[np.float64], side_nm: float) -> Iterator[tuple[int, ...]]:
    """Indices of all tiles of that side that meet the box from `low` to `high`, in any number of dimensions."""
    first = np.floor(np.asarray(low) / side_nm).astype(int)
    counts = np.floor(np.asarray(high) / side_nm).astype(int) - first + 1
    for index in np.ndindex(*counts):
        yield tuple(int(start + step) for start, step in zip(first, index, strict=True))


def uniform_at(seed: int, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each of (n, 3) positions, which depends on them (to 1/1000) and the seed only.

    The mixing function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 16), coordinate by coordinate.
    """
    with np.errstate(over="ignore"):
        mixed = np.full(len(positions), np.uint64(seed) ^ np.uint64(int(Purpose.VACANCIES)), dtype=np.uint64)
        for axis in range(3):
            whole = np.round(positions[:, axis] * 1000).astype(np.int64).view(np.uint64)
            mixed = mixed + whole + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
