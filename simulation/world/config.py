"""Every number of the simulated microscope and its hidden world; `instrument_card` makes capabilities of it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from instruments.errors import ConfigurationError
from instruments.models import Record
from simulation.world.faults import NO_FAULTS, Faults


class DefectConfig(Record):
    """A species: the column it replaces (by name, as "Se2") and the atoms left in that column."""

    column: str = Field(min_length=1)
    becomes: tuple[str, ...]


def _wse2_defects() -> dict[str, DefectConfig]:
    return {
        "V_Se": DefectConfig(column="Se2", becomes=("Se",)),
        "O_Se": DefectConfig(column="Se2", becomes=("Se", "O")),
        "V_Se2": DefectConfig(column="Se2", becomes=()),
        "Mo_W": DefectConfig(column="W", becomes=("Mo",)),
    }


class SimulatedConfig(Record):
    """Configuration of the simulated microscope: the specimen that is really there, the column, and the seeds.

    Native densities follow Ding 2021 (10.1088/1361-6528/abeeb2) and Barja 2019 (s41467-019-11342-2); what is marked
    *assumption* is one. The world spans -width/2..width/2 and -height/2..height/2; lattice goes on outside it,
    contaminated and without native defects.
    """

    structure: str = Field(min_length=1, description="CIF or extended XYZ file of the unit cell")
    defects: dict[str, DefectConfig] = Field(default_factory=_wse2_defects, min_length=1)
    densities_per_nm2: dict[str, float] = Field(
        default_factory=lambda: {"V_Se": 0.006, "O_Se": 0.004, "V_Se2": 0.0005, "Mo_W": 0.003}
    )
    seed: int = Field(default=0, ge=0, description="noise, jitter, damage, stage errors")
    world_seed: int | None = Field(default=None, ge=0, description="defects, contamination, hidden optics; None: seed")
    cache_folder: str | None = None
    time_scale: float = Field(
        default=0.0, ge=0, le=1e4, description="wall seconds per simulated second of exposure; 0: as fast as computed"
    )

    width_nm: float = Field(default=200.0, ge=20, le=5000)
    height_nm: float = Field(default=200.0, ge=20, le=5000)
    clean_fraction: float = Field(default=0.4, ge=0, le=0.9)
    window_min_nm: float = Field(default=15.0, ge=5, le=500)
    window_max_nm: float = Field(default=60.0, ge=5, le=500)
    contamination_nm: float = Field(default=6.0, gt=0, le=30, description="mean thickness; assumption")
    contamination_contrast_nm: float = Field(
        default=5.0, gt=0, le=100, description="thickness that damps lattice contrast to 1/e; assumption"
    )
    clustering_sigma: float | None = Field(default=None, ge=0, le=3, description="None: one of 0, 0.7, 1.2 by seed")
    clustering_length_nm: float = Field(default=30.0, gt=0, le=1000)

    beam_energy_ev: float = Field(default=60e3, ge=20e3, le=300e3)
    semi_convergence_angle_mrad: float = Field(default=31.5, gt=1, le=60)
    source_size_nm: float = Field(default=0.08, ge=0, le=0.5, description="FWHM at 60 pA, grows as sqrt(I); assumption")
    focal_spread_nm: float = Field(default=3.3, ge=0, le=50)
    residual_c12_nm: float = Field(default=1.0, ge=0, le=100)
    residual_c21_nm: float = Field(default=30.0, ge=0, le=5000)
    residual_c23_nm: float = Field(default=30.0, ge=0, le=5000)
    residual_c30_nm: float = Field(default=1000.0, ge=-1e6, le=1e6)
    focus_offset_nm: float = Field(default=5.0, ge=0, le=100, description="hidden offset drawn within +-this")
    focus_drift_nm_per_min: float = Field(default=1.0, ge=0, le=60)
    defocus_range_nm: float = Field(default=100.0, gt=0, le=10e3)
    rms_displacement_nm: float = Field(default=0.007, ge=0, le=0.05, description="thermal, per axis, all elements")
    phonon_count: int = Field(default=12, ge=1, le=200)

    initial_mode: str = "maadf"
    initial_current_pa: float = Field(default=30.0, gt=0)
    min_current_pa: float = Field(default=10.0, gt=0, le=1000)
    max_current_pa: float = Field(default=100.0, gt=0, le=1000)
    emission_decay_min_fraction: float = Field(default=0.1, ge=0, le=0.9, description="assumption")
    emission_decay_max_fraction: float = Field(default=0.3, ge=0, le=0.9, description="assumption")
    emission_decay_s: float = Field(default=1200.0, gt=0, description="time constant after a flash; assumption")
    current_reading_fraction: float = Field(default=0.01, ge=0, le=0.2, description="standard error of a reading")
    current_change_s: float = Field(default=20.0, ge=0, le=600)
    current_change_focus_nm: float = Field(default=1.0, ge=0, le=50, description="focus jump, std; assumption")

    drift_nm_per_min: float = Field(default=1.0, ge=0, le=60)
    move_drift_nm_per_min: float = Field(default=3.0, ge=0, le=60)
    move_drift_floor_nm_per_min: float = Field(default=0.3, ge=0, le=60)
    move_drift_decay_s: float = Field(default=180.0, gt=0, le=7200)
    stage_range_nm: float = Field(default=1e6, gt=0, le=2e6)
    stage_move_s: float = Field(default=2.0, ge=0, le=60, description="settling; assumption")
    stage_speed_nm_per_s: float = Field(default=500.0, gt=0, description="assumption")
    backlash_min_nm: float = Field(default=50.0, ge=0, le=5000, description="residual error of a move; assumption")
    backlash_max_nm: float = Field(default=300.0, ge=0, le=5000, description="residual error of a move; assumption")
    tilt_range_deg: float = Field(default=30.0, gt=0, le=60, description="alpha and beta, with fittings")
    tilt_speed_deg_per_s: float = Field(default=2.0, gt=0, le=100, description="assumption")
    height_range_nm: float = Field(default=1e4, gt=0, le=1e6, description="stage z, with fittings")
    eucentric_error_nm: float = Field(
        default=200.0, ge=0, le=1e5, description="hidden height of the specimen over the tilt axis, within +-this"
    )
    beam_shift_range_nm: float = Field(default=500.0, gt=0, le=1e4)
    beam_shift_settle_s: float = Field(default=0.05, ge=0, le=10)
    camera_length_change_s: float = Field(default=10.0, ge=0, le=600)

    min_dwell_time_us: float = Field(default=0.5, gt=0, le=1e3)
    max_dwell_time_us: float = Field(default=20.0, gt=0, le=1e3)
    blanker_settle_us: float = Field(
        default=2.0,
        ge=0,
        le=1e4,
        description="burns where it begins or ends; of a frame on the first pixel; assumption",
    )
    line_jitter_nm: float = Field(default=0.004, ge=0, le=0.1, description="rms per line at 1 us; assumption")
    afterglow_us: float = Field(default=0.2, ge=0, le=0.5, description="decay of the detectors' light; assumption")
    quantum_efficiency: float = Field(default=1.0, gt=0, le=1)
    fittings: bool = Field(
        default=False,
        description="also height and tilts, detectors that move and amplify, screen, gun lens, line_sync, a holder "
        "with stimuli, a flash, a parallel beam, which can be tilted",
    )

    faults: Faults = Field(default=NO_FAULTS, description="what is wrong with stage, detectors and line")

    excitation_60kv_barn: float = Field(default=1.0, ge=0, le=1e6, description="assumption")
    excitation_80kv_barn: float = Field(default=5.0, ge=0, le=1e6, description="assumption")
    excitation_lognormal_factor: float = Field(default=3.0, ge=1, le=100, description="assumption")
    vacancy_neighbour_factor: float = Field(default=5.0, ge=1, le=1e3, description="assumption")
    displacement_thresholds_ev: dict[str, float] = Field(default_factory=lambda: {"Se": 6.3, "S": 6.9})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for low, high in (
            ("window_min_nm", "window_max_nm"),
            ("min_current_pa", "max_current_pa"),
            ("emission_decay_min_fraction", "emission_decay_max_fraction"),
            ("backlash_min_nm", "backlash_max_nm"),
            ("min_dwell_time_us", "max_dwell_time_us"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}; swap them")
        if not self.min_current_pa <= self.initial_current_pa <= self.max_current_pa:
            raise ValueError(
                f"initial_current_pa {self.initial_current_pa} pA is outside "
                f"{self.min_current_pa}..{self.max_current_pa} pA (min_current_pa..max_current_pa)"
            )
        self._check_species()
        return self

    def _check_species(self) -> None:
        unknown = sorted(set(self.densities_per_nm2) - set(self.defects))
        if unknown:
            raise ValueError(f"densities_per_nm2 names {', '.join(unknown)}; defects knows {', '.join(self.defects)}")
        bad = {name: density for name, density in self.densities_per_nm2.items() if not 0 <= density <= 1}
        if bad:
            raise ValueError(f"densities_per_nm2 {bad} is outside 0..1 per nm2")
        contents = Counter((defect.column, tuple(sorted(defect.becomes))) for defect in self.defects.values())
        twice = [content for content, count in contents.items() if count > 1]
        if twice:
            raise ValueError(f"defects: two species make the same of a column: {twice}; keep one of them")
        if any(threshold <= 0 for threshold in self.displacement_thresholds_ev.values()):
            raise ValueError("displacement_thresholds_ev must be above 0 eV")

    @property
    def hidden_seed(self) -> int:
        """Seed of everything that is hidden: `world_seed`, or `seed` without one."""
        return self.seed if self.world_seed is None else self.world_seed


def parse_config(config: dict[str, Any]) -> SimulatedConfig:
    """The checked configuration. Raises ConfigurationError naming every bad key, its value, allowed range and unit."""
    try:
        return SimulatedConfig(**config)
    except ValidationError as error:
        raise ConfigurationError(f"simulated instrument: {error}") from error
