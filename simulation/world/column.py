"""What the fitted twin tells of gun, vacuum, holder and clocks; its calendar begins with the year 2000."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from instruments.state import ClockOffset, ColumnState
from simulation.world.config import SimulatedConfig
from simulation.world.fittings import Fittings
from simulation.world.instrument_card import READING_STDS
from simulation.world.randomness import Purpose, generator

OPENED_AT: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EXTRACTION_V, _EMISSION_UA, _ENERGY_SPREAD_EV = 4500.0, 10.0, 0.35
_VACUUM_MBAR: Final = {"gun": 3e-11, "specimen": 2e-8}
_GAS_MBAR_PER_ML_PER_MIN = 1e-5
_CLOCK_STD_S, _CLOCK_UNCERTAINTY_S = 0.05, 0.002


def column_state(config: SimulatedConfig, fittings: Fittings, time_s: float, emission_fraction: float) -> ColumnState:
    """The column at a time of the simulated clock; a function of (configuration, commands) as everything else."""
    now = OPENED_AT + timedelta(seconds=time_s)
    flow = float(fittings.values["holder.flow_ml_per_min"])
    rng = generator(config.hidden_seed, Purpose.CLOCK)
    scan_clock = ClockOffset(
        offset_s=float(rng.normal(0, _CLOCK_STD_S)), uncertainty_s=_CLOCK_UNCERTAINTY_S, measured_at=OPENED_AT
    )
    return ColumnState(
        extraction_v=_EXTRACTION_V,
        emission_ua=_EMISSION_UA * emission_fraction,
        since_flash_s=time_s - fittings.flashed_s,
        monochromator="none",
        energy_spread_ev=_ENERGY_SPREAD_EV,
        vacuum_mbar={**_VACUUM_MBAR, "specimen": _VACUUM_MBAR["specimen"] + flow * _GAS_MBAR_PER_ML_PER_MIN},
        holder="heating, biasing, straining, gas",
        eucentric_z_nm=0.0,
        current_method="on the condenser aperture",
        current_measured_at=now,
        current_uncertainty_fraction=READING_STDS * config.current_reading_fraction,
        clocks={"scan generator": scan_clock},
    )
