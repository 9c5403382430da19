"""A microscope behind a temscript server: Thermo Fisher's scripting over HTTP, or the package's null microscope.

Cameras (and STEM detectors, where there are any) are exposed with the beam unblanked before and blanked after; the
server carries out one request after another, so that nothing interrupts an exposure: `stop` blanks right after it.
Neighbours: `temscript_config`, `temscript_link` (HTTP), `temscript_axes` (units), `temscript_card` (capabilities),
`temscript_exposure` (what a frame needs).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from threading import Event, Lock
from typing import Any, Final

import numpy as np

from instruments.adapters.temscript_axes import STAGE, AxisTable
from instruments.adapters.temscript_card import NORMALISATIONS, STEM, ServerFacts, capabilities_of, facts_of
from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_exposure import Setting, Shot, camera_shot, places, raw_counts, stem_shot, together
from instruments.adapters.temscript_link import TemscriptLink
from instruments.adapters.temscript_readings import frame_of, state_of
from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    Unsupported,
)
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.optics import Aberrations
from instruments.state import MicroscopeState
from instruments.units import electrons

_LOOK_S: Final = 0.05
_QUICKEST: Final = 0.9  # of the exposure: an answer sooner than that is no frame of it
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
    """Microscope, Releasable, Linked and Closable over HTTP; all calls from one thread, `stop` from any."""

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
        self._stop_link = TemscriptLink(config.host, config.port, config.stop_latency_s)
        self._facts = facts
        self._table = table
        self._capabilities = capabilities
        self._opened_s = time.monotonic()
        self._mode: str | None = None
        self._convergence_mrad = 0.0
        self._asked: dict[str, AxisValue] = {}
        self._values: dict[str, AxisValue] = {}  # as last read
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._outcomes: dict[str, Outcome] = {}
        self._beam = Lock()  # held while the beam is let through, so that a stop comes before or after it
        self._stopped = Event()

    def capabilities(self) -> Capabilities:
        """As the server and the configuration said when it was opened."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read back now: two requests."""
        return self._read()

    def outcome(self, action_id: str) -> Outcome:
        """What this opening of the instrument knows; the server remembers nothing, so `unknown` for all others."""
        return self._outcomes.get(action_id, "unknown")

    def stop(self) -> None:
        """Blank, as soon as the server has finished what it is at; nothing is exposed after it until `release`.

        Raises LinkLost when the server did not confirm it: then the beam is to be taken as on.
        """
        self._stopped.set()
        is_held = self._beam.acquire(timeout=self._config.answer_s)
        try:
            self._blank(self._stop_link)
        finally:
            if is_held:
                self._beam.release()

    def release(self) -> None:
        """Go on after `stop`, the beam blanked."""
        self._blank(self._link)
        self._stopped.clear()

    def is_link_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        return self._link.is_lost

    def reconnect(self) -> None:
        """Connect anew; nothing else is sent. Raises LinkLost."""
        self._link.reconnect()

    def close(self) -> None:
        """Hang up; the beam stays as it is."""
        self._link.close()
        self._stop_link.close()

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes, normalise lenses; what was set is read back, a difference is a fault."""
        if isinstance(command, AcquireFrame):
            raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
        self._outcomes.setdefault(command.action_id, "not_started")
        if not isinstance(command, Blank):
            self._refuse_after_stop()
        match command:
            case Blank():
                self._blank(self._link)
            case Unblank():
                self._unblank(command.action_id)
            case Park():
                self._command_axes(command)
                self._stopped.wait(command.duration_s)
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
        self._refuse_after_stop()
        shot = self._shot(command)
        until_s, started_s = time.monotonic() + command.deadline_s, self._now_s()
        self._arrange(command, shot, until_s)
        counts, beam_on_s = self._exposed(command, shot)
        frame = self._frame(command, shot, counts, beam_on_s, started_s)
        self._keep(frame)
        planned_s = command.subframe_count * shot.exposure_s + self._config.beam_overhead_s
        if beam_on_s > planned_s:
            raise InstrumentFault(
                f"the beam was on for {beam_on_s:.3g} s, {planned_s:.3g} s were counted as its dose: raise "
                f"beam_overhead_s in the configuration; the frame of {command.action_id} is kept"
            )
        return frame

    # --- what is refused

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("stopped, the beam blanked; release it, or open it again, after a person has looked")

    def _check(self, values: Mapping[str, AxisValue]) -> None:
        self._capabilities.check_values(values)
        for name, value in values.items():
            known = self._table.numbers.get(name)
            if known is not None and known.is_whole and float(value) != round(float(value)):
                raise CommandRefused(f"{name} {value} is not a whole number; choose one")
        if values.get("column_valves") == "open" and not self._config.may_open_valves:
            raise CommandRefused("column_valves open is not allowed (may_open_valves); open them at the microscope")

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
        index = self._asked.get("magnification_index")
        camera = self._config.cameras[mode.name]
        return camera_shot(command, mode.name, camera, self._facts.cameras[mode.name], _number(index))

    # --- setting and reading back

    def _read(self, until_s: float | None = None) -> MicroscopeState:
        told, vacuum = self._link.get("state", until_s), self._link.get("vacuum", until_s)
        try:
            self._values = self._table.values(told, vacuum)
            return state_of(
                told, vacuum, self._values, facts=self._facts, capabilities=self._capabilities,
                convergence_mrad=self._convergence_mrad, mode=self._mode, time_s=self._now_s(),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise InstrumentFault(
                f"the server's state is not that of temscript 2: {error!r}; see its version"
            ) from error

    def _command_axes(self, command: Park | SetAxes) -> MicroscopeState:
        """Set what is commanded, the beam blanked. Raises CommandRefused, Unsupported before anything moves."""
        values, until_s = axis_values(command), time.monotonic() + command.deadline_s
        self._check(values)
        is_harmless = values.items() <= _HARMLESS.items()
        if not is_harmless and self._link.get("beam_blanked", until_s) is not True:
            raise CommandRefused("the beam is on, and would expose what it is moved over; blank it first")
        self._outcomes[command.action_id] = "unknown"
        return self._set(values, until_s)

    def _set(self, values: Mapping[str, AxisValue], until_s: float) -> MicroscopeState:
        """Bring axes there and read back. Raises InstrumentFault for one that is not there."""
        before = dict(self._values)
        for count, write in enumerate(self._table.writes(values, lambda: self._read_values(until_s))):
            move_s = self._config.stage_move_s if write.endpoint == STAGE else None
            try:
                self._link.put(write.endpoint, write.body, within_s=move_s, until_s=until_s)
            except CommandRefused as error:
                self._read(until_s)
                if count == 0 and not self._missed(before, write.names):
                    raise
                raise InstrumentFault(f"{error}, after something had moved; read the state back") from error
            if write.endpoint == STAGE:
                self._wait_for_stage(until_s)
        state = self._read(until_s)
        if missed := self._missed(values, tuple(values)):
            raise InstrumentFault(f"the server said done, and did not do it: {'; '.join(missed)}; see the microscope")
        self._asked.update(values)
        return state

    def _read_values(self, until_s: float) -> Mapping[str, AxisValue]:
        self._read(until_s)
        return self._values

    def _missed(self, wanted: Mapping[str, AxisValue], names: tuple[str, ...]) -> list[str]:
        """The axes that were not read back where they should be, in words."""
        now = self._values
        return [
            f"{name} is {now.get(name)} instead of {wanted[name]}"
            for name in names
            if name in wanted and not _is_at(now.get(name), wanted[name], self._allowed_error(name))
        ]

    def _allowed_error(self, name: str) -> float:
        axis = self._capabilities.axis(name)
        return axis.allowed_error if axis is not None else 0.0

    def _wait_for_stage(self, until_s: float) -> None:
        while (status := self._link.get("stage_status", until_s)) != "READY":
            if self._stopped.is_set() or time.monotonic() + _LOOK_S > until_s:
                raise InstrumentFault(
                    f"the stage is {status} at the end of its time, or at a stop; read the state back"
                )
            self._stopped.wait(_LOOK_S)
        if self._config.stage_settle_s:
            self._stopped.wait(self._config.stage_settle_s)

    def _arrange(self, command: AcquireFrame, shot: Shot, until_s: float) -> None:
        """Everything of a frame but its exposure, the beam blanked."""
        if not self._read(until_s).beam_blanked:
            self._blank(self._link)
        wanted: dict[str, AxisValue] = {**places(command), **shot.axes}
        convergence_mrad = command.optics.semi_convergence_angle_mrad
        if self._capabilities.axis("semi_convergence_angle_mrad"):
            wanted["semi_convergence_angle_mrad"] = convergence_mrad
        stale = {name: value for name, value in wanted.items() if self._has(name) and not self._stands(name, value)}
        if stale:
            self._set(stale, until_s)
        self._tell(shot.settings, until_s)
        self._mode, self._convergence_mrad = command.mode, convergence_mrad

    def _has(self, name: str) -> bool:
        """Whether it is set here; the magnification of a calibrated camera is, without limits of its own."""
        return self._capabilities.axis(name) is not None or name == "magnification_index"

    def _stands(self, name: str, value: AxisValue) -> bool:
        """Whether this was the last thing asked for, and it is still there."""
        return self._asked.get(name) == value and _is_at(self._values.get(name), value, self._allowed_error(name))

    def _tell(self, settings: tuple[Setting, ...], until_s: float) -> None:
        """Set the detectors up, leaving alone what stands already. Raises InstrumentFault; the beam is off."""
        try:
            for setting in settings:
                if setting.difference(self._link.get(setting.endpoint, until_s)):
                    self._link.put(setting.endpoint, setting.body, until_s=until_s)
            wrong = [
                difference
                for endpoint, body in together(settings).items()
                if (difference := Setting(endpoint, body).difference(self._link.get(endpoint, until_s)))
            ]
        except (CommandRefused, Unsupported) as error:
            raise InstrumentFault(f"not exposed: {error}, after the stage may have moved; see the server") from error
        if wrong:
            raise InstrumentFault(f"not exposed: the server took the settings and reads back {'; '.join(wrong)}")

    def _normalise(self, command: RunProcedure) -> None:
        if command.name not in NORMALISATIONS:
            raise Unsupported(f"no procedure {command.name!r}; there are {', '.join(NORMALISATIONS)}")
        if self._outcomes[command.action_id] != "not_started":
            raise CommandRefused(f"action {command.action_id} was begun before; a procedure is never repeated alone")
        self._blank(self._link)
        self._outcomes[command.action_id] = "unknown"
        self._link.do("normalize", NORMALISATIONS[command.name], command.deadline_s)

    # --- the beam

    def _blank(self, link: TemscriptLink) -> None:
        """Blank and see that it is: behind an exposure it takes as long as the stop latency says."""
        link.put("beam_blanked", True, within_s=self._config.stop_latency_s)
        if link.get("beam_blanked") is not True:
            raise InstrumentFault("the server said that it blanked, and the beam is on; blank it at the microscope")

    def _unblank(self, action_id: str) -> None:
        with self._beam:
            self._refuse_after_stop()
            self._outcomes[action_id] = "unknown"
            self._link.put("beam_blanked", False)

    def _exposed(self, command: AcquireFrame, shot: Shot) -> tuple[dict[str, np.ndarray], float]:
        """Counts of all sub-frames, and for how long the beam was on at most. The beam is blanked, whatever happens."""
        begun_s = time.monotonic()
        failure: InstrumentError | None = None
        subframes: list[dict[str, np.ndarray]] = []
        try:
            self._unblank(command.action_id)
            for _ in range(command.subframe_count):
                if subframes and self._stopped.is_set():
                    raise AcquisitionFailed(f"stopped after {len(subframes)} of {command.subframe_count} sub-frames")
                subframes.append(self._subframe(shot))
        except InstrumentError as error:
            failure = error
        try:
            self._blank(self._link)
        except InstrumentError as error:
            kind = LinkLost if isinstance(error, LinkLost) else InstrumentFault
            raise kind(f"exposed, and the beam is not confirmed off ({error}): take it as on") from (failure or error)
        if failure is not None:
            raise failure
        beam_on_s = time.monotonic() - begun_s
        return {name: np.stack([one[name] for one in subframes]) for name in shot.detectors}, beam_on_s

    def _subframe(self, shot: Shot) -> dict[str, np.ndarray]:
        begun_s = time.monotonic()
        arrays = self._link.acquire(shot.detectors, shot.exposure_s + self._config.readout_s)
        took_s = time.monotonic() - begun_s
        if took_s < _QUICKEST * shot.exposure_s:
            raise AcquisitionFailed(
                f"a frame came after {took_s:.3g} s, before its {shot.exposure_s:.3g} s were over: of another exposure"
            )
        return raw_counts(shot, arrays, may_be_empty=self._facts.is_simulated)

    def _frame(
        self, command: AcquireFrame, shot: Shot, counts: dict[str, np.ndarray], beam_on_s: float, started_s: float
    ) -> Frame:
        was_stopped = self._stopped.is_set()
        frame = frame_of(
            command, shot, counts,
            state=self.read_state(), capabilities=self._capabilities, facts=self._facts,
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

    def _now_s(self) -> float:
        return time.monotonic() - self._opened_s


def _is_at(now: AxisValue | None, wanted: AxisValue, allowed: float) -> bool:
    if now is None or isinstance(now, str) or isinstance(wanted, str):
        return now == wanted
    return abs(now - wanted) <= allowed + 1e-9 * abs(wanted)


def _number(value: AxisValue | None) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)
