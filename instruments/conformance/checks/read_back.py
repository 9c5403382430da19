"""Whether what was asked for is what is read back, in frames and of axes that are set alone.

Neighbour: `without_frames`, which sets axes aside and back.
"""

from __future__ import annotations

from typing import Final

from instruments.capabilities import Axis
from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.checks.without_frames import read_back_of_axes
from instruments.conformance.findings import Measured
from instruments.conformance.frames import Shot
from instruments.errors import CommandRefused, Unsupported
from instruments.frames import Frame

_READ_BACK: Final = (
    "x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg", "beam_shift_x_nm", "beam_shift_y_nm", "defocus_nm",
    "beam_energy_ev", "semi_convergence_angle_mrad",
)  # fmt: skip
_ALONE: Final = ("x_nm", "y_nm", "defocus_nm")
_SHIFTED: Final[tuple[Shot, ...]] = ("shift_x", "shift_y", "still")
_SENT: Final[tuple[Shot, ...]] = ("stage_x", "stage_y", "stage_still")


def _read_back(bench: Bench) -> Result:
    if not bench.capabilities.modes:
        return read_back_of_axes(bench)
    measured: list[Measured] = []
    faults: list[str] = []
    for shot in _read_back_shots(bench):
        frame, command = bench.frame(shot), bench.asked(shot)
        asked = {**dict(command.stage), **dict(command.optics), **dict(command.scan)}
        found = [one for name in _READ_BACK if (one := _compared(bench, frame, name, asked[name])) is not None]
        faults += [
            f"{one.name} {asked[one.name]:g} was asked for, {one.value:g} read back"
            for one in found
            if not one.is_within
        ]
        measured += [one for one in found if not one.is_within or one.name not in {other.name for other in measured}]
    if faults:
        return failed("; ".join(dict.fromkeys(faults)), *measured)
    if fault := _set_alone(bench):
        return failed(fault, *measured)
    if not measured:
        raise CannotJudge("this instrument declares no axis that is read back with a frame")
    return passed(f"{len(measured)} axes were read back as asked for, within what each declares", *measured)


def _set_alone(bench: Bench) -> str:
    """What is wrong with axes that are set without a frame, where they can be; empty: nothing."""
    try:
        alone = read_back_of_axes(bench, _ALONE)
    except (CannotJudge, CommandRefused, Unsupported):
        return ""
    return "" if alone.is_right else f"set without a frame, {alone.found}"


def _read_back_shots(bench: Bench) -> list[Shot]:
    """Those that are there without more exposures than are made for the images of moves."""
    moved = [("beam_shift_x_nm", _SHIFTED), ("x_nm", _SENT)]
    shots: list[Shot] = [shot for name, group in moved if _moves(bench.capabilities.axis(name)) for shot in group]
    return [shot for shot in shots if bench.why_none(shot) is None] or ["still"]


def _compared(bench: Bench, frame: Frame, name: str, asked: float) -> Measured | None:
    """An axis as it was read back, with the bounds that it declares; None where nobody can tell."""
    axis, value = bench.capabilities.axis(name), frame.state.axis_value(name)
    is_known = not any(key.rpartition(".")[2] == name for key in frame.state.undetermined)
    if axis is None or not is_known or value is None or isinstance(value, str):
        return None
    slack = axis.allowed_error + 1e-9 * max(1.0, abs(asked))
    return Measured(name=name, value=value, low=asked - slack, high=asked + slack)


def _moves(axis: Axis | None) -> bool:
    return axis is not None and axis.minimum < axis.maximum


READ_BACK = Check(
    name="read_back",
    does="compares what was asked for with what was read back in frames taken with beam and stage moved; then, the "
    "beam blanked, sets stage and defocus a little aside and back",
    cure="read the values back from the instrument, in house units; declare the tolerance of each axis",
    run=_read_back,
    shots=("shift_x", "still", "shift_y", "stage_x", "stage_still", "stage_y"),
)
