"""What a temscript server reads back, as the state of a microscope, and with counts as a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import pi
from typing import Any, Final

import numpy as np

from instruments.adapters.temscript_card import ServerFacts
from instruments.adapters.temscript_exposure import Shot, together
from instruments.axes import STAGE_AXES
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import CommandRefused
from instruments.frames import Frame
from instruments.optics import Optics
from instruments.scans import ScanPattern, StagePosition
from instruments.state import AxisReading, ColumnState, MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2

_PA_PER_A: Final = 1e12
_MBAR_PER_PA: Final = 1e-2
_IN_FIELDS: Final = frozenset(
    (*STAGE_AXES, "beam_shift_x_nm", "beam_shift_y_nm", "defocus_nm", "tilt_x_mrad", "tilt_y_mrad")
)  # fmt: skip
_NOT_TOLD: Final = {"coherence": "the server does not tell"}


def state_of(
    told: Mapping[str, Any],
    vacuum: Mapping[str, Any],
    values: Mapping[str, AxisValue],
    *,
    facts: ServerFacts,
    capabilities: Capabilities,
    convergence_mrad: float,
    mode: str | None,
    time_s: float,
) -> MicroscopeState:
    """The state now; `convergence_mrad` and `mode` are those of the last frame, for the server tells neither."""
    undetermined = dict(_NOT_TOLD)
    settable = {axis.name for axis in capabilities.axes}

    def number(name: str, reason: str) -> float:
        """What the optics are at; 0 with the reason where this adapter has no say over it."""
        if name in settable and name in values:
            return float(values[name])
        undetermined[f"optics.{name}"] = reason
        return 0.0

    unset = "no limits are configured, so it stays as the operator left it"
    convergence = values.get("semi_convergence_angle_mrad")
    if convergence is None:
        undetermined["optics.semi_convergence_angle_mrad"] = "the server does not tell; it is what was commanded"
    undetermined["optics.probe_current_pa"] = "declared in the configuration, not read"
    current_pa = _screen_current_pa(told, undetermined)
    if mode is None:
        undetermined["mode"] = "no frame was taken yet"
    current = capabilities.axis("probe_current_pa")
    return MicroscopeState(
        time_s=time_s,
        stage=StagePosition(**{name: float(values.get(name, 0.0)) for name in STAGE_AXES}),
        beam_shift_x_nm=float(values.get("beam_shift_x_nm", 0.0)),
        beam_shift_y_nm=float(values.get("beam_shift_y_nm", 0.0)),
        optics=Optics(
            beam_energy_ev=float(told["voltage(kV)"]) * 1e3 or facts.beam_energy_ev,
            semi_convergence_angle_mrad=convergence_mrad if convergence is None else float(convergence),
            probe_current_pa=current.minimum if current else 0.0,
            defocus_nm=number("defocus_nm", unset),
            tilt_x_mrad=number("tilt_x_mrad", unset),
            tilt_y_mrad=number("tilt_y_mrad", unset),
        ),
        measured_current_pa=current_pa,
        mode=mode,
        beam_blanked=bool(told["beam_blanked"]),
        undetermined=undetermined,
        axes={name: AxisReading(read_back=value) for name, value in values.items() if name not in _IN_FIELDS},
        column=ColumnState(
            holder=str(told.get("stage_holder")),
            vacuum_mbar=_gauges(vacuum),
            current_method=None if current_pa is None else "fluorescent screen",
            current_measured_at=None if current_pa is None else datetime.now(UTC),
        ),
    )


def frame_of(
    command: AcquireFrame,
    shot: Shot,
    counts: dict[str, np.ndarray],
    *,
    state: MicroscopeState,
    capabilities: Capabilities,
    facts: ServerFacts,
    electrons: float,
    started_s: float,
) -> Frame:
    """The frame that came of a shot, with its conditions as read back after it."""
    mode = capabilities.mode(command.mode)
    if mode is None:
        raise CommandRefused(f"mode {command.mode!r} is none of this instrument's")
    if shot.camera_length_mm is not None:  # read back before it was exposed
        optics = state.optics.model_copy(update={"camera_length_mm": shot.camera_length_mm})
        state = state.model_copy(update={"optics": optics})
    return Frame(
        action_id=command.action_id,
        requested=command,
        state=state,
        mode=mode,
        counts=counts,
        pixel_size_nm=shot.pixel_size_nm,
        dose_e_per_a2=electrons / (_lit_nm2(command.scan) * ANGSTROM2_PER_NM2),
        electrons=electrons,
        started_s=started_s,
        ended_s=state.time_s,
        instrument=capabilities.name,
        simulated=capabilities.simulated,
        context={
            "instrument": {
                "name": capabilities.name,
                "vendor": facts.family,
                "serial": facts.microscope_id,
                "holder": facts.holder,
            },
            "is_simulation": facts.is_simulated,
            "software": {"temscript": facts.version},
            "detectors": together(shot.settings),
        },
    )


def _lit_nm2(scan: ScanPattern) -> float:
    """The area the electrons fall on."""
    return scan.area_nm2 if scan.illuminated_nm is None else pi * (scan.illuminated_nm / 2) ** 2


def _screen_current_pa(told: Mapping[str, Any], undetermined: dict[str, str]) -> float | None:
    if told.get("screen_position") == "DOWN" and not told["beam_blanked"]:
        return float(told["screen_current"]) * _PA_PER_A
    undetermined["measured_current_pa"] = "the current is read on the screen alone: lowered, and the beam not blanked"
    return None


def _gauges(vacuum: Mapping[str, Any]) -> dict[str, float]:
    told: Mapping[str, Any] = vacuum.get("gauges(Pa)", {})
    return {name: value * _MBAR_PER_PA for name, value in told.items() if isinstance(value, int | float)}
