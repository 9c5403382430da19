"""What a Thermo Fisher microscope under AutoScript is configured with, and the capabilities that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from instruments.adapters.makers_config import MakersConfig
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.errors import ConfigurationError
from instruments.models import Record

NM_PER_M: Final = 1e9
DEG_PER_RAD: Final = 57.29577951308232
STAGE: Final[dict[str, tuple[str, float]]] = {
    "x_nm": ("x", NM_PER_M), "y_nm": ("y", NM_PER_M), "z_nm": ("z", NM_PER_M), "alpha_deg": ("a", DEG_PER_RAD),
    "beta_deg": ("b", DEG_PER_RAD),
}  # fmt: skip
"""Our axis -> AutoScript's, and ours for one of its units."""
_SHIFT_TOLERANCE_NM: Final = 0.1
_DEFOCUS_TOLERANCE_NM: Final = 1.0


class ScanDetector(Record):
    """A scanning detector of AutoScript, and the angles it collects, as measured."""

    name: str = Field(min_length=1, description="as AutoScript calls it")
    inner_mrad: float | None = Field(default=None, ge=0)
    outer_mrad: float | None = Field(default=None, gt=0)


class Camera(Record):
    """A camera of AutoScript in TEM mode, at the magnification it is used at."""

    name: str = Field(min_length=1, description="as AutoScript calls it")
    side_px: int = Field(ge=1, le=16_384, description="of its square images")
    pixel_size_nm: float = Field(gt=0, le=1e5, description="in the specimen's plane; another one fails the exposure")
    exposure_s: tuple[float, float] = (0.01, 5.0)


class Names(Record):
    """Where among the client's attributes something is, for it moved between versions."""

    voltage: str = Field(default="source.acceleration_voltage.value", description="in V")
    defocus: str = Field(default="optics.focusing.stem.objective.defocus", description="in m; once optics.defocus")


class AutoScriptConfig(MakersConfig):
    """A Python with AutoScript's client in it, where the server is, its detectors, and how far things may go.

    The instrument's own limits of the stage hold besides those here, the narrower counts. The signs say which way
    AutoScript's numbers go against the house's; those given are to be measured at the microscope.
    """

    adapter_name = "autoscript"

    host: str = Field(default="localhost", min_length=1)
    port: int = Field(default=9095, ge=1, le=65_535)
    names: Names = Names()
    detectors: dict[str, ScanDetector] = Field(min_length=1, description="ours -> AutoScript's; read together")
    cameras: dict[str, Camera] = Field(default_factory=dict, description="mode and detector -> AutoScript's")
    scan_mode: str = Field(default="stem", min_length=1)
    sides_px: tuple[int, ...] = Field(
        default=(128, 256, 512, 1024, 2048, 4096), min_length=1, description="of full scans; smaller ones are parts"
    )
    max_beam_shift_nm: float | None = Field(default=None, gt=0, le=1e5, description="None: it is not set")
    beam_shift_signs: tuple[Literal[-1, 1], Literal[-1, 1]] = (1, 1)
    max_defocus_nm: float | None = Field(default=None, gt=0, le=1e6, description="None: it is not set")
    defocus_sign: Literal[-1, 1] = Field(default=-1, description="ours, underfocus positive, for AutoScript's +")
    field_of_view_nm: tuple[float, float] = Field(default=(1.0, 100_000.0), description="of a full scan")
    dwell_time_us: tuple[float, float] = (0.1, 1000.0)
    pixel_tolerance_fraction: float = Field(default=0.02, gt=0, le=0.5, description="of the pixels that come")
    probe_current_pa: float = Field(ge=0, le=1e6, description="declared: doses follow from it")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        pairs = {
            **{str(name): pair for name, pair in self.limits.items()},
            "field_of_view_nm": self.field_of_view_nm,
            "dwell_time_us": self.dwell_time_us,
            **{f"{name}.exposure_s": camera.exposure_s for name, camera in self.cameras.items()},
        }
        if wrong := [name for name, (low, high) in pairs.items() if low >= high]:
            raise ValueError(f"limits of {', '.join(wrong)} are not in order; swap them")
        if min(self.field_of_view_nm) <= 0 or min(self.dwell_time_us) <= 0:
            raise ValueError("field_of_view_nm and dwell_time_us are above 0")
        return self

    def full_side_px(self, shape_px: tuple[int, int]) -> int | None:
        """The side of the full scan of which this shape is the middle; None where it does not fit."""
        return min((side for side in self.sides_px if side >= max(shape_px)), default=None)


