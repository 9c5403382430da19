"""The calls of the command line, as the process of an instrument answers them. Neighbours: `host`, `client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from pydantic import Field, ValidationError

from instruments.commands import COMMANDS, AcquireFrame, Blank
from instruments.errors import InstrumentError, InstrumentFault, LinkLost, ResultUnknown, Unsupported
from instruments.events import Eventful, EventLog
from instruments.guards import GuardedMicroscope
from instruments.microscope import CountsDose, Forecasting, HiddenTruth, Linked, Rebuildable, TakesDarkFrames
from instruments.models import Record
from instruments.remote.adapter_thread import AdapterThread, Asked
from instruments.remote.ownership import Ownership
from instruments.remote.status import Lock
from instruments.remote.wire import WireError

EXTRA_PROTOCOLS: Final[dict[str, Any]] = {
    "Forecasting": Forecasting,
    "Rebuildable": Rebuildable,
    "HiddenTruth": HiddenTruth,
    "CountsDose": CountsDose,
    "TakesDarkFrames": TakesDarkFrames,
}


class Request(Record):
    """What every call carries; its arguments come beside it."""

    call: str
    fence: int = Field(ge=0)
    wait_s: float = Field(ge=0, description="for the instrument to be free")


class CommandCalls:
    """Everything an owner can ask of the instrument, each with the owner's fence."""

    def __init__(
        self,
        name: str,
        adapter: AdapterThread,
        ownership: Ownership,
        log: EventLog | None = None,
        dose: CountsDose | None = None,
    ) -> None:
        """Events of whatever is loaded go to `log`; `dose` knows that of the specimen, where the adapter does not."""
        self._name = name
        self._adapter = adapter
        self._ownership = ownership
        self._log = log or EventLog()
        self._dose = dose
        self.ending: str | None = None

    def answer(self, message: Any, is_wanted: Callable[[], bool]) -> Any:
        """The result of one call. Raises WireError for what is none, an InstrumentError."""
        request, arguments = _checked(message)
        if self.ending is not None:
            raise InstrumentFault(f"the process of instrument {self._name!r} is ending: {self.ending}")
        if request.call == "load":
            self._ownership.take(request.fence)
        else:
            self._ownership.check(request.fence)
        asked = Asked(
            request.call,
            lambda: self._carry_out(request, arguments),
            overran=lambda reason: self._ownership.bar(reason, request.fence),
        )
        command = arguments.get("command")
        if isinstance(command, COMMANDS) and request.call in ("acquire", "acquire_dark", "execute"):
            asked.action_id, asked.deadline_s = command.action_id, command.deadline_s
        held_before = self._held_because()
        try:
            return self._adapter.call(asked, wait_s=request.wait_s, is_wanted=is_wanted)
        except (LinkLost, ResultUnknown) as error:
            self._lock_if_lost(error)
            raise
        finally:
            if asked.action_id is not None and (held := self._held_because()) not in (None, held_before):
                self._lock(held, "the guard")

    def _lock_if_lost(self, error: InstrumentError) -> None:
        """Nobody commands an instrument whose link broke until a person has looked; its beam counts as on."""
        loaded = self._adapter.loaded
        linked = loaded.microscope if loaded is not None else None
        if isinstance(error, LinkLost) or (isinstance(linked, Linked) and linked.is_link_lost()):
            self._lock(str(error), "the lost link")

    def _held_because(self) -> str | None:
        """Why the guard wants a person to look: another owner, and a guard of its own, would not know."""
        loaded = self._adapter.loaded
        guarded = loaded.microscope if loaded is not None else None
        return guarded.held_because if isinstance(guarded, GuardedMicroscope) else None

    def _lock(self, reason: str, by: str) -> None:
        if self._ownership.lock is None:
            self._ownership.set_lock(Lock(reason=reason, by=by, at=datetime.now(UTC)))
            self._ownership.save()

    def _carry_out(self, request: Request, arguments: Mapping[str, Any]) -> Any:
        """In the adapter's thread, where the fence counts once more: the call may have waited for long."""
        self._ownership.check(request.fence)
        match request.call, arguments:
            case "load", {"session_id": str(session_id), "adapter": str(adapter), "config": dict(config)}:
                self._ownership.check_may_act(request.fence)
                return self._load(session_id, adapter, cast("dict[str, Any]", config))
            case "acquire", {"command": AcquireFrame() as command}:
                return self._adapter.acquire(command, lambda: self._ownership.check_may_act(request.fence))
            case "acquire_dark", {"command": AcquireFrame() as command}:
                self._ownership.check_may_act(request.fence)
                return self._adapter.acquire_dark(command)
            case "execute", {"command": command} if isinstance(command, COMMANDS):
                if not isinstance(command, Blank):  # taking the beam off is never refused
                    self._ownership.check_may_act(request.fence)
                return self._adapter.execute(command)
            case "rebuild", {"commands": list(commands)}:
                self._ownership.check_may_act(request.fence)
                return self._rebuild(cast("list[Any]", commands))
            case _:
                return self._look(request.call, arguments)

    def _load(self, session_id: str, adapter: str, config: Mapping[str, Any]) -> dict[str, Any]:
        is_living = self._adapter.load(session_id, adapter, config)
        microscope = self._adapter.microscope
        if isinstance(microscope, Eventful) and not is_living:
            microscope.events.attach(self._log)
        protocols = [name for name, protocol in EXTRA_PROTOCOLS.items() if isinstance(microscope, protocol)]
        if self._dose is not None and "CountsDose" not in protocols:
            protocols.append("CountsDose")
        return {"capabilities": microscope.capabilities(), "protocols": protocols, "is_living": is_living}

    def _rebuild(self, commands: list[Any]) -> None:
        microscope = self._adapter.microscope
        if not isinstance(microscope, Rebuildable):
            raise Unsupported(f"instrument {self._name!r} is not simulated: it cannot be rebuilt from commands")
        if wrong := [command for command in commands if not isinstance(command, COMMANDS)]:
            raise InstrumentFault(f"rebuild takes commands, not {wrong[0]!r:.80}")
        microscope.rebuild(commands)

    def _look(self, call: str, arguments: Mapping[str, Any]) -> Any:
        """Calls that move nothing."""
        microscope = self._adapter.microscope
        match call, arguments:
            case "read_state", _:
                return microscope.read_state()
            case "outcome", {"action_id": str(action_id)}:
                return self._adapter.outcome(action_id)
            case "forecast", {"command": AcquireFrame() as command} if isinstance(microscope, Forecasting):
                return microscope.forecast(command)
            case "truth", _ if isinstance(microscope, HiddenTruth):
                return microscope.truth()
            case "specimen_dose", _ if self._dose is not None:
                return self._dose.specimen_dose()
            case "specimen_dose", _ if isinstance(microscope, CountsDose):
                return microscope.specimen_dose()
            case _:
                raise Unsupported(f"instrument {self._name!r} cannot answer {call!r} with {', '.join(arguments)}")


def fence_of(message: Any) -> int | None:
    """Whose call it is; None for what is no call."""
    match message:
        case {"request": {"fence": int(fence)}}:
            return fence
        case _:
            return None


def _checked(message: Any) -> tuple[Request, Mapping[str, Any]]:
    match message:
        case {"request": dict(request), "arguments": dict(arguments)}:
            try:
                return Request.model_validate(request), cast("dict[str, Any]", arguments)
            except ValidationError as error:
                raise WireError(f"no call of the command line: {error}") from error
        case _:
            raise WireError(f"no call of the command line: {message!r:.200}")
