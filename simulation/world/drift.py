"""Where the specimen and the focus go by themselves: smooth functions of time, so any moment can be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np

_SHORTEST_S, _LONGEST_S = 90.0, 900.0
_TERMS = 4
_STEADY = 0.7  # share of the mean square speed that keeps its direction; the rest wanders (assumption)


@dataclass(frozen=True)
class Wander:
    """A smooth random walk from 0 at time 0: a steady part and four slow sinusoids with a given rms speed."""

    steady_nm_per_s: float
    amplitudes_nm: np.ndarray
    rates_per_s: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rms_nm_per_min: float, direction_fraction: float, rng: np.random.Generator) -> Wander:
        """Steady part `direction_fraction` (-1..1) times the speed; the wandering part has periods of 1.5 to 15 min."""
        rates = 2 * pi / np.exp(rng.uniform(np.log(_SHORTEST_S), np.log(_LONGEST_S), _TERMS))
        speed = rms_nm_per_min / 60
        wandering = speed * np.sqrt(1 - _STEADY)
        return cls(
            steady_nm_per_s=float(speed * np.sqrt(_STEADY) * direction_fraction),
            amplitudes_nm=wandering * np.sqrt(2 / _TERMS) / rates,
            rates_per_s=rates,
            phases=rng.uniform(0, 2 * pi, _TERMS),
        )

    def at(self, time_s: float | np.ndarray) -> np.ndarray:
        """Displacement in nm at the times, same shape."""
        t = np.asarray(time_s, dtype=float)[..., None]
        waves = self.amplitudes_nm * (np.sin(self.rates_per_s * t + self.phases) - np.sin(self.phases))
        return self.steady_nm_per_s * t[..., 0] + waves.sum(axis=-1)


def creep_nm(
    elapsed_s: float | np.ndarray, start_nm_per_min: float, floor_nm_per_min: float, decay_s: float
) -> np.ndarray:
    """Path crept since a stage move: the speed decays from start to floor with the time constant.

    >>> float(creep_nm(60.0, 1.0, 1.0, 180.0).round(6))
    1.0
    """
    elapsed = np.clip(np.asarray(elapsed_s, dtype=float), 0, None)
    excess = (start_nm_per_min - floor_nm_per_min) / 60 * decay_s * -np.expm1(-elapsed / decay_s)
    return floor_nm_per_min / 60 * elapsed + excess
