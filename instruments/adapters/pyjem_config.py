"""What a JEOL microscope under PyJEM is configured with, and the capabilities that follow; `pyjem` opens it."""

from __future__ import annotations

from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from instruments.adapters.makers_config import MakersConfig
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.models import Record

HIGHEST_NUMBER: Final = 65_535
STAGE: Final[dict[str, str]] = {
    "x_nm": "x", "y_nm": "y", "z_nm": "z", "alpha_deg": "tilt_x", "beta_deg": "tilt_y",
}  # fmt: skip
"""Our axis -> the device's."""


class Converters(Record):
    """A pair of deflector coils: numbers of their converters against ours, as the facility measured them.

    (x, y) of ours = `scale` times (numbers - `neutral`).
    """

    neutral: tuple[int, int] = Field(description="numbers at which ours are 0, 0")
    scale: tuple[tuple[float, float], tuple[float, float]]
    maximum: float = Field(gt=0, description="as far as ours may go from 0, either way")

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if abs(np.linalg.det(np.asarray(self.scale))) < 1e-12:
            raise ValueError("scale turns a plane into a line; measure both directions")
        for x in (-self.maximum, self.maximum):
            for y in (-self.maximum, self.maximum):
                if not all(0 <= number <= HIGHEST_NUMBER for number in self.numbers((x, y))):
                    raise ValueError(
                        f"maximum {self.maximum:g} is beyond the converters' {HIGHEST_NUMBER} or 0; lower it"
                    )
        return self

    def numbers(self, values: tuple[float, float]) -> tuple[int, int]:
        """The converters' numbers nearest to (x, y)."""
        first, second = np.linalg.solve(np.asarray(self.scale), values)
        return round(first) + self.neutral[0], round(second) + self.neutral[1]

    def place(self, numbers: tuple[int, int] | list[int]) -> tuple[float, float]:
        """Where these numbers are, in ours."""
        x, y = np.asarray(self.scale) @ np.subtract(numbers, self.neutral)
        return float(x), float(y)

    @property
    def steps(self) -> tuple[float, float]:
        """The most that one number changes x, and y."""
        (xx, xy), (yx, yy) = self.scale
        return abs(xx) + abs(xy), abs(yx) + abs(yy)


class Lens(Record):
    """The fine objective lens: numbers of its converter against defocus, as the facility measured them."""

    neutral: int = Field(ge=0, le=HIGHEST_NUMBER, description="number at a defocus of 0")
    scale_nm: float = Field(description="for one number; its sign is that of underfocus: measure it")
    limit_nm: float = Field(gt=0)

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if self.scale_nm == 0:
            raise ValueError("scale_nm cannot be 0; measure it")
        if not all(0 <= self.number(nm) <= HIGHEST_NUMBER for nm in (-self.limit_nm, self.limit_nm)):
            raise ValueError(f"limit_nm {self.limit_nm:g} is beyond the converter's 0 to {HIGHEST_NUMBER}; lower it")
        return self

    def number(self, defocus_nm: float) -> int:
        """The converter's number nearest to it."""
        return self.neutral + round(defocus_nm / self.scale_nm)

    def defocus_nm(self, number: int) -> float:
        """Underfocus positive."""
        return (number - self.neutral) * self.scale_nm


class ScanDetector(Record):
    """A detector of TEMCenter, and what its raw data are: TEMCenter does not say."""

    name: str = Field(min_length=1, description="as TEMCenter calls it")
    number: int | None = Field(default=None, ge=0, le=63, description="of Detector3, to see whether it is inserted")
    raw_type: Literal["u1", "<u2", ">u2", "<i2", ">i2"] = Field(description="of one pixel: measure it, see the manual")
    inner_mrad: float | None = Field(default=None, ge=0)
    outer_mrad: float | None = Field(default=None, gt=0)


class ScanField(Record):
    """A magnification in STEM, and the width that a full scan has there, as calibrated."""

    selector: int = Field(ge=0, description="its number for SetSelector")
    magnification: float = Field(gt=0, description="as GetMagValue reads it")
    field_of_view_nm: float = Field(gt=0, le=1e6)


