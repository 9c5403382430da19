"""What a Nion instrument can do: its axes by Nion's controls, its modes, its quirks. Neighbour: `nion` drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from instruments.adapters.nion_config import NionConfig
from instruments.axes import AxisFrame
from instruments.capabilities import Axis, Capabilities, Detector, Mode

UNITS_PER_SCAN_VALUE: Final = 100.0
SCAN_OFFSET: Final = float(1 << 20)
CAMERA_OFFSET: Final = 1000.0
LEAST_DEFOCUS_NM: Final = 1e-3
LEAST_C12_NM: Final = 1e-6  # below it the azimuth is rounding
_NOT_RAW: Final = "Nion Swift gives corrected floating-point images, no counts"


@dataclass(frozen=True, slots=True)
class Control:
    """One of Nion's controls and the axis it is: house value = factor * control."""

    axis: str
    name: str
    factor: float
    maximum: float
    tolerance: float
    frame: AxisFrame

    @property
    def is_even(self) -> bool:
        """Whether it goes as far below zero as above."""
        return self.axis != "probe_current_pa"


def controls_of(config: NionConfig) -> tuple[Control, ...]:
    """Those that are one number each; two-fold astigmatism is two, and polar here."""
    stage_x, stage_y = config.stage_signs
    shift_x, shift_y = config.beam_shift_signs
    return (
        Control("x_nm", "stage_position_m.x", stage_x * 1e9, config.max_stage_nm, 0.01, "stage"),
        Control("y_nm", "stage_position_m.y", stage_y * 1e9, config.max_stage_nm, 0.01, "stage"),
        Control("beam_shift_x_nm", "CSH.x", shift_x * 1e9, config.max_beam_shift_nm, 0.01, "beam_shift"),
        Control("beam_shift_y_nm", "CSH.y", shift_y * 1e9, config.max_beam_shift_nm, 0.01, "beam_shift"),
        Control("defocus_nm", "C10", -1e9, config.max_defocus_nm, 0.01, "optics"),
        Control("c30_nm", "C30", 1e9, config.max_c30_nm, 1.0, "optics"),
        Control("probe_current_pa", "BeamCurrent", 1e12, config.max_current_pa, 0.01, "optics"),
    )


def capabilities_of(config: NionConfig, beam_energy_ev: float, semi_convergence_angle_mrad: float) -> Capabilities:
    """Of what runs in the worker."""
    axes = [
        Axis(
            name=one.axis,
            minimum=-one.maximum if one.is_even else 0.0,
            maximum=one.maximum,
            tolerance=one.tolerance,
            settle_s=config.settle_s if one.frame == "stage" else 0.0,
            frame=one.frame,
        )
        for one in controls_of(config)
    ]
    fixed = {"beam_energy_ev": beam_energy_ev, "semi_convergence_angle_mrad": semi_convergence_angle_mrad}
    return Capabilities(
        name="nion usim" if config.usim else "nion",
        simulated=config.usim,
        axes=(
            *axes,
            Axis(name="c12_nm", maximum=config.max_c12_nm, tolerance=0.01),
            Axis(name="phi12_deg", minimum=-90.0, maximum=90.0, tolerance=0.1),
            *(Axis(name=name, minimum=value, maximum=value) for name, value in fixed.items()),
            *_scan_axes(config),
        ),
        modes=(_scan_mode(config), *_camera_modes(config)),
        stop_latency_s=config.stop_latency_s,
        reports_dose=False,
        reports_limits=False,
        quirks=_quirks(config),
    )


def _scan_axes(config: NionConfig) -> tuple[Axis, ...]:
    longest_us = max([config.max_dwell_us, *(camera.max_exposure_s * 1e6 for camera in config.cameras.values())])
    return (
        Axis(
            name="field_of_view_nm",
            minimum=0.01,  # of a beam that stands still; a scan's is in the configuration
            maximum=config.max_field_of_view_nm,
            frame="scan",
        ),
        Axis(name="pixel_size_nm", minimum=1e-4, maximum=config.max_field_of_view_nm, frame="scan"),
        Axis(name="dwell_time_us", minimum=0.1, maximum=longest_us, frame="scan"),
        Axis(name="flyback_time_us", minimum=0.0, maximum=1000.0, frame="scan"),
        Axis(name="rotation_deg", frame="scan"),
        Axis(name="subframe_count", minimum=1.0, maximum=64.0, frame="scan"),
    )


def _scan_mode(config: NionConfig) -> Mode:
    detectors = (
        Detector(name=name, raw_counts=False, offset_counts=SCAN_OFFSET, without_references=_NOT_RAW)
        for name in config.channels
    )
    return Mode(name=config.scan_mode, kind="stem", detectors=tuple(detectors))


def _camera_modes(config: NionConfig) -> tuple[Mode, ...]:
    return tuple(
        Mode(
            name=name,
            kind=camera.kind,
            detectors=(
                Detector(
                    name=name,
                    gain_counts_per_electron=camera.counts_per_electron,
                    offset_counts=CAMERA_OFFSET,
                    raw_counts=False,
                    without_references=_NOT_RAW,
                    shape_px=camera.shape_px,
                ),
            ),
        )
        for name, camera in config.cameras.items()
    )


def _quirks(config: NionConfig) -> tuple[str, ...]:
    always = (
        "Nion Swift has no limits: those of its axes are the configuration's, and the adapter refuses by them",
        (
            f"images are floats, also below zero: delivered as {UNITS_PER_SCAN_VALUE:g} per unit of the scan plus "
            f"{SCAN_OFFSET:g}, and as counts plus {CAMERA_OFFSET:g} of a camera"
        ),
        "a camera is read with the beam standing still: scan.shape_px (1, 1), dwell_time_us its exposure",
    )
    if not config.usim:
        return always
    return (
        *always,
        "blank: the simulated scan does not darken, and shows neither current nor focus; its Ronchigram does",
        "the simulated EELS camera shows neither current nor blanking",
        "the simulated Ronchigram is empty at a defocus of exactly 0 nm, which is refused",
        "the simulated detectors scatter by a fixed amount, not as electrons do; MAADF is HAADF with other noise",
        "frames of one place and one state differ in noise, which no seed fixes",
    )
