"""What the twin can do and what it refuses; limits are those of its configuration."""

from __future__ import annotations

from typing import Final

from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.commands import AcquireFrame, AxisValue, Park, RunProcedure, SetAxes
from instruments.errors import CommandRefused, Unsupported
from instruments.optics import Aberrations
from instruments.scans import ScanPattern
from simulation.world.at_once import CAMERA_LENGTH_MM, LIT_NM, MAX_DWELL_US, modes_at_once, refuse_at_once
from simulation.world.config import SimulatedConfig
from simulation.world.fittings import FLASH, Fittings, fitted_axes, setting_refusal

_DETECTORS = {"maadf": (40.0, 100.0), "bf": (0.0, 10.0), "haadf": (80.0, 200.0), "abf": (16.0, 31.0)}
_MODES = {"maadf": (160.0, ("maadf", "bf")), "haadf": (80.0, ("haadf", "abf"))}
_ABERRATION_LIMITS_NM = {"c12_nm": 100.0, "c21_nm": 2000.0, "c23_nm": 2000.0, "c30_nm": 1e4}
_FITTED_ABERRATION_LIMITS_NM = {
    **dict.fromkeys(("c32_nm", "c34_nm"), 2e3),
    **dict.fromkeys(("c41_nm", "c43_nm", "c45_nm"), 2e4),
    **dict.fromkeys(("c50_nm", "c52_nm", "c54_nm", "c56_nm"), 2e6),
}
_AZIMUTHS = tuple(name for name in Aberrations.model_fields if name.startswith("phi"))
_MAX_FRAME_PX = 2**26
_BEAM_TILTS = ("tilt_x_mrad", "tilt_y_mrad")
CAMERA_LENGTH: Final = "camera_length_mm"
_FITTED_QUIRKS = (
    "heat, strain and bias move places under the beam; the lattice itself is not deformed",
    "where lines wait for the mains the beam is blanked meanwhile",
    "the screen, lowered, keeps electrons from every detector and not from the specimen",
    "a parallel beam sees elastic scattering alone, and contamination as a phase; its beam has no angular spread",
)
READING_STDS = 3.0  # errors of a current reading end there, so none exceeds what is declared


def modes(config: SimulatedConfig) -> tuple[Mode, ...]:
    """Sets of detectors read together: a long camera with MAADF and BF, a short one with HAADF and ABF.

    With fittings also a parallel beam's image and diffraction pattern.
    """
    gain = config.quantum_efficiency
    scanned = tuple(
        Mode(
            name=name,
            camera_length_mm=camera_length_mm,
            detectors=tuple(
                Detector(
                    name=detector,
                    inner_mrad=_DETECTORS[detector][0],
                    outer_mrad=_DETECTORS[detector][1],
                    gain_counts_per_electron=gain,
                    without_references="single electrons are counted: no dark counts, one gain for all pixels",
                )
                for detector in detectors
            ),
        )
        for name, (camera_length_mm, detectors) in _MODES.items()
    )
    return (*scanned, *modes_at_once(gain)) if config.fittings else scanned


def card(config: SimulatedConfig) -> Capabilities:
    """The capabilities of this configuration."""
    stage, shift = config.stage_range_nm, config.beam_shift_range_nm
    defocus = config.defocus_range_nm
    lengths_mm = [length for length, _ in _MODES.values()] + [CAMERA_LENGTH_MM] * config.fittings
    longest_us = max(config.max_dwell_time_us, MAX_DWELL_US) if config.fittings else config.max_dwell_time_us
    energy, angle = config.beam_energy_ev, config.semi_convergence_angle_mrad
    axes = [
        Axis(name="x_nm", minimum=-stage, maximum=stage, settle_s=config.stage_move_s, frame="stage"),
        Axis(name="y_nm", minimum=-stage, maximum=stage, settle_s=config.stage_move_s, frame="stage"),
        *(_tilting_axes(config) if config.fittings else ()),
        *(Axis(name=name, minimum=-30, maximum=30) for name in _BEAM_TILTS if config.fittings),
        *(
            Axis(name=name, minimum=-shift, maximum=shift, settle_s=config.beam_shift_settle_s, frame="beam_shift")
            for name in ("beam_shift_x_nm", "beam_shift_y_nm")
        ),
        Axis(name="defocus_nm", minimum=-defocus, maximum=defocus, resolution=0.5),
        Axis(
            name="probe_current_pa",
            minimum=config.min_current_pa,
            maximum=config.max_current_pa,
            resolution=1.0,
            settle_s=config.current_change_s,
        ),
        Axis(
            name="camera_length_mm",
            minimum=min(lengths_mm),
            maximum=max(lengths_mm),
            settle_s=config.camera_length_change_s,
        ),
        Axis(name="beam_energy_ev", minimum=energy, maximum=energy),
        Axis(name="semi_convergence_angle_mrad", minimum=angle / 2 if config.fittings else angle, maximum=angle),
        *_aberration_axes(config),
        Axis(name="field_of_view_nm", minimum=0.2, maximum=1000, frame="scan"),
        Axis(name="pixel_size_nm", minimum=1e-3, maximum=5, frame="scan"),
        Axis(name="dwell_time_us", minimum=config.min_dwell_time_us, maximum=longest_us, frame="scan"),
        Axis(name="flyback_time_us", minimum=0, maximum=10_000, frame="scan"),
        Axis(name="rotation_deg", minimum=-360, maximum=360, frame="scan"),
        Axis(name="subframe_count", minimum=1, maximum=256, resolution=1, frame="scan"),
        Axis(name="frame_px", minimum=1, maximum=_MAX_FRAME_PX, resolution=1, frame="scan"),
        Axis(name="park_s", minimum=0, maximum=3600, frame="beam_shift"),
    ]
    return Capabilities(
        name="simulated",
        simulated=True,
        axes=(*axes, *(fitted_axes(modes(config)) if config.fittings else ())),
        modes=modes(config),
        procedures=(FLASH,) if config.fittings else (),
        can_interrupt=True,
        stop_latency_s=0.1,
        blanker_settle_s=config.blanker_settle_us * 1e-6,
        flyback_exposes=True,
        current_uncertainty_fraction=READING_STDS * config.current_reading_fraction,
        height_error_nm=config.eucentric_error_nm,
        quirks=(
            *_stage_quirks(config),
            "emission decays between flashes; the current read back follows it",
            "below 1 us dwell lines jitter and detectors glow on",
            *((*_FITTED_QUIRKS, *_tilting_quirks(config)) if config.fittings else ()),
        ),
    )


