"""A microscope between the kit and a good one, which alters what goes through in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.errors import CommandRefused, Unsupported
from instruments.frames import Frame
from instruments.microscope import Closable, Microscope, Outcome, Releasable, TakesDarkFrames
from instruments.state import MicroscopeState


def _pass(microscope: Microscope, command: AcquireFrame) -> Frame:
    return microscope.acquire(command)


def _execute(microscope: Microscope, command: Command) -> MicroscopeState:
    return microscope.execute(command)


def _state(microscope: Microscope) -> MicroscopeState:
    return microscope.read_state()


def _capabilities(microscope: Microscope) -> Capabilities:
    return microscope.capabilities()


def _outcome(microscope: Microscope, action_id: str) -> Outcome:
    return microscope.outcome(action_id)


def _stop(microscope: Microscope) -> None:
    microscope.stop()


def _dark(microscope: Microscope, command: AcquireFrame) -> Frame:
    if isinstance(microscope, TakesDarkFrames):
        return microscope.acquire_dark(command)
    raise Unsupported("there are no dark frames")


def _close(microscope: Microscope) -> None:
    if isinstance(microscope, Closable):
        microscope.close()


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How each call is answered; what is not given goes through as it is."""

    capabilities: Callable[[Microscope], Capabilities] = _capabilities
    read_state: Callable[[Microscope], MicroscopeState] = _state
    execute: Callable[[Microscope, Command], MicroscopeState] = _execute
    acquire: Callable[[Microscope, AcquireFrame], Frame] = _pass
    acquire_dark: Callable[[Microscope, AcquireFrame], Frame] = _dark
    outcome: Callable[[Microscope, str], Outcome] = _outcome
    stop: Callable[[Microscope], None] = _stop
    close: Callable[[Microscope], None] = _close


@dataclass(frozen=True)
class Altered:
    """`inner` with some of its ways changed."""

    inner: Microscope
    ways: Ways = field(default_factory=Ways)

    def capabilities(self) -> Capabilities:
        """Of the inner one, or altered."""
        return self.ways.capabilities(self.inner)

    def read_state(self) -> MicroscopeState:
        """Of the inner one, or altered."""
        return self.ways.read_state(self.inner)

    def execute(self, command: Command) -> MicroscopeState:
        """By the inner one, or altered."""
        return self.ways.execute(self.inner, command)

    def acquire(self, command: AcquireFrame) -> Frame:
        """By the inner one, or altered."""
        return self.ways.acquire(self.inner, command)

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """By the inner one, or altered."""
        return self.ways.acquire_dark(self.inner, command)

    def outcome(self, action_id: str) -> Outcome:
        """Of the inner one, or altered."""
        return self.ways.outcome(self.inner, action_id)

    def stop(self) -> None:
        """The inner one's, or altered."""
        self.ways.stop(self.inner)

    def release(self) -> None:
        """The inner one's."""
        if isinstance(self.inner, Releasable):
            self.inner.release()

    def close(self) -> None:
        """The inner one's, or altered."""
        self.ways.close(self.inner)


def _refuse_beyond(card: Capabilities, command: AcquireFrame) -> None:
    """The limits are known, even to who then does something else."""
    asked = axis_values(command)
    for axis in card.axes:
        if axis.name in asked and axis.minimum <= axis.maximum and not axis.choices:
            value = asked[axis.name]
            if isinstance(value, str) or not axis.minimum <= value <= axis.maximum:
                raise CommandRefused(
                    f"{axis.name} {value} is outside {axis.minimum:g} to {axis.maximum:g}; stay inside"
                )


def commanded_otherwise(change: Callable[[AcquireFrame], AcquireFrame]) -> Ways:
    """Ways in which something else is done than asked for, and what was asked for is reported."""

    def acquire(microscope: Microscope, command: AcquireFrame) -> Frame:
        _refuse_beyond(microscope.capabilities(), command)
        done = change(command)
        frame = microscope.acquire(done)
        state = frame.state.model_copy(
            update={
                "stage": command.stage,
                "optics": command.optics.model_copy(update={"camera_length_mm": frame.state.optics.camera_length_mm}),
                "beam_shift_x_nm": command.scan.beam_shift_x_nm,
                "beam_shift_y_nm": command.scan.beam_shift_y_nm,
            }
        )
        dose = frame.dose_e_per_a2 * done.scan.area_nm2 / command.scan.area_nm2
        pixel_nm = command.scan.pixel_size_nm
        return replace(frame, requested=command, state=state, pixel_size_nm=pixel_nm, dose_e_per_a2=dose)

    return Ways(acquire=acquire)


def delivered_otherwise(change: Callable[[Frame], Frame]) -> Ways:
    """Ways in which the exposure is as asked for, and the frame that comes back is not."""
    return Ways(acquire=lambda microscope, command: change(microscope.acquire(command)))
