"""A microscope around a driver: what every adapter must do, once, so that a driver only converts and drives.

Refusals before anything moves (a driver that refuses on the way is read back, and told as what it then is), read-back
after every setting, action ids that are never exposed twice, stop that is remembered, dose from current and time.
Neighbours: `driver` (the protocol), `nion`, `micromanager`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final

from instruments.actions import NOTHING_MOVED
from instruments.adapters.clocks import with_clocks
from instruments.adapters.driver import Driver, Exposed
from instruments.adapters.understood import understood
from instruments.axes import FRAME_ONLY, axis_values
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    InstrumentError,
    InstrumentFault,
    Unsupported,
)
from instruments.events import Eventful, Events
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.state import MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons

KEPT_COUNT: Final = 8  # frames that are given again; of older ones the outcome is unknown
READ_S: Final = 10.0
_OF_A_BEAM: Final = ("beam_energy_ev", "semi_convergence_angle_mrad", "probe_current_pa")
_STOPPED: Final = "the instrument was stopped and its beam blanked; release it, or open it again, to go on"


class DrivenMicroscope:
    """Microscope, Releasable, Linked, TakesDarkFrames, Eventful and Closable over a driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._capabilities: Capabilities = driver.capabilities
        self._stopped = threading.Event()
        self._opened_s = time.monotonic()
        self._kept: dict[str, Frame] = {}
        self._exposed: set[str] = set()
        self._done: set[str] = set()
        self._not_started: set[str] = set()  # refused, or not exposed yet; of all others nobody here knows
        self._mode: str | None = None
        self._seen: MicroscopeState | None = None
        self.events = Events()
        if isinstance(driver.worker, Eventful):
            driver.worker.events.attach(self.events)

    def capabilities(self) -> Capabilities:
        """As the driver declares them."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read back now. Raises InstrumentFault for numbers that are none."""
        with understood("what was read back"):
            state = self._seen = self._driver.read_state(self._now_s(), READ_S)
        if self._mode is None:
            return state
        known = {name: why for name, why in state.undetermined.items() if name != "mode"}
        return state.model_copy(update={"mode": self._mode, "undetermined": known})

    def execute(self, command: Command) -> MicroscopeState:
        """Blank, unblank, park, set axes. Raises Unsupported, CommandRefused, LinkLost, InstrumentFault."""
        try:
            state = self._executed(command)
        except NOTHING_MOVED:
            self._not_started.add(command.action_id)
            raise
        self._done.add(command.action_id)
        return state

    def _executed(self, command: Command) -> MicroscopeState:
        until_s = time.monotonic() + command.deadline_s
        if isinstance(command, Blank):
            self._driver.set_blanked(True, command.deadline_s)
        else:
            self._refuse_after_stop()
        match command:
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
            case RunProcedure():
                raise Unsupported(f"instrument {self._capabilities.name!r} has no procedure {command.name!r}")
            case SetAxes():
                state = self._set(command.values, until_s).with_readings(command.values, self._capabilities)
            case Park():
                state = self._parked(command, until_s)
            case Unblank():
                self._driver.set_blanked(False, command.deadline_s)
                state = self.read_state()
            case Blank():
                state = self.read_state()
                if not state.beam_blanked:
                    raise InstrumentFault("it was told to blank and reads as not blanked; assume that the beam is on")
        return state

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once, or give again, unchanged, the frame of this action id. Raises as `Microscope.acquire` says."""
        kept = self._kept.get(command.action_id)
        if kept is not None:
            if kept.requested == command:
                return kept
            raise CommandRefused(f"action {command.action_id} was another command; give a new command a new action id")
        if command.action_id in self._exposed:
            raise AcquisitionFailed(
                f"action {command.action_id} was exposed before and its frame is not here any more; it is not exposed "
                "again: give a new command a new action id"
            )
        self._not_started.add(command.action_id)
        frame = self._taken(command, is_lit=True)
        self._kept[command.action_id] = frame
        if len(self._kept) > KEPT_COUNT:
            del self._kept[next(iter(self._kept))]
        return frame

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """The same detectors for the same time, the beam blanked throughout; kept by nobody."""
        return self._taken(command, is_lit=False)

    def outcome(self, action_id: str) -> Outcome:
        """`delivered` while the frame can be given again; `unknown` for an exposure that gave none.

        And for every action that this opening knows nothing of: an earlier one may have begun it.
        """
        if action_id in self._kept or action_id in self._done:
            return "delivered"
        return "not_started" if action_id in self._not_started - self._exposed else "unknown"

    def stop(self) -> None:
        """Blank and interrupt, from any thread; nothing is exposed until `release`."""
        self._stopped.set()
        self._driver.interrupt()

    def release(self) -> None:
        """Take commands again, the beam blanked."""
        self._stopped.clear()
        self._driver.set_blanked(True, READ_S)
        self._driver.release()

    def is_link_lost(self) -> bool:
        """Whether the library's process was lost, and not started again yet."""
        return self._driver.worker.is_lost

    def reconnect(self) -> None:
        """Start the library's process again; it begins stopped, so that the beam is blanked."""
        self._driver.worker.start()

    def close(self) -> None:
        """Give everything back; more than once is harmless."""
        self._driver.close()

    # --- checks, before anything moves

    def check(self, command: AcquireFrame) -> Mode:
        """The mode of a frame that could be taken. Raises CommandRefused, Unsupported; nothing moves."""
        card = self._capabilities
        mode = card.mode(command.mode)
        if mode is None:
            known = ", ".join(mode.name for mode in card.modes)
            raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {known}")
        if command.scan.at_once != mode.is_at_once:
            raise CommandRefused(f"mode {mode.name!r} wants scan.at_once {str(mode.is_at_once).lower()}")
        values = self._wanted(command)
        if missing := [name for name, value in values.items() if value and card.axis(name) is None]:
            raise Unsupported(
                f"instrument {card.name!r} has no axis {', '.join(missing)}; leave it at 0, or, of what "
                "every frame has, let its driver declare the limits"
            )
        refusals = [axis.refusal(values[axis.name]) for axis in card.axes if axis.name in values]
        if said := [refusal for refusal in refusals if refusal is not None]:
            raise CommandRefused("; ".join(said))
        with understood("what was told of its arrangement"):
            self._driver.check(command, mode)
        return mode

    def _wanted(self, command: AcquireFrame) -> dict[str, AxisValue]:
        """Everything a frame sets that means something here: without electrons, their energy does not."""
        values = axis_values(command)
        if not self._capabilities.has_beam:
            values = {name: value for name, value in values.items() if name not in _OF_A_BEAM}
        if command.scan.at_once:
            values.pop("flyback_time_us")
        return values

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault(_STOPPED)

    # --- moves

    def _set(self, values: Mapping[str, AxisValue], until_s: float) -> MicroscopeState:
        """Set and read back. Raises InstrumentFault for an axis that does not stand where it was sent."""
        self._capabilities.check_values(values)
        before = self._seen or self.read_state()
        try:
            with understood("what was read back on the way"):
                self._driver.set_axes(values, max(until_s - time.monotonic(), 0.1))
        except NOTHING_MOVED as error:
            raise self._refused_on_the_way(error, values, before) from error
        state = self.read_state()
        missed = [
            f"{name} was sent to {wanted!r} and reads {state.axis_value(name)!r}"
            for name, wanted in values.items()
            if not self._stands(name, wanted, state.axis_value(name))
        ]
        if missed:
            raise InstrumentFault(f"{'; '.join(missed)}: more than the tolerance; look at the instrument")
        return state

    def _refused_on_the_way(
        self, error: InstrumentError, values: Mapping[str, AxisValue], before: MicroscopeState
    ) -> InstrumentError:
        """The refusal, where all axes stand as they did; else a fault: some were set before another was refused."""
        now = self.read_state()
        if all(self._is_still(name, before.axis_value(name), now.axis_value(name)) for name in values):
            return error
        places = ", ".join(f"{name} at {now.axis_value(name)!r}" for name in values)
        return InstrumentFault(f"{error}; others were set before that, it stands with {places}: look at the instrument")

    def _is_still(self, name: str, was: AxisValue | None, found: AxisValue | None) -> bool:
        return was is not None and self._stands(name, was, found)

    def _stands(self, name: str, wanted: AxisValue, found: AxisValue | None) -> bool:
        axis = self._capabilities.axis(name)
        if isinstance(wanted, str) or isinstance(found, str) or found is None or axis is None:
            return wanted == found
        return abs(wanted - found) <= axis.allowed_error + 1e-9 * abs(wanted)

    def _parked(self, command: Park, until_s: float) -> MicroscopeState:
        state = self._set(axis_values(command), until_s)
        if self._stopped.wait(command.duration_s):
            raise InstrumentFault(_STOPPED)
        return state

    # --- exposures

    def _taken(self, command: AcquireFrame, *, is_lit: bool) -> Frame:
        self._refuse_after_stop()
        mode = self.check(command)
        until_s = time.monotonic() + command.deadline_s
        started_s = self._now_s()
        moves = {
            name: value
            for name, value in self._wanted(command).items()
            if name not in FRAME_ONLY and (axis := self._capabilities.axis(name)) and axis.minimum < axis.maximum
        }
        if moves:
            self._set(moves, until_s)
        clocks = self._driver.worker.clocks()  # before the beam: a frame is not lost for it
        self._refuse_after_stop()
        if is_lit:
            self._exposed.add(command.action_id)
        try:
            with understood("what came of the exposure", AcquisitionFailed):
                exposed = self._driver.expose(command, mode, until_s, is_lit=is_lit)
        except NOTHING_MOVED as error:  # the axes were set, and sub-frames may have been exposed
            places = ", ".join(f"{name} at {self.read_state().axis_value(name)!r}" for name in moves)
            raise AcquisitionFailed(
                f"{error}; its dose counts as spent, and the instrument stands with {places or 'no axis moved'}"
            ) from error
        self._mode = mode.name
        state = with_clocks(self.read_state(), clocks)
        return self._frame(command, mode, exposed, state, started_s, is_lit=is_lit)

    def _frame(
        self,
        command: AcquireFrame,
        mode: Mode,
        exposed: Exposed,
        state: MicroscopeState,
        started_s: float,
        *,
        is_lit: bool,
    ) -> Frame:
        spent = 0.0
        if is_lit and self._capabilities.has_beam:
            spent = electrons(command.optics.probe_current_pa, command.scan.duration_s(command.subframe_count))
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=state,
            mode=mode,
            counts=dict(exposed.counts),
            pixel_size_nm=exposed.pixel_size_nm,
            dose_e_per_a2=spent / (command.scan.area_nm2 * ANGSTROM2_PER_NM2),
            electrons=spent,
            started_s=started_s,
            ended_s=state.time_s,
            instrument=self._capabilities.name,
            simulated=self._capabilities.simulated,
            context={"is_lit": is_lit, **exposed.context},
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._opened_s
