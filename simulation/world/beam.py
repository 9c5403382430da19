"""The gun and the lens of the twin: emission, source size, residual aberrations and the hidden focus offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instruments.optics import Aberrations, Coherence
from simulation.world.config import SimulatedConfig
from simulation.world.drift import Wander
from simulation.world.randomness import Purpose, generator

_SOURCE_REFERENCE_PA = 60.0


@dataclass(frozen=True)
class Beam:
    """What the column does besides what it is told; drawn from the hidden seed."""

    residual: Aberrations
    focus_offset_nm: float
    focus_wander: Wander
    decay_fraction: float
    decay_s: float
    source_size_nm: float
    focal_spread_nm: float

    @classmethod
    def draw(cls, config: SimulatedConfig) -> Beam:
        """Residual aberrations of the configured size with random azimuths; focus offset even within its range."""
        rng = generator(config.hidden_seed, Purpose.OPTICS)
        azimuths = rng.uniform(-1, 1, 3) * np.array([90.0, 180.0, 60.0])
        residual = Aberrations(
            c12_nm=config.residual_c12_nm,
            phi12_deg=float(azimuths[0]),
            c21_nm=config.residual_c21_nm,
            phi21_deg=float(azimuths[1]),
            c23_nm=config.residual_c23_nm,
            phi23_deg=float(azimuths[2]),
            c30_nm=config.residual_c30_nm,
        )
        emission = generator(config.hidden_seed, Purpose.EMISSION)
        focus = generator(config.hidden_seed, Purpose.FOCUS)
        return cls(
            residual=residual,
            focus_offset_nm=float(rng.uniform(-1, 1) * config.focus_offset_nm),
            focus_wander=Wander.draw(config.focus_drift_nm_per_min, float(focus.choice((-1, 1))), focus),
            decay_fraction=float(
                emission.uniform(config.emission_decay_min_fraction, config.emission_decay_max_fraction)
            ),
            decay_s=config.emission_decay_s,
            source_size_nm=config.source_size_nm,
            focal_spread_nm=config.focal_spread_nm,
        )

    def emission_fraction(self, time_s: float) -> float:
        """True over commanded current: 1 just after the flash at time 0, then decaying to 1 - `decay_fraction`."""
        return 1 + self.decay_fraction * float(np.expm1(-time_s / self.decay_s))

    def coherence(self, probe_current_pa: float) -> Coherence:
        """Source size grows as the root of the commanded current, taken to 1 pA (assumption: a cold field emitter)."""
        current_pa = max(round(probe_current_pa), 1)
        size_nm = self.source_size_nm * (current_pa / _SOURCE_REFERENCE_PA) ** 0.5
        return Coherence(source_size_nm=size_nm, focal_spread_nm=self.focal_spread_nm)
