"""From what the devices said to a state and a frame: house units, raw counts, and what nobody can tell.

Neighbour: `microscope`, which asks the devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from instruments.adapters.clocks import offset_of, with_clocks
from instruments.adapters.ophyd.config import ModeConfig, OphydConfig
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed
from instruments.frames import Frame
from instruments.optics import Aberrations, Optics
from instruments.scans import StagePosition
from instruments.state import AxisReading, ClockOffset, MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons

BLANKER: Final = "$blanker"
CURRENT: Final = "$current"
SHIFTS: Final = ("beam_shift_x_nm", "beam_shift_y_nm")
_NO_STAMP: Final = "no device changed for the frame whose server stamps its values with the time"
_IN_FIELDS: Final = {*StagePosition.model_fields, *Optics.model_fields, *Aberrations.model_fields, *SHIFTS}


def state_of(
    read: Mapping[str, AxisValue], config: OphydConfig, card: Capabilities,
    *, wanted: Mapping[str, AxisValue], mode: str | None, time_s: float,
) -> MicroscopeState:  # fmt: skip
    """The state, from every axis in house units and the blanker's and the current's device values."""
    current, blanker = config.measured_current_pa, config.blanker
    measured_pa = float(current.to_house(read[CURRENT])) if current and CURRENT in read else None
    others = [name for name in read if name not in _IN_FIELDS and name not in (BLANKER, CURRENT)]
    return MicroscopeState(
        time_s=time_s,
        stage=StagePosition.model_validate({name: read[name] for name in StagePosition.model_fields if name in read}),
        beam_shift_x_nm=float(read.get("beam_shift_x_nm", 0.0)),
        beam_shift_y_nm=float(read.get("beam_shift_y_nm", 0.0)),
        optics=_optics(read, config, card, mode),
        measured_current_pa=measured_pa,
        mode=mode,
        beam_blanked=blanker is None or read[BLANKER] == blanker.blanked,
        undetermined=_undetermined(config, mode),
        axes={
            name: AxisReading(read_back=read[name], requested=wanted.get(name), tolerance=tolerance(card, name))
            for name in others
        },
    )


def tolerance(card: Capabilities, name: str) -> float:
    """How far this axis' read-back may be off."""
    axis = card.axis(name)
    return axis.allowed_error if axis else 0.0


def is_reached(card: Capabilities, name: str, wanted: AxisValue, read_back: AxisValue | None) -> bool:
    """Whether an axis was read back where it was sent; an axis that cannot be read counts as there."""
    reading = AxisReading(requested=wanted, read_back=read_back, tolerance=tolerance(card, name))
    return reading.is_reached is not False


def _optics(read: Mapping[str, AxisValue], config: OphydConfig, card: Capabilities, mode: str | None) -> Optics:
    values: dict[str, Any] = {name: read[name] for name in Optics.model_fields if name in read}
    values["aberrations"] = {name: read[name] for name in Aberrations.model_fields if name in read}
    current_mode = card.mode(mode or "")
    if current_mode is not None:
        values.setdefault("camera_length_mm", current_mode.camera_length_mm)
    if not config.has_beam:
        values = {"beam_energy_ev": 1.0, "semi_convergence_angle_mrad": 0.0} | values
    return Optics.model_validate(values)


def _undetermined(config: OphydConfig, mode: str | None) -> dict[str, str]:
    fields = {"coherence": "no device tells it"}
    for name, axis in config.axes.items():
        if axis.fixed is not None:
            field = f"optics.{name}" if name in Optics.model_fields else name
            fields[field] = "declared by the facility, not read back"
    if not config.has_beam:
        fields |= {"optics": "there is no beam; its numbers mean nothing", "beam_blanked": "there is no beam"}
    if config.measured_current_pa is None:
        fields["measured_current_pa"] = "no device measures it"
    if mode is None:
        fields["mode"] = "no frame was taken yet"
    return fields


def _clocks(clock: Mapping[str, Any] | None) -> dict[str, ClockOffset]:
    if clock is None:
        return {}
    return {clock["device"]: offset_of(clock["told_s"], clock["asked_s"], clock["answered_s"])}


def frame_of(
    command: AcquireFrame, counts: dict[str, np.ndarray], state: MicroscopeState, config: OphydConfig,
    *, times: Mapping[str, Any], versions: dict[str, str], started_s: float,
) -> Frame:  # fmt: skip
    """The frame; its electrons are the current times all the time that the beam was on for it."""
    current_pa = state.measured_current_pa
    if current_pa is None:
        current_pa = command.optics.probe_current_pa if config.has_beam else 0.0
    duration_s = command.scan.duration_s(command.subframe_count)
    state = with_clocks(state, _clocks(times.get("clock")), _NO_STAMP)
    return Frame(
        action_id=command.action_id,
        requested=command,
        state=state,
        mode=config.modes[command.mode].as_mode(command.mode),
        counts=counts,
        pixel_size_nm=command.scan.pixel_size_nm,
        dose_e_per_a2=electrons(current_pa, duration_s) / (command.scan.area_nm2 * ANGSTROM2_PER_NM2),
        electrons=electrons(current_pa, max(duration_s, times["open_s"])),
        started_s=started_s,
        ended_s=state.time_s,
        instrument=config.label,
        simulated=config.simulated,
        context={
            "instrument": {"name": config.label, "vendor": "ophyd", "devices": config.devices},
            "is_simulation": config.simulated,
            "software": versions,
            "beam_open_s": times["open_s"],
            "trigger_s": times["trigger_s"],
            "calibrations": [],
        },
    )


def raw_counts(name: str, values: np.ndarray, mode: ModeConfig, command: AcquireFrame) -> np.ndarray:
    """Counts as (sub-frames, rows, columns) unsigned integers. Raises AcquisitionFailed for what are none."""
    shape = (command.subframe_count, *command.scan.shape_px)
    dtype, wanted = np.dtype(mode.dtype), int(np.prod(shape))
    is_4d = mode.kind == "4d_stem" and values.size > wanted and values.size % wanted == 0 and values.ndim >= 2
    if values.size != wanted and not is_4d:
        raise AcquisitionFailed(f"{name} gave {values.size} values; {shape} (sub-frames, rows, columns) were exposed")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > np.iinfo(dtype).max:
        raise AcquisitionFailed(f"{name} gave values from {values.min():g} to {values.max():g}; raw counts are {dtype}")
    counts = values.astype(dtype)
    if values.dtype.kind == "f" and not np.array_equal(counts, values):
        raise AcquisitionFailed(f"{name} gave parts of counts; name the detector's raw counts, no normalised image")
    return counts.reshape((*shape, *values.shape[-2:]) if is_4d else shape)