def capabilities_of(config: AutoScriptConfig, about: Mapping[str, Any]) -> Capabilities:
    """The card of what answers there. Raises ConfigurationError for limits the stage has not at all."""
    return Capabilities(
        name="autoscript offline" if about["is_offline"] else "autoscript",
        simulated=about["is_offline"],
        axes=(*_stage(config, about["limits"]), *_lenses(config), *_of_a_frame(config)),
        modes=(_mode(config), *(_camera_mode(name, camera) for name, camera in config.cameras.items())),
        can_interrupt=config.stops_a_scan,
        stop_latency_s=config.stop_latency_s,
        blanker_settle_s=config.beam_overhead_s,
        reports_dose=False,
        quirks=(
            "the narrower of AutoScript's limits of the stage and the configuration's hold; of the beam it has none",
            "a scan that is no full one is the middle of it: the field of view at the microscope is the full one's",
            "a stage move is not halted by a stop, which blanks; the scan's flyback is part of beam_overhead_s",
            "a stop ends the call with the scan that runs, which it darkens at once where stops_a_scan says so",
            "column valves are read, never commanded",
            "current and convergence are declared, so doses are nominal",
        ),
    )


def _stage(config: AutoScriptConfig, told: Mapping[str, list[float]]) -> list[Axis]:
    axes: list[Axis] = []
    for name, (low, high) in config.limits.items():
        there, factor = STAGE[name]
        own = sorted(config.sign(name) * factor * limit for limit in told[there])
        if max(low, own[0]) >= min(high, own[1]):
            raise ConfigurationError(
                f"limits of {name}, {low:g} to {high:g}, are outside the microscope's own, {own[0]:g} to {own[1]:g}"
            )
        axes.append(config.stage_axis(name, max(low, own[0]), min(high, own[1])))
    return axes


def _lenses(config: AutoScriptConfig) -> list[Axis]:
    axes = [Axis(name="column_valves", choices=("closed", "open"), read_only=True, interlocked=True, frame="column")]
    if (shift_nm := config.max_beam_shift_nm) is not None:
        axes += [
            Axis(name=name, minimum=-shift_nm, maximum=shift_nm, tolerance=_SHIFT_TOLERANCE_NM, frame="beam_shift")
            for name in ("beam_shift_x_nm", "beam_shift_y_nm")
        ]
    if (defocus_nm := config.max_defocus_nm) is not None:
        axes.append(Axis(name="defocus_nm", minimum=-defocus_nm, maximum=defocus_nm, tolerance=_DEFOCUS_TOLERANCE_NM))
    return axes


def _of_a_frame(config: AutoScriptConfig) -> list[Axis]:
    narrowest, widest = config.field_of_view_nm
    cameras = config.cameras.values()
    fields = [narrowest / max(config.sides_px), widest, *(one.side_px * one.pixel_size_nm for one in cameras)]
    pixels = [narrowest / max(config.sides_px), widest / min(config.sides_px), *(one.pixel_size_nm for one in cameras)]
    dwells = [*config.dwell_time_us, *(1e6 * exposure_s for one in cameras for exposure_s in one.exposure_s)]
    ranges = {
        "beam_energy_ev": (config.beam_energy_ev, config.beam_energy_ev),
        "semi_convergence_angle_mrad": (config.semi_convergence_angle_mrad, config.semi_convergence_angle_mrad),
        "probe_current_pa": (config.probe_current_pa, config.probe_current_pa),
        "field_of_view_nm": (min(fields), max(fields)),
        "pixel_size_nm": (min(pixels), max(pixels)),
        "dwell_time_us": (min(dwells), max(dwells)),
        "subframe_count": (1.0, 64.0),
    }
    return [
        Axis(name=name, minimum=low, maximum=high, frame=KNOWN_AXES[name].frame) for name, (low, high) in ranges.items()
    ]


def _mode(config: AutoScriptConfig) -> Mode:
    detectors = tuple(
        Detector(
            name=name,
            inner_mrad=one.inner_mrad,
            outer_mrad=one.outer_mrad,
            without_references="AutoScript tells neither gain nor dark image of a scanning detector",
        )
        for name, one in config.detectors.items()
    )
    return Mode(name=config.scan_mode, kind="stem", detectors=detectors)


def _camera_mode(name: str, camera: Camera) -> Mode:
    detector = Detector(
        name=name,
        shape_px=(camera.side_px, camera.side_px),
        without_references="AutoScript gives images as its own references corrected them, or not",
    )
    return Mode(name=name, kind="tem_image", detectors=(detector,))