def _aberration_axes(config: SimulatedConfig) -> tuple[Axis, ...]:
    """A few magnitudes; fitted all of them, and their azimuths."""
    limits = _ABERRATION_LIMITS_NM | (_FITTED_ABERRATION_LIMITS_NM if config.fittings else {})
    turning = _AZIMUTHS if config.fittings else ()
    return (
        *(Axis(name=name, minimum=-limit, maximum=limit) for name, limit in limits.items()),
        *(Axis(name=name, minimum=-180, maximum=180) for name in turning),
    )


def _tilting_axes(config: SimulatedConfig) -> tuple[Axis, ...]:
    """Height and tilts, which a fitted stage has."""
    height, tilt, settle_s = config.height_range_nm, config.tilt_range_deg, config.stage_move_s
    rate = config.tilt_speed_deg_per_s
    return (
        Axis(name="z_nm", minimum=-height, maximum=height, settle_s=settle_s, frame="stage"),
        *(
            Axis(name=name, minimum=-tilt, maximum=tilt, settle_s=settle_s, rate_per_s=rate, frame="stage")
            for name in ("alpha_deg", "beta_deg")
        ),
    )


def _tilting_quirks(config: SimulatedConfig) -> tuple[str, ...]:
    error_nm = config.eucentric_error_nm
    aside = f"the specimen lies up to {error_nm:g} nm above or below the tilt axis, so tilting moves images"
    return ((aside,) if error_nm else ()) + ("what covers the specimen is drawn at one height where it leans",)


def _stage_quirks(config: SimulatedConfig) -> tuple[str, ...]:
    """What the conformance check `stage_motion` is told of residual errors of a move, where there are any."""
    low_nm, high_nm = config.backlash_min_nm, config.backlash_max_nm
    return (f"stage_motion: a stage move ends {low_nm:g} to {high_nm:g} nm off, not read back",) if high_nm else ()


def refuse_frame(command: AcquireFrame, card: Capabilities, config: SimulatedConfig, fittings: Fittings) -> None:
    """Raise CommandRefused naming the value, its range and unit if this instrument cannot do `command`.

    Unsupported where it has no such axis at all.
    """
    mode = _mode_of(command, card)
    stage, optics, scan = command.stage, command.optics, command.scan
    _refuse_other_way(scan, mode)
    rows, columns = scan.shape_px
    if rows < 1 or columns < 1:
        raise CommandRefused(f"scan shape {rows} x {columns} px has no pixels; give at least 1 x 1")
    for name in ("x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg"):
        _check(card, name, getattr(stage, name))
    for name in (
        "defocus_nm", "probe_current_pa", "beam_energy_ev", "semi_convergence_angle_mrad", "tilt_x_mrad", "tilt_y_mrad",
    ):  # fmt: skip
        _check(card, name, getattr(optics, name))
    for name in (
        "beam_shift_x_nm", "beam_shift_y_nm", "field_of_view_nm", "pixel_size_nm", "dwell_time_us", "flyback_time_us",
        "rotation_deg",
    ):  # fmt: skip
        _check(card, name, getattr(scan, name))
    if scan.illuminated_nm is not None and card.axis(LIT_NM) is not None:
        _check(card, LIT_NM, scan.illuminated_nm)
    _check(card, "subframe_count", command.subframe_count)
    _check(card, "frame_px", rows * columns * command.subframe_count)
    _refuse_aberrations(command, card)
    if mode.is_at_once:
        refuse_at_once(command, mode, fittings)
        return
    aside = [name for name in _BEAM_TILTS if getattr(optics, name)] + ["descan"] * any(fittings.descan_mrad())
    if aside:
        raise CommandRefused(
            f"{', '.join(aside)} is not 0: mode {mode.name!r} has images of a beam on the axis alone; set it to 0, or "
            "take a mode of a parallel beam"
        )
    if scan.dwell_time_us > config.max_dwell_time_us:
        raise CommandRefused(
            f"dwell time {scan.dwell_time_us:g} us of a scan is above {config.max_dwell_time_us:g} us; stay inside"
        )


