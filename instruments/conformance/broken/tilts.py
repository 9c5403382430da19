"""Stages that do not tilt as they are told, on any good microscope that tilts: the check `stage_tilt` finds each."""

from __future__ import annotations

from collections.abc import Callable
from math import radians
from typing import Final

from instruments.commands import AxisValue, Command, SetAxes
from instruments.conformance.broken.altered import Altered, Ways
from instruments.microscope import Microscope
from instruments.state import MicroscopeState

_TILTS: Final = ("alpha_deg", "beta_deg")
Change = Callable[[float], float]


def _sent_otherwise(change: Change) -> Ways:
    """Tilts are sent to another place than asked for, and read back where they are."""

    def execute(microscope: Microscope, command: Command) -> MicroscopeState:
        if isinstance(command, SetAxes):
            values = {name: _changed(name, value, change) for name, value in command.values.items()}
            command = command.model_copy(update={"values": values})
        return microscope.execute(command)

    return Ways(execute=execute)


def _changed(name: str, value: AxisValue, change: Change) -> AxisValue:
    return change(value) if name in _TILTS and not isinstance(value, str) else value


def _crossed() -> Ways:
    other: dict[str, str] = dict(zip(_TILTS, reversed(_TILTS), strict=True))

    def execute(microscope: Microscope, command: Command) -> MicroscopeState:
        if isinstance(command, SetAxes):
            values = {other.get(name, name): value for name, value in command.values.items()}
            command = command.model_copy(update={"values": values})
        return microscope.execute(command)

    return Ways(execute=execute)


def _read_in_radians() -> Ways:
    def read(state: MicroscopeState) -> MicroscopeState:
        tilts = {name: radians(getattr(state.stage, name)) for name in _TILTS}
        return state.model_copy(update={"stage": state.stage.model_copy(update=tilts), "axes": {}})

    return Ways(
        read_state=lambda microscope: read(microscope.read_state()),
        execute=lambda microscope, command: read(microscope.execute(command)),
    )


TILT_FAULTS: Final[dict[str, tuple[Callable[[], Ways], str]]] = {
    "stuck": (lambda: _sent_otherwise(lambda _: 0.0), "did not tilt"),
    "wrong_sign": (lambda: _sent_otherwise(lambda deg: -deg), "sign is wrong"),
    "radians_sent": (lambda: _sent_otherwise(radians), "radians are mixed up: it went too little"),
    "radians_read": (_read_in_radians, "radians are mixed up: it went too little"),
    "crossed": (_crossed, "did not tilt; alpha_deg was tilted, and beta_deg went from 0 to 2"),
}
"""By name: what goes otherwise, and what the finding must say."""


def tilting_wrong(name: str) -> Callable[[Microscope], Microscope]:
    """Breaks microscopes so. Raises KeyError."""
    ways, _ = TILT_FAULTS[name]
    return lambda inner: Altered(inner, ways())
