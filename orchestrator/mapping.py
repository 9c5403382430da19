"""From a suggested point to the command a microscope takes: a pure function of the point and the spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instruments import AcquireFrame, Capabilities, Optics, ScanPattern, StagePosition, deadline_for
from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec

POINT_KEYS = (
    "purpose", "x_nm", "y_nm", "field_of_view_nm", "pixel_size_nm", "mode", "dwell_time_us", "probe_current_pa",
    "defocus_nm",
)  # fmt: skip


def stage_for(x_nm: float, y_nm: float, beam_shift_limit_nm: float) -> StagePosition:
    """Stage position from which (x, y) is reached: the origin as long as the beam shift reaches, else a coarse grid.

    The grid has 1.6 times the beam-shift limit, so neighbouring targets share a stage position and no move is wasted.
    """
    if max(abs(x_nm), abs(y_nm)) <= beam_shift_limit_nm:
        return StagePosition()
    step_nm = 1.6 * beam_shift_limit_nm
    if step_nm == 0:
        return StagePosition(x_nm=x_nm, y_nm=y_nm)
    return StagePosition(x_nm=round(x_nm / step_nm) * step_nm, y_nm=round(y_nm / step_nm) * step_nm)


def subframes_for(dwell_time_us: float, wanted: int, shortest_us: float) -> int:
    """As many sub-frames as wanted, as long as each keeps the shortest dwell."""
    return max(1, min(wanted, int(dwell_time_us / shortest_us + 1e-9)))


def beam_shift_limit_nm(capabilities: Capabilities) -> float:
    """How far the beam can be shifted in every direction; 0 where it cannot."""
    axes = [capabilities.axis(name) for name in ("beam_shift_x_nm", "beam_shift_y_nm")]
    return min(min(abs(axis.minimum), abs(axis.maximum)) if axis else 0.0 for axis in axes)


def command_for(
    point: Mapping[str, Any], spec: ExperimentSpec, capabilities: Capabilities, action_id: str
) -> AcquireFrame:
    """The command of a point; without a `mode`, in the instrument's first.

    Raises SpecError for a point that lacks a value or asks for too many pixels.
    """
    values: dict[str, Any] = {**spec.instrument.fixed, **point}
    if capabilities.modes:
        values.setdefault("mode", capabilities.modes[0].name)
    missing = [key for key in POINT_KEYS if key not in values and key != "purpose"]
    if missing:
        raise SpecError(
            f"the point lacks {', '.join(missing)}; "
            "add them to search_space or to instrument.fixed (a value for all frames)"
        )
    scan = spec.instrument.scan
    columns = max(1, round(values["field_of_view_nm"] / values["pixel_size_nm"]))
    if columns > scan.max_shape_px:
        raise SpecError(
            f"{columns} px a side is above instrument.scan.max_shape_px {scan.max_shape_px} px; "
            f"choose a larger pixel_size_nm than {values['pixel_size_nm']:g} nm or a smaller field"
        )
    count = subframes_for(values["dwell_time_us"], scan.subframe_count, scan.min_subframe_dwell_us)
    stage = stage_for(values["x_nm"], values["y_nm"], beam_shift_limit_nm(capabilities))
    mode = capabilities.mode(values["mode"])
    pattern = ScanPattern(
        field_of_view_nm=columns * values["pixel_size_nm"],
        shape_px=(columns, columns),
        dwell_time_us=values["dwell_time_us"] / count,
        flyback_time_us=scan.flyback_time_us,
        rotation_deg=scan.rotation_deg,
        beam_shift_x_nm=values["x_nm"] - stage.x_nm,
        beam_shift_y_nm=values["y_nm"] - stage.y_nm,
        at_once=mode is not None and mode.is_at_once,
    )
    nominal = spec.instrument.optics
    optics = Optics(
        beam_energy_ev=nominal.beam_energy_ev,
        semi_convergence_angle_mrad=nominal.semi_convergence_angle_mrad,
        probe_current_pa=values["probe_current_pa"],
        defocus_nm=values["defocus_nm"],
        aberrations=nominal.aberrations,
        camera_length_mm=mode.camera_length_mm if mode else None,
    )
    command = AcquireFrame(
        action_id=action_id,
        deadline_s=120.0 + 3 * pattern.duration_s(count),
        stage=stage,
        optics=optics,
        scan=pattern,
        mode=values["mode"],
        subframe_count=count,
        purpose=str(values.get("purpose", "frame")),
    )
    longest_s = deadline_for(command, capabilities)  # where axes settle for minutes
    return command if longest_s <= command.deadline_s else command.model_copy(update={"deadline_s": longest_s})