def _refuse_aberrations(command: AcquireFrame, card: Capabilities) -> None:
    """Azimuths are free where they are no axes."""
    for name, value in command.optics.aberrations:
        if name.startswith("c") or card.axis(name) is not None:
            _check(card, name, value)


def _refuse_other_way(scan: ScanPattern, mode: Mode) -> None:
    if scan.at_once and not mode.is_at_once:
        raise CommandRefused(f"mode {mode.name!r} is scanned, not exposed at once; leave scan.at_once out")
    if mode.is_at_once and not scan.at_once:
        raise CommandRefused(f"mode {mode.name!r} is exposed at once, not scanned; set scan.at_once")


def _mode_of(command: AcquireFrame, card: Capabilities) -> Mode:
    mode = card.mode(command.mode)
    if mode is None:
        known = ", ".join(mode.name for mode in card.modes)
        raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {known}")
    length_mm = command.optics.camera_length_mm
    if length_mm is not None and length_mm != mode.camera_length_mm:
        raise CommandRefused(
            f"camera length {length_mm:g} mm is not mode {mode.name!r}'s {mode.camera_length_mm:g} mm; leave it out"
        )
    return mode


def refuse_park(command: Park, card: Capabilities) -> None:
    """The same for parking the beam."""
    _check(card, "beam_shift_x_nm", command.beam_shift_x_nm)
    _check(card, "beam_shift_y_nm", command.beam_shift_y_nm)
    _check(card, "park_s", command.duration_s)


def refuse_setting(command: SetAxes, card: Capabilities, *, is_blanked: bool) -> None:
    """The same for axes set without a frame; Unsupported for one there is not."""
    card.check_values(command.values)
    mode_of_length(card, "", command.values.get(CAMERA_LENGTH))
    if (refusal := setting_refusal(command.values)) is not None:
        raise CommandRefused(refusal)
    if not is_blanked:
        raise CommandRefused("the beam is not blanked and would burn while axes move; blank it first")


def mode_of_length(card: Capabilities, mode: str, length_mm: AxisValue | None) -> str:
    """The mode of a camera length, `mode` itself where it has that or none is asked for."""
    if length_mm is None:
        return mode
    names = [one.name for one in card.modes if one.camera_length_mm == length_mm]
    if not names:
        known = ", ".join(f"{one.camera_length_mm:g} ({one.name})" for one in card.modes if one.camera_length_mm)
        raise CommandRefused(f"camera_length_mm {length_mm} comes with no mode; choose one of {known} mm")
    return mode if mode in names else names[0]


def refuse_procedure(command: RunProcedure, card: Capabilities, *, is_blanked: bool) -> None:
    """Unsupported for a procedure there is not, CommandRefused under a lit beam."""
    if card.procedure(command.name) is None:
        known = ", ".join(procedure.name for procedure in card.procedures) or "none"
        raise Unsupported(f"the simulated microscope has no procedure {command.name!r}; it has {known}")
    if not is_blanked:
        raise CommandRefused("the beam is not blanked; blank it before the gun is flashed")


_NUMBERS: Final = {"subframe_count": "number of sub-frames", "frame_px": "number of pixels of all sub-frames"}


def _check(card: Capabilities, name: str, value: float) -> None:
    axis = card.axis(name)
    if axis is None and value != 0:
        raise Unsupported(f"instrument {card.name!r} has no axis {name}, so it stays at 0; leave it out")
    low, high = (axis.minimum, axis.maximum) if axis else (0.0, 0.0)
    quantity, _, unit = name.rpartition("_")
    if not low <= value <= high:
        if name in _NUMBERS:
            raise CommandRefused(
                f"{_NUMBERS[name]} ({name}) {value:.10g} is outside {low:.10g} to {high:.10g}; stay inside"
            )
        where = "stage " if axis and axis.frame == "stage" else ""
        raise CommandRefused(
            f"{where}{quantity.replace('_', ' ')} {value:g} {unit} is outside {low:g} to {high:g} {unit}; stay inside"
        )
