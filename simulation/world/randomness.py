"""Random draws of the hidden world, each from a key of its own, so that no draw depends on the order of others."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a draw is for; the numbers are part of what a seed means and never change."""

    WINDOWS = 1
    TEXTURE = 2
    DENSITY = 3
    NATIVES = 4
    CLUSTERING = 5
    OPTICS = 6
    CROSS_SECTION = 7
    DRIFT = 8
    FOCUS = 9
    EMISSION = 10
    LATTICE = 11
    STAGE_MOVE = 20
    CURRENT_CHANGE = 21
    DAMAGE = 22
    JITTER = 23
    SHOT_NOISE = 24
    CURRENT_READING = 25
    CLOCK = 26
    FILM_ATOMS = 27
    PARALLEL_PHONONS = 28
    EUCENTRIC = 29
    LOST_FRAME = 30


def generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """A generator that belongs to (seed, purpose, keys) and to nothing else; all keys >= 0.

    >>> bool(generator(1, Purpose.DRIFT).random() == generator(1, Purpose.DRIFT).random())
    True
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, int(purpose), *keys])))
