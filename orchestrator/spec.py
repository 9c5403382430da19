"""The experiment specification: what a user writes, checked whole, at the border.

Neighbours: `spec_file` reads it from YAML and words its errors; `mapping` turns a suggestion into a command with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from instruments import Aberrations, SafetyEnvelope
from instruments.models import Record


class ColumnChange(Record):
    """A defect species: the column it sits in and the atoms that column then holds."""

    column: str = Field(description="column of the perfect structure, e.g. Se2 or W")
    becomes: tuple[str, ...] = Field(description="element symbols left in the column, [] for none")


class Specimen(Record):
    """What the experimenter believes of the specimen; the hidden world belongs to the instrument."""

    material: str = Field(min_length=1)
    id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="which piece it is, as mounted: limits of dose count what experiments with the same id put on it "
        "at the same instrument",
    )
    structure: Path | None = Field(default=None, description="CIF or extended XYZ, relative to the spec's folder")
    thickness_nm: float | None = Field(default=None, gt=0, le=1e4)
    rms_displacement_nm: dict[str, float] = Field(default_factory=dict, description="element -> rms per axis")
    defects: dict[str, ColumnChange] = Field(default_factory=dict)
    preparation_date: str | None = Field(default=None, description="ISO 8601 date")
    atom_types: str | None = Field(default=None, description="comma-separated symbols where there is no structure file")
    context: dict[str, str] = Field(default_factory=dict, description="anything else worth keeping")

    @field_validator("rms_displacement_nm")
    @classmethod
    def _displacements(cls, value: dict[str, float]) -> dict[str, float]:
        for symbol, rms_nm in value.items():
            if not 0 <= rms_nm <= 0.1:
                raise ValueError(f"rms displacement of {symbol} is {rms_nm} nm; it must be 0 to 0.1 nm")
        return value


class NominalOptics(Record):
    """Optics that this experiment holds fixed."""

    beam_energy_ev: float = Field(gt=0, le=1e6)
    semi_convergence_angle_mrad: float = Field(gt=0, le=100)
    aberrations: Aberrations = Aberrations()
    source_size_nm: float = Field(default=0.08, ge=0, le=5, description="FWHM at source_current_pa")
    source_current_pa: float = Field(default=60.0, gt=0, le=1e5, description="source size grows with the square root")
    focal_spread_nm: float = Field(default=0.0, ge=0, le=100)


class NominalScan(Record):
    """How frames are scanned where the policy does not choose."""

    subframe_count: int = Field(default=4, ge=1, le=1000)
    min_subframe_dwell_us: float = Field(default=0.5, gt=0, description="fewer sub-frames rather than shorter dwell")
    flyback_time_us: float = Field(default=20.0, ge=0, le=1e5)
    rotation_deg: float = Field(default=0.0, ge=-360, le=360)
    max_shape_px: int = Field(default=1024, ge=1, le=16384)


class InstrumentChoice(Record):
    """Which configured instrument, what is fixed on it."""

    name: str = Field(default="simulated", min_length=1)
    config: dict[str, Any] = Field(
        default_factory=dict, description="handed to the adapter; see `stempilot instruments`"
    )
    optics: NominalOptics
    scan: NominalScan = NominalScan()
    fixed: dict[str, Any] = Field(default_factory=dict, description="point values the policy does not choose")


class ObjectiveChoice(Record):
    """Which question, with its options."""

    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)


class PolicyChoice(Record):
    """Which policy, with its options."""

    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)


class Budget(Record):
    """What may be spent: at least one of electrons and microscope time; frames as a last resort."""

    electrons: float | None = Field(default=None, gt=0, le=1e18)
    instrument_time_s: float | None = Field(default=None, gt=0, le=1e7)
    frames: int | None = Field(default=None, ge=1, le=10_000_000)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.electrons is None and self.instrument_time_s is None and self.frames is None:
            raise ValueError("set at least one of electrons, instrument_time_s, frames: an experiment must end")
        return self


class Stop(Record):
    """Rules that end the experiment before its budget does."""

    max_consecutive_refusals: int = Field(default=10, ge=1, le=10_000)
    max_wall_time_s: float | None = Field(default=None, gt=0, description="counted anew when it is gone on with")
    until: AwareDatetime | None = Field(
        default=None, description="no frame is begun after this moment, with a time zone; also when it is gone on with"
    )
    on_unknown: Literal["skip", "ask"] = Field(
        default="skip", description="an exposure without an answer: go on without it, or stop and ask"
    )


class Calibration(Record):
    """A short defocus series on a sacrificial area, before anything else; later frames get the defocus it finds.

    Use the probe current and mode of the experiment: changing the current moves the focus.
    """

    x_nm: float = Field(ge=-1e6, le=1e6, description="centre of the sacrificial area")
    y_nm: float = Field(ge=-1e6, le=1e6)
    field_of_view_nm: float = Field(default=4.0, gt=0, le=1000)
    pixel_size_nm: float = Field(default=0.04, gt=0, le=5, description="must resolve what can be sharp")
    mode: str = Field(min_length=1, description="a mode with a dark-field detector")
    dwell_time_us: float = Field(gt=0, le=1e6, description="all sub-frames together, each frame of the first series")
    probe_current_pa: float = Field(gt=0, le=1e6)
    low_nm: float = Field(default=-10.0, ge=-1e5, le=1e5, description="defocus range of the first series")
    high_nm: float = Field(default=10.0, ge=-1e5, le=1e5)
    widest_low_nm: float | None = Field(default=None, ge=-1e5, le=1e5, description="None: twice as far as the series")
    widest_high_nm: float | None = Field(default=None, ge=-1e5, le=1e5)
    resolution_nm: float = Field(default=0.5, gt=0, le=100, description="step of the defocus")
    count: int = Field(default=6, ge=3, le=100)
    refine_count: int = Field(default=4, ge=0, le=100)
    target_std_nm: float = Field(default=0.3, gt=0, le=100)
    dose_factor: float = Field(default=4.0, ge=1, le=100, description="once, where the first series shows nothing")
    on_failure: Literal["stop", "uncorrected"] = Field(
        default="stop", description="without a focus: end as failed, or go on with the defocus as commanded"
    )
    allow_overlap: bool = Field(default=False, description="the sacrificial area may lie in the search area")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        low, high = self.widest_nm
        if not low <= self.low_nm < self.high_nm <= high:
            raise ValueError(
                f"low_nm {self.low_nm:g} and high_nm {self.high_nm:g} nm must be in order and within widest_low_nm "
                f"{low:g} and widest_high_nm {high:g} nm"
            )
        return self

    @property
    def widest_nm(self) -> tuple[float, float]:
        """Defocus (low, high) that the series may be widened to."""
        half = (self.high_nm - self.low_nm) / 2
        low = self.low_nm - half if self.widest_low_nm is None else self.widest_low_nm
        high = self.high_nm + half if self.widest_high_nm is None else self.widest_high_nm
        return low, high


class Baselines(Record):
    """Baseline policies run after the experiment on fresh worlds of the same seed; only where the truth is known."""

    names: tuple[str, ...] = ()


class ExperimentSpec(Record):
    """One experiment, whole."""

    name: str = Field(min_length=1, max_length=200)
    specimen: Specimen
    instrument: InstrumentChoice
    search_space: dict[str, dict[str, Any]] = Field(min_length=1)
    objective: ObjectiveChoice
    policy: PolicyChoice
    budget: Budget
    safety: SafetyEnvelope = SafetyEnvelope()
    stop: Stop = Stop()
    calibrate: Calibration | None = Field(default=None, description="None: no focus series before the experiment")
    labels: dict[str, str] = Field(default_factory=dict)
    proposal: str | None = None

    @classmethod
    def from_yaml(cls, path: Path | str, overrides: dict[str, Any] | None = None) -> ExperimentSpec:
        """Read a spec; paths in it become absolute. Raises SpecError with every fault at once."""
        from orchestrator.spec_file import read_spec

        return read_spec(Path(path), overrides or {})

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.spec_card(self)