class PyJEMConfig(MakersConfig):
    """A Python with PyJEM in it, what of the microscope is used, its calibrations, and how far things may go.

    PyJEM reports no limits and its numbers have no units, so those here are what the adapter refuses and converts by;
    what is not calibrated is not offered. The signs say which way the stage goes against the house's: a stage move of
    +x brings a point further along +x under the beam.
    """

    adapter_name = "pyjem"

    connect: bool = Field(default=True, description="call TEM3.connect(); false where this PyJEM has none")
    offline: bool = Field(default=False, description="PyJEM.offline, JEOL's own stand-in without a microscope")
    detectors: dict[str, ScanDetector] = Field(min_length=1, description="mode and detector -> TEMCenter's")
    fields: tuple[ScanField, ...] = Field(min_length=1)
    sides_px: tuple[int, ...] = Field(default=(256, 512, 1024, 2048), min_length=1, description="of square scans")
    beam_shift: Converters | None = Field(default=None, description="CLA1, in nm")
    beam_tilt: Converters | None = Field(default=None, description="CLA2, in mrad")
    focus: Lens | None = None
    dwell_time_us: tuple[float, float] = (1.0, 1000.0)
    probe_current_pa: float = Field(ge=0, le=1e6, description="measured at `spot`: doses follow from it")
    spot: int | None = Field(default=None, ge=0, description="at which the current was measured; others are refused")
    arrive_s: float = Field(default=1.0, gt=0, le=60, description="a stage at rest elsewhere for so long has not moved")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        wrong = [name for name, (low, high) in self.limits.items() if low >= high]
        if wrong or self.dwell_time_us[0] > self.dwell_time_us[1] or self.dwell_time_us[0] <= 0:
            raise ValueError(f"limits of {', '.join(wrong) or 'dwell_time_us'} are not in order; swap them")
        return self

    def field(self, field_of_view_nm: float) -> ScanField | None:
        """The magnification of that width, or None."""
        near = (one for one in self.fields if abs(one.field_of_view_nm / field_of_view_nm - 1) < 1e-3)
        return next(near, None)


def capabilities_of(config: PyJEMConfig) -> Capabilities:
    """The card: what has no limits or no calibration is not there."""
    stage = [config.stage_axis(name, low, high) for name, (low, high) in config.limits.items()]
    return Capabilities(
        name="pyjem offline" if config.offline else "pyjem",
        simulated=config.offline,
        axes=(
            *stage,
            *_deflections(config),
            *_of_a_frame(config),
        ),
        modes=tuple(_mode(name, detector) for name, detector in config.detectors.items()),
        can_interrupt=config.stops_a_scan,
        stop_latency_s=config.stop_latency_s,
        blanker_settle_s=config.beam_overhead_s,
        flyback_exposes=True,
        reports_dose=False,
        reports_limits=False,
        quirks=(
            "PyJEM reports no limits: those of its axes are the configuration's, and the adapter refuses by them",
            "deflectors and lens are numbers of converters: their units are the facility's calibration, where given",
            "one detector a scan: TEMCenter gives raw data of one at a time, so each costs a dose of its own",
            "flyback is TEMCenter's own and not told: it is part of beam_overhead_s",
            "a stop ends the call with the scan that runs, which it darkens at once where stops_a_scan says so",
            "current and convergence are declared, so doses are nominal",
        ),
    )


def _deflections(config: PyJEMConfig) -> list[Axis]:
    found: list[Axis] = []
    for pair, names in (
        (config.beam_shift, ("beam_shift_x_nm", "beam_shift_y_nm")),
        (config.beam_tilt, ("tilt_x_mrad", "tilt_y_mrad")),
    ):
        if pair is not None:
            found += [
                Axis(
                    name=name, minimum=-pair.maximum, maximum=pair.maximum, resolution=step, tolerance=step,
                    frame=KNOWN_AXES[name].frame,
                )
                for name, step in zip(names, pair.steps, strict=True)
            ]  # fmt: skip
    if config.focus is not None:
        step, limit = abs(config.focus.scale_nm), config.focus.limit_nm
        found.append(Axis(name="defocus_nm", minimum=-limit, maximum=limit, resolution=step, tolerance=step))
    return found


def _of_a_frame(config: PyJEMConfig) -> list[Axis]:
    widths = [one.field_of_view_nm for one in config.fields]
    ranges = {
        "beam_energy_ev": (config.beam_energy_ev, config.beam_energy_ev),
        "semi_convergence_angle_mrad": (config.semi_convergence_angle_mrad, config.semi_convergence_angle_mrad),
        "probe_current_pa": (config.probe_current_pa, config.probe_current_pa),
        "field_of_view_nm": (min(widths) * 0.999, max(widths) * 1.001),
        "pixel_size_nm": (0.999 * min(widths) / max(config.sides_px), 1.001 * max(widths) / min(config.sides_px)),
        "dwell_time_us": config.dwell_time_us,
        "subframe_count": (1.0, 64.0),
    }
    return [
        Axis(name=name, minimum=low, maximum=high, frame=KNOWN_AXES[name].frame) for name, (low, high) in ranges.items()
    ]


def _mode(name: str, detector: ScanDetector) -> Mode:
    return Mode(
        name=name,
        kind="stem",
        detectors=(
            Detector(
                name=name,
                inner_mrad=detector.inner_mrad,
                outer_mrad=detector.outer_mrad,
                without_references="TEMCenter tells neither gain nor dark image of a detector",
            ),
        ),
    )
