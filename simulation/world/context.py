"""What a frame of the twin says of how it was made, beyond its state; `simulation.microscope` puts it there."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from instruments.capabilities import Mode
from instruments.commands import AcquireFrame
from instruments.units import electrons
from simulation.world.at_once import MRAD_PER_PX
from simulation.world.config import SimulatedConfig
from simulation.world.fittings import Fittings


def frame_context(
    config: SimulatedConfig, command: AcquireFrame, mode: Mode, measured_pa: float, fittings: Fittings
) -> dict[str, Any]:
    """Maker, software, seed, and what of the detectors, the scan and the gun is not in the state."""
    told: dict[str, Any] = {
        "instrument": {"name": "simulated", "serial": "simulated", "vendor": "stempilot"},
        "is_simulation": True,
        "software": {"numpy": np.__version__, "python": platform.python_version()},
        "seed": config.seed,
        "electrons_per_px_subframe": electrons(measured_pa, command.scan.dwell_time_us * 1e-6),
        "emission": {
            "model": "exponential decay since the last flash",
            "time_constant_s": config.emission_decay_s,
            "decay_fraction_between": [config.emission_decay_min_fraction, config.emission_decay_max_fraction],
        },
        "line_jitter_nm": config.line_jitter_nm * max(1.0, 1.0 / command.scan.dwell_time_us),
        "afterglow_us": config.afterglow_us,
        "quantum_efficiency": config.quantum_efficiency,
        "calibrations": [
            {"quantity": "pixel_size_nm", "relative_error": 0.0, "source": "definition of the simulated scan"},
            {
                "quantity": "measured_current_pa",
                "relative_error": config.current_reading_fraction,
                "source": "reading",
            },
        ],
    }
    if mode.kind == "tem_diffraction":
        told["pattern_pixel_mrad"] = MRAD_PER_PX
        x_mrad, y_mrad = fittings.descan_mrad()
        aside_mrad = (command.optics.tilt_y_mrad + y_mrad, command.optics.tilt_x_mrad + x_mrad)
        told["pattern_centre_px"] = [
            (side - 1) / 2 + mrad / MRAD_PER_PX for side, mrad in zip(command.scan.shape_px, aside_mrad, strict=True)
        ]
    return told
