"""A microscope behind a temscript server: Thermo Fisher's scripting over HTTP, or the package's null microscope.

Cameras (and STEM detectors, where there are any) are exposed with the beam unblanked before and blanked after; the
server carries out one request after another, so that nothing interrupts an exposure: `stop` blanks right after it.
Neighbours: `temscript_column` (what is set and read back), `temscript_beam`, `temscript_link` (HTTP), `temscript_axes`
(units), `temscript_card` (capabilities), `temscript_exposure` (what a frame needs), `temscript_config`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from instruments.adapters.clocks import with_clocks
from instruments.adapters.temscript_axes import AxisTable
from instruments.adapters.temscript_beam import TemscriptBeam
from instruments.adapters.temscript_card import NORMALISATIONS, STEM, ServerFacts, capabilities_of, facts_of
from instruments.adapters.temscript_column import TemscriptColumn
from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_exposure import Shot, camera_shot, diffraction_shot, places, stem_shot
from instruments.adapters.temscript_link import TemscriptLink
from instruments.adapters.temscript_readings import frame_of
from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import (
    CommandRefused,
    InstrumentFault,
    Unsupported,
)
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.optics import Aberrations
from instruments.state import MicroscopeState
from instruments.units import electrons

_HARMLESS: Final = {"column_valves": "closed"}


def open_temscript(**config: Any) -> TemscriptMicroscope:
    """Connect to a temscript server; the keys are those of `TemscriptConfig`.

    Raises ConfigurationError, LinkLost, InstrumentFault.
    """
    checked = TemscriptConfig.checked(config)
    link = TemscriptLink(checked.host, checked.port, checked.answer_s)
    try:
        facts = facts_of(link)
        table = AxisTable(checked)
        return TemscriptMicroscope(checked, link, facts, table, capabilities_of(facts, checked, table))
    except BaseException:
        link.close()
        raise


class TemscriptMicroscope:
    """Microscope, Releasable, Linked, TakesDarkFrames and Closable over HTTP: called by one thread, stopped by any."""

    def __init__(
        self,
        config: TemscriptConfig,
        link: TemscriptLink,
        facts: ServerFacts,
        table: AxisTable,
        capabilities: Capabilities,
    ) -> None:
        self._config = config
        self._link = link
        self._facts = facts
        self._capabilities = capabilities
        self._beam = TemscriptBeam(config, link, is_simulated=facts.is_simulated)
        self._column = TemscriptColumn(config, link, facts, table, capabilities, self._beam.stopped)
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._outcomes: dict[str, Outcome] = {}

    def capabilities(self) -> Capabilities:
        """As the server and the configuration said when it was opened."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read back now: two requests."""
        return self._column.read()

    def outcome(self, action_id: str) -> Outcome:
        """What this opening of the instrument knows; the server remembers nothing, so `unknown` for all others."""
        return self._outcomes.get(action_id, "unknown")

    def stop(self) -> None:
        """Blank, as soon as the server has finished what it is at; nothing is exposed after it until `release`.

        Raises LinkLost when the server did not confirm it: then the beam is to be taken as on.
        """
        self._beam.stop()

    def release(self) -> None:
        """Go on after `stop`, the beam blanked."""
        self._beam.release()

    def is_link_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        return self._link.is_lost

    def reconnect(self) -> None:
        """Connect anew; nothing else is sent. Raises LinkLost."""
        self._link.reconnect()

    def close(self) -> None:
        """Hang up; the beam stays as it is."""
        self._link.close()
        self._beam.close()

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes, normalise lenses; what was set is read back, a difference is a fault."""
        if isinstance(command, AcquireFrame):
            raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
        self._outcomes.setdefault(command.action_id, "not_started")
        if not isinstance(command, Blank):
            self._beam.refuse_after_stop()
        match command:
            case Blank():
                self._beam.blank()
            case Unblank():
                self._beam.unblank(lambda: self._mark_begun(command.action_id))
            case Park():
                self._command_axes(command)
                self._beam.stopped.wait(command.duration_s)
            case SetAxes():
                state = self._command_axes(command).with_readings(command.values, self._capabilities)
                self._outcomes[command.action_id] = "delivered"
                return state
            case RunProcedure():
                self._normalise(command)
        self._outcomes[command.action_id] = "delivered"
        return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Go there, expose, blank; or give again, without exposing, what this action id has exposed before.

        Raises CommandRefused and Unsupported before anything moves, AcquisitionFailed, ResultUnknown, LinkLost,
        InstrumentFault.
        """
        if known := self._frames.get(command.action_id):
            if known.requested != command:
                raise CommandRefused(f"action {command.action_id} was another command; give each its own id")
            return known
        if self._outcomes.get(command.action_id) == "unknown":
            raise CommandRefused(f"action {command.action_id} was begun before, and its frame is not here; choose anew")
        self._outcomes[command.action_id] = "not_started"
        frame, shot, beam_on_s = self._taken(command, lambda: self._mark_begun(command.action_id))
        self._keep(frame)
        planned_s = command.subframe_count * shot.exposure_s + self._config.beam_overhead_s
        if beam_on_s > planned_s:
            raise InstrumentFault(
                f"the beam was on for {beam_on_s:.3g} s, {planned_s:.3g} s were counted as its dose: raise "
                f"beam_overhead_s in the configuration; the frame of {command.action_id} is kept"
            )
        return frame

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """The same detectors for the same time, the beam blanked throughout; kept by nobody."""
        frame, _, _ = self._taken(command, None)
        return replace(frame, electrons=0.0, dose_e_per_a2=0.0)

    def _taken(self, command: AcquireFrame, begun: Callable[[], None] | None) -> tuple[Frame, Shot, float]:
        """The frame where it was asked for, what it took, and for how long the beam was on."""
        self._beam.refuse_after_stop()
        shot = self._shot(command)
        until_s, started_s = time.monotonic() + command.deadline_s, self._column.now_s()
        if not self._column.read(until_s).beam_blanked:
            self._beam.blank()
        self._column.arrange(command, shot, {**places(command), **shot.axes}, until_s)
        counts, beam_on_s = self._beam.exposed(command.subframe_count, shot, begun)
        return self._frame(command, shot, counts, beam_on_s, started_s), shot, beam_on_s

    def _shot(self, command: AcquireFrame) -> Shot:
        """What the frame needs. Raises CommandRefused or Unsupported for what cannot be given."""
        mode = self._capabilities.mode(command.mode)
        if mode is None:
            known = ", ".join(mode.name for mode in self._capabilities.modes)
            raise CommandRefused(f"mode {command.mode!r} is none of this instrument's: {known}")
        if command.optics.aberrations != Aberrations():
            raise Unsupported("a temscript server sets no aberrations; leave them at 0")
        refusals = [
            axis.refusal(value)
            for name, value in axis_values(command).items()
            if (axis := self._capabilities.axis(name))
        ]
        refusals += [
            f"{name} {value:g}: this instrument has no such axis, leave it at 0"
            for name, value in places(command).items()
            if self._capabilities.axis(name) is None and value != 0
        ]
        if said := [refusal for refusal in refusals if refusal]:
            raise CommandRefused("; ".join(said))
        if mode.name == STEM and self._config.stem is not None:
            return stem_shot(command, self._config.stem, tuple(detector.name for detector in mode.detectors))
        name = mode.detectors[0].name
        camera, facts = self._config.cameras[name], self._facts.cameras[name]
        if mode.kind == "tem_diffraction":
            return diffraction_shot(command, name, camera, facts)
        return camera_shot(command, name, camera, facts, self._column.magnification_index())

    def _command_axes(self, command: Park | SetAxes) -> MicroscopeState:
        """Set what is commanded, the beam blanked. Raises CommandRefused, Unsupported before anything moves."""
        values, until_s = axis_values(command), time.monotonic() + command.deadline_s
        self._column.check(values)
        is_harmless = values.items() <= _HARMLESS.items()
        if not is_harmless and self._link.get("beam_blanked", until_s) is not True:
            raise CommandRefused("the beam is on, and would expose what it is moved over; blank it first")
        self._mark_begun(command.action_id)
        return self._column.set(values, until_s)

    def _normalise(self, command: RunProcedure) -> None:
        if command.name not in NORMALISATIONS:
            raise Unsupported(f"no procedure {command.name!r}; there are {', '.join(NORMALISATIONS)}")
        if self._outcomes[command.action_id] != "not_started":
            raise CommandRefused(f"action {command.action_id} was begun before; a procedure is never repeated alone")
        self._beam.blank()
        self._mark_begun(command.action_id)
        self._link.do("normalize", NORMALISATIONS[command.name], command.deadline_s)

    def _mark_begun(self, action_id: str) -> None:
        """From now on nobody knows how it ended, until somebody does."""
        self._outcomes[action_id] = "unknown"

    def _frame(
        self, command: AcquireFrame, shot: Shot, counts: dict[str, np.ndarray], beam_on_s: float, started_s: float
    ) -> Frame:
        was_stopped = self._beam.stopped.is_set()
        frame = frame_of(
            command, shot, counts,
            state=with_clocks(self.read_state(), self._link.clocks()),
            capabilities=self._capabilities, facts=self._facts,
            electrons=electrons(self._config.probe_current_pa, beam_on_s), started_s=started_s,
        )  # fmt: skip
        more = {
            "beam_on_s": beam_on_s,
            "stopped_meanwhile": was_stopped,
            "calibrations": [{"id": self._config.calibration_id or "none", "quantity": "pixel_size_nm"}],
        }
        return replace(frame, context=frame.context | more)

    def _keep(self, frame: Frame) -> None:
        self._frames[frame.action_id] = frame
        self._outcomes[frame.action_id] = "delivered"
        while len(self._frames) > self._config.frames_kept:
            forgotten, _ = self._frames.popitem(last=False)
            self._outcomes[forgotten] = "unknown"  # exposed, but its frame cannot be given again
