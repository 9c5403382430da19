"""A microscope behind an instamatic server (JEOL, Thermo Fisher, or its simulator): stage, deflectors, screen, beam.

Moves are never waited for in the server, whose blocking move nobody can end: they are begun, and looked at until the
stage stands. Its cameras have a server of their own, which is not spoken to: this instrument takes no frames.
Neighbours: `instamatic_config`, `instamatic_link`, `instamatic_axes`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event, Lock
from typing import Any, Final

from pydantic import ValidationError

from instruments.adapters.clocks import CLOCKS, NOT_TOLD
from instruments.adapters.instamatic_axes import AxisTable, Call, capabilities_of
from instruments.adapters.instamatic_config import InstamaticConfig
from instruments.adapters.instamatic_link import InstamaticLink, flag, nothing, number
from instruments.axes import axis_values
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import CommandRefused, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import AxisReading, MicroscopeState, unsound

_LOOK_S: Final = 0.05
_STANDS_S: Final = 1.0  # without moving: it will not move any more
_STAGE: Final = ("x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg")
_ELSEWHERE: Final = frozenset((*_STAGE, "beam_shift_x_nm", "beam_shift_y_nm", "tilt_x_mrad", "tilt_y_mrad"))
_UNKNOWN: Final = {
    "measured_current_pa": "the server gives a current density of the screen, in no unit",
    "coherence": "the server does not tell",
    "mode": "this instrument takes no frames",
    "optics.semi_convergence_angle_mrad": "the server does not tell",
    "optics.probe_current_pa": "the server does not tell",
    "optics.defocus_nm": "lenses are in the maker's counts",
    CLOCKS: NOT_TOLD,
}


def open_instamatic(**config: Any) -> InstamaticMicroscope:
    """Connect to an instamatic server; the keys are those of `InstamaticConfig`.

    Raises ConfigurationError, InstrumentBusy where somebody here has it already, LinkLost.
    """
    checked = InstamaticConfig.checked(config)
    table = AxisTable(checked)
    capabilities = capabilities_of(checked, table)
    link = InstamaticLink(checked.host, checked.port, checked.answer_s)
    try:
        link.ask("isBeamBlanked", flag)
    except BaseException:
        link.close()
        raise
    return InstamaticMicroscope(checked, link, table, capabilities)


class InstamaticMicroscope:
    """Microscope, Releasable, Linked and Closable; all calls from one thread, `stop` from any."""

    def __init__(
        self, config: InstamaticConfig, link: InstamaticLink, table: AxisTable, capabilities: Capabilities
    ) -> None:
        self._config = config
        self._link = link
        self._table = table
        self._capabilities = capabilities
        self._opened_s = time.monotonic()
        self._outcomes: dict[str, Outcome] = {}
        self._beam = Lock()  # held while the beam is let through, so that a stop comes before or after it
        self._stopped = Event()

    def capabilities(self) -> Capabilities:
        """As configured: the server tells nothing of itself."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read back now: a request for each kind of thing."""
        values = self._table.read(self._link)
        try:
            return self._state(values)
        except ValidationError as error:
            raise unsound(error) from error

    def _state(self, values: Mapping[str, AxisValue]) -> MicroscopeState:
        """With the axes as they were just read."""
        beam_energy_ev = self._link.ask("getHTValue", number)
        return MicroscopeState(
            time_s=time.monotonic() - self._opened_s,
            stage=StagePosition(**{name: float(values[name]) for name in _STAGE}),
            beam_shift_x_nm=float(values.get("beam_shift_x_nm", 0.0)),
            beam_shift_y_nm=float(values.get("beam_shift_y_nm", 0.0)),
            optics=Optics(
                beam_energy_ev=beam_energy_ev,
                semi_convergence_angle_mrad=0.0,
                tilt_x_mrad=float(values.get("tilt_x_mrad", 0.0)),
                tilt_y_mrad=float(values.get("tilt_y_mrad", 0.0)),
            ),
            beam_blanked=self._link.ask("isBeamBlanked", flag),
            undetermined=_UNKNOWN,
            axes={name: AxisReading(read_back=value) for name, value in values.items() if name not in _ELSEWHERE},
        )

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes; a move is over when the stage stands where it was sent."""
        self._outcomes.setdefault(command.action_id, "not_started")
        if not isinstance(command, Blank):
            self._refuse_after_stop()
        match command:
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(); and this instrument takes no frames")
            case RunProcedure():
                raise Unsupported(f"no procedure {command.name!r}: an instamatic server has none that is offered here")
            case Blank():
                self._blank()
            case Unblank():
                with self._beam:
                    self._refuse_after_stop()
                    self._link.ask("setBeamBlank", nothing, False)
            case Park():
                self._command_axes(command)
                self._stopped.wait(command.duration_s)
            case SetAxes():
                state = self._state(self._command_axes(command)).with_readings(command.values, self._capabilities)
                self._outcomes[command.action_id] = "delivered"
                return state
        self._outcomes[command.action_id] = "delivered"
        return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Raises Unsupported: there is no camera behind this server."""
        raise Unsupported(f"{command.action_id}: an instamatic server of a microscope has no camera; expose elsewhere")

    def outcome(self, action_id: str) -> Outcome:
        """What this opening of the instrument knows; the server remembers nothing, so `unknown` for all others."""
        return self._outcomes.get(action_id, "unknown")

    def stop(self) -> None:
        """Blank, then tell the stage to stand; nothing moves after it until `release`. Raises LinkLost."""
        self._stopped.set()
        is_held = self._beam.acquire(timeout=self._config.answer_s)
        try:
            self._link.at_once("setBeamBlank", nothing, True)
            self._confirm_blanked()
            self._link.at_once("stopStage", nothing)
        finally:
            if is_held:
                self._beam.release()

    def release(self) -> None:
        """Go on after `stop`, the beam blanked."""
        self._blank()
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

    # --- how

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("stopped, the beam blanked; release it, or open it again, after a person has looked")

    def _command_axes(self, command: Park | SetAxes) -> Mapping[str, AxisValue]:
        """Set what is commanded; all axes as read back after it. Raises Unsupported and CommandRefused before that."""
        values, until_s = axis_values(command), time.monotonic() + command.deadline_s
        calls = self._checked(values)
        self._outcomes[command.action_id] = "unknown"
        return self._set(values, calls, until_s)

    def _checked(self, values: Mapping[str, AxisValue]) -> list[Call]:
        """What the server has to be told. Raises CommandRefused and Unsupported; nothing was sent that moves."""
        self._capabilities.check_values(values)
        self._table.check(values)
        calls = list(self._table.calls(values, self._link))
        if not self._link.ask("isBeamBlanked", flag):
            raise CommandRefused("the beam is on, and would expose what it is moved over; blank it first")
        return calls

    def _set(self, values: Mapping[str, AxisValue], calls: list[Call], until_s: float) -> Mapping[str, AxisValue]:
        for count, call in enumerate(calls):
            try:
                self._link.ask(call.function, nothing, *call.arguments, **call.named)
            except (CommandRefused, Unsupported) as error:
                if count == 0:
                    raise
                raise InstrumentFault(f"{error}, after others were set; read the state back") from error
        moved_s, moves = time.monotonic(), not values.keys().isdisjoint(_STAGE)
        while True:
            is_moving = moves and self._link.ask("isStageMoving", flag)  # on its way it may be where it is sent
            now, now_s = self._table.read(self._link), time.monotonic()
            missed = self._missed(values, now) or (["the stage still moves"] if is_moving else [])
            if not missed:
                return now
            if self._stopped.is_set():
                raise InstrumentFault(f"stopped on the way: {'; '.join(missed)}; read the state back")
            if now_s > until_s:
                raise InstrumentFault(f"the deadline passed on the way: {'; '.join(missed)}; read the state back")
            if is_moving:
                moved_s = now_s
            elif now_s - moved_s > _STANDS_S:
                raise InstrumentFault(f"nothing moves any more, and {'; '.join(missed)}; see the microscope")
            self._stopped.wait(_LOOK_S)

    def _missed(self, wanted: Mapping[str, AxisValue], now: Mapping[str, AxisValue]) -> list[str]:
        """The axes that do not stand where they should, in words."""
        return [
            f"{name} stands at {now.get(name)} instead of {value}"
            for name, value in wanted.items()
            if not _is_at(now.get(name), value, self._capabilities.axis(name))
        ]

    def _blank(self) -> None:
        self._link.ask("setBeamBlank", nothing, True)
        self._confirm_blanked()

    def _confirm_blanked(self) -> None:
        if not self._link.at_once("isBeamBlanked", flag):
            raise InstrumentFault("the server said that it blanked, and the beam is on; blank it at the microscope")


def _is_at(now: AxisValue | None, wanted: AxisValue, axis: Axis | None) -> bool:
    if axis is None or now is None or isinstance(now, str) or isinstance(wanted, str):
        return now == wanted
    return abs(now - wanted) <= axis.allowed_error
