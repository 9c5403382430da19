"""A microscope with a CEOS corrector: any adapter of ours, and beside it what CEOS's gateway measures and corrects.

The beam is the microscope's: a measurement lets it on, and blanks it however the measurement ends, after the time
that was declared for it at most. Frames are the microscope's too; aberrations are set by commands of their own.
Neighbours: `ceos_corrector`, `ceos_config`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Event
from typing import Any, Final

from instruments import registry
from instruments.actions import NOTHING_MOVED
from instruments.adapters.ceos_config import CeosConfig, capabilities_with
from instruments.adapters.ceos_corrector import Corrector
from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, RunProcedure, SetAxes, Unblank
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    InstrumentError,
    InstrumentFault,
    ResultUnknown,
    Unsupported,
)
from instruments.events import Eventful, Events
from instruments.frames import Frame
from instruments.microscope import Closable, Linked, Microscope, Outcome, Releasable, TakesDarkFrames
from instruments.optics import Aberrations
from instruments.state import AxisReading, MicroscopeState

_HOLDS_WHILE: Final = (
    "z_nm",
    "alpha_deg",
    "beta_deg",
    "defocus_nm",
    "semi_convergence_angle_mrad",
    "beam_energy_ev",
    "tilt_x_mrad",
    "tilt_y_mrad",
)  # fmt: skip  a measurement says nothing of the probe once one of these is another
_STOPPED: Final = "stopped, the beam blanked; release it, or open it again, after a person has looked"


def open_ceos(**config: Any) -> CorrectedMicroscope:
    """The microscope of `beside` with its corrector; the keys are those of `CeosConfig`.

    Raises ConfigurationError, LinkLost, and what opening the microscope raises.
    """
    checked = CeosConfig.checked(config)
    corrector = Corrector(checked)
    try:
        microscope = registry.open(checked.beside.adapter, **checked.beside.config)
    except BaseException:
        corrector.close()
        raise
    try:
        return CorrectedMicroscope(microscope, corrector, capabilities_with(checked, microscope.capabilities()))
    except BaseException:
        corrector.close()
        _closed(microscope)
        raise


class CorrectedMicroscope:
    """Microscope, Releasable, Linked, TakesDarkFrames, Eventful and Closable, around a microscope and a corrector."""

    def __init__(self, microscope: Microscope, corrector: Corrector, capabilities: Capabilities) -> None:
        self._microscope = microscope
        self._corrector = corrector
        self._capabilities = capabilities
        self._outcomes: dict[str, Outcome] = {}
        self._stopped = Event()
        self._measured_at: MicroscopeState | None = None
        self._events = Events()
        if isinstance(microscope, Eventful):
            microscope.events.attach(self._events)

    @property
    def events(self) -> Events:
        """What the microscope tells."""
        return self._events

    def capabilities(self) -> Capabilities:
        """The microscope's and the corrector's."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """The microscope's, read back now, with the aberrations that were measured lately."""
        return self._with_aberrations(self._microscope.read_state())

    def execute(self, command: Command) -> MicroscopeState:
        """Measurements and corrections are the corrector's, everything else the microscope's."""
        if isinstance(command, RunProcedure) and self._corrector.procedure(command.name) is not None:
            return self._measure(command)
        if isinstance(command, SetAxes) and any(map(self._corrector.has, command.values)):
            return self._correct(command)
        if not isinstance(command, Blank):
            self._refuse_after_stop()
        return self._with_aberrations(self._microscope.execute(command))

    def acquire(self, command: AcquireFrame) -> Frame:
        """A frame of the microscope. Raises CommandRefused for one that would set aberrations."""
        return self._framed(command, self._microscope.acquire)

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """A dark frame of the microscope. Raises Unsupported where it takes none."""
        microscope = self._microscope
        if not isinstance(microscope, TakesDarkFrames):
            raise Unsupported("this microscope takes no dark frames")
        return self._framed(command, microscope.acquire_dark)

    def _framed(self, command: AcquireFrame, take: Callable[[AcquireFrame], Frame]) -> Frame:
        """What is taken of the command without what a frame cannot correct, with what the corrector says."""
        self._refuse_after_stop()
        wanted = {name: value for name, value in axis_values(command).items() if self._corrector.has(name)}
        moved = [name for name, value in wanted.items() if not self._corrector.stands(name, float(value))]
        if moved and self._microscope.outcome(command.action_id) != "delivered":
            raise CommandRefused(
                f"{', '.join(moved)} cannot be set by a frame: measure, then correct with set_axes, then ask for the "
                "frame with what was read back, or 0 to leave them alone"
            )
        frame = take(_without(command, wanted))
        return replace(
            frame, requested=command, state=self._with_aberrations(frame.state), instrument=self._capabilities.name
        )

    def outcome(self, action_id: str) -> Outcome:
        """What became of a measurement or correction; of all else what the microscope says."""
        known = self._outcomes.get(action_id)
        return self._microscope.outcome(action_id) if known is None else known

    def stop(self) -> None:
        """Blank, then break off what the corrector was asked; from any thread."""
        self._stopped.set()
        try:
            self._microscope.stop()
        finally:
            self._corrector.link.abort()

    def release(self) -> None:
        """Go on after `stop`. Raises InstrumentFault where the microscope cannot without being opened again."""
        if not isinstance(self._microscope, Releasable):
            raise InstrumentFault("this microscope cannot go on after a stop; open it again")
        self._microscope.release()
        self._stopped.clear()

    def is_link_lost(self) -> bool:
        """Whether microscope or corrector did not answer last."""
        is_gone = isinstance(self._microscope, Linked) and self._microscope.is_link_lost()
        return is_gone or self._corrector.link.is_lost

    def reconnect(self) -> None:
        """Connect anew to whichever is lost, the microscope first. Raises LinkLost."""
        if isinstance(self._microscope, Linked) and self._microscope.is_link_lost():
            self._microscope.reconnect()
        if self._corrector.link.is_lost:
            self._corrector.link.reconnect()

    def close(self) -> None:
        """Hang up to both; more than once is harmless."""
        self._corrector.close()
        _closed(self._microscope)

    # --- the corrector's

    def _measure(self, command: RunProcedure) -> MicroscopeState:
        """The beam on for the measurement, and blanked after it whatever happens."""
        procedure = self._capabilities.procedure(command.name)
        assert procedure is not None  # both know the same ones
        self._forget_what_changed(self._microscope.read_state())
        self._begin(command)
        blank = Blank(action_id=f"{command.action_id} blank")
        try:
            self._microscope.execute(Unblank(action_id=f"{command.action_id} unblank"))
            within_s = procedure.duration_s - self._capabilities.blanker_settle_s
            self._measured(command.name, min(within_s, command.deadline_s))
        except InstrumentError as error:
            if isinstance(error, NOTHING_MOVED):  # the microscope does not let its beam on
                self._outcomes[command.action_id] = "not_started"
            self._blanked(blank, error)
            raise
        except BaseException:
            self._microscope.execute(blank)
            raise
        self._blanked(blank, None)
        self._outcomes[command.action_id] = "delivered"
        self._measured_at = self._microscope.read_state()
        return self._with_aberrations(self._measured_at)

    def _measured(self, name: str, within_s: float) -> None:
        """The beam is on: whatever the gateway refuses now has cost dose."""
        self._refuse_after_stop()
        try:
            self._corrector.measure(name, within_s)
        except NOTHING_MOVED as error:
            raise AcquisitionFailed(f"{error}; the beam was on meanwhile") from error

    def _blanked(self, blank: Blank, error: InstrumentError | None) -> None:
        """Blank. Raises ResultUnknown where that fails: the beam may still be on."""
        try:
            self._microscope.execute(blank)
        except InstrumentError as fault:
            before = "" if error is None else f"{error}; and "
            raise ResultUnknown(f"{before}the beam could not be blanked after it: {fault}; blank it by hand") from fault

    def _correct(self, command: SetAxes) -> MicroscopeState:
        """Checked as a whole before anything is sent; read back by the next measurement."""
        until_s = time.monotonic() + command.deadline_s
        self._capabilities.check_values(command.values)
        if others := [name for name in command.values if not self._corrector.has(name)]:
            raise CommandRefused(f"{', '.join(others)} are not the corrector's; set them by a command of their own")
        self._forget_what_changed(self._microscope.read_state())
        corrections = self._corrector.corrections(command.values)
        self._begin(command)
        try:
            self._corrector.correct(corrections, until_s, self._refuse_after_stop)
        except NOTHING_MOVED:
            self._outcomes[command.action_id] = "not_started"
            raise
        self._outcomes[command.action_id] = "delivered"
        return self.read_state().with_readings(command.values, self._capabilities)

    def _begin(self, command: RunProcedure | SetAxes) -> None:
        self._refuse_after_stop()
        if self._outcomes.get(command.action_id, "not_started") != "not_started":
            raise CommandRefused(f"action {command.action_id} was sent before and is never repeated; give a new id")
        self._outcomes[command.action_id] = "unknown"

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault(_STOPPED)

    def _forget_what_changed(self, state: MicroscopeState) -> None:
        """Forget measurements where the microscope is not as it was for them."""
        before = self._measured_at
        if before is None:
            return
        names = (name for name in _HOLDS_WHILE if not self._corrector.has(name))
        changed = [name for name in names if not self._is_same(name, before.axis_value(name), state.axis_value(name))]
        if changed:
            self._measured_at = None
            self._corrector.forget(f"{', '.join(changed)} changed since it was measured; measure it again")

    def _is_same(self, name: str, before: AxisValue | None, now: AxisValue | None) -> bool:
        """Within twice what the read-back of that axis may be off."""
        if not isinstance(before, float | int) or not isinstance(now, float | int):
            return before == now
        axis = self._capabilities.axis(name)
        return abs(before - now) <= 2 * (axis.allowed_error if axis else 0.0) + 1e-6 * abs(before)

    def _with_aberrations(self, state: MicroscopeState) -> MicroscopeState:
        self._forget_what_changed(state)
        known, missing = self._corrector.values(), self._corrector.undetermined()
        terms = {name: value for name, value in known.items() if name in Aberrations.model_fields}
        aberrations = state.optics.aberrations.model_copy(update=terms)
        optics = state.optics.model_copy(update={"aberrations": aberrations})
        if "defocus_nm" in known:
            optics = optics.model_copy(update={"defocus_nm": known["defocus_nm"]})
        of_its_own = {name: AxisReading(read_back=value) for name, value in known.items() if "." in name}
        reasons = {name: why for name, why in state.undetermined.items() if name.rpartition(".")[2] not in known}
        return state.model_copy(
            update={"optics": optics, "axes": {**state.axes, **of_its_own}, "undetermined": {**reasons, **missing}}
        )


def _without(command: AcquireFrame, corrected: Mapping[str, AxisValue]) -> AcquireFrame:
    """The frame as the microscope takes it: what stands by the corrector is not commanded."""
    terms = {name: 0.0 for name in corrected if name in Aberrations.model_fields}
    optics: dict[str, Any] = {"aberrations": command.optics.aberrations.model_copy(update=terms)}
    if "defocus_nm" in corrected:
        optics["defocus_nm"] = 0.0
    return command.model_copy(update={"optics": command.optics.model_copy(update=optics)})


def _closed(microscope: Microscope) -> None:
    if isinstance(microscope, Closable):
        microscope.close()
