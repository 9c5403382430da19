"""Faults of what a frame holds and says: numbers, names, times, and which way up it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from instruments.commands import AcquireFrame, SetAxes
from instruments.conformance.broken.altered import Ways, delivered_otherwise
from instruments.frames import Frame
from instruments.microscope import Microscope
from instruments.state import MicroscopeState

_EPOCH_S = 1.7e9


def _counted(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Ways]:
    def altered(frame: Frame) -> Frame:
        return replace(frame, counts={name: change(counts) for name, counts in frame.counts.items()})

    return lambda: delivered_otherwise(altered)


copied = _counted(lambda counts: np.repeat(counts[:1], len(counts), axis=0))
"""Every sub-frame is the first."""

cut = _counted(lambda counts: np.minimum(counts, 255))
"""Eight bits, in sixteen."""

mirrored = _counted(lambda counts: counts[:, ::-1])
"""The last row comes first."""


def other_clock() -> Ways:
    """A frame's times are by the clock of another computer than its state's."""
    return delivered_otherwise(
        lambda frame: replace(frame, started_s=frame.started_s + _EPOCH_S, ended_s=frame.ended_s + _EPOCH_S)
    )


def other_id() -> Ways:
    """Frames are numbered, whatever they were asked for as."""
    return delivered_otherwise(lambda frame: replace(frame, action_id="frame 1"))


def no_frame() -> Ways:
    """The frame is written to a file, and nothing is given."""

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        microscope.acquire(command)
        return None  # pyright: ignore[reportReturnType]  that is the fault

    return Ways(acquire=acquire)


def never_turned() -> Ways:
    """The scan's rotation is checked, and not sent."""

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        axis = microscope.capabilities().axis("rotation_deg")
        if axis is None or axis.refusal(command.scan.rotation_deg) is not None:
            return microscope.acquire(command)
        straight = command.scan.model_copy(update={"rotation_deg": 0.0})
        return replace(microscope.acquire(command.model_copy(update={"scan": straight})), requested=command)

    return Ways(acquire=acquire)


def late_read_back() -> Ways:
    """A frame tells of the beam shift of the frame before."""
    last: list[MicroscopeState] = []

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        frame = microscope.acquire(command)
        last.append(frame.state)
        before = last[-2] if len(last) > 1 else frame.state
        old = {name: getattr(before, name) for name in ("beam_shift_x_nm", "beam_shift_y_nm")}
        return replace(frame, state=frame.state.model_copy(update=old))

    return Ways(acquire=acquire)


def set_by_word() -> Ways:
    """Axes that are set alone are said to be there, and nothing is sent."""

    def execute(microscope: Microscope, command: object) -> MicroscopeState:
        if not isinstance(command, SetAxes):
            return microscope.execute(command)  # pyright: ignore[reportArgumentType]
        card = microscope.capabilities()
        card.check_values(command.values)
        return microscope.read_state().with_readings(command.values, card)

    return Ways(execute=execute)


def says_lit() -> Ways:
    """It blanks, and reads back that it did not."""

    def lit(state: MicroscopeState) -> MicroscopeState:
        return state.model_copy(update={"beam_blanked": False})

    return Ways(
        read_state=lambda microscope: lit(microscope.read_state()),
        execute=lambda microscope, command: lit(microscope.execute(command)),
    )
