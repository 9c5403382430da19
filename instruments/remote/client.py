"""The client's end of an instrument in its own process: a `Microscope` like any other, and the stop line beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from ssl import SSLCertVerificationError
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.dose_file import SpecimenDose
from instruments.errors import CommandRefused, InstrumentFault, ResultUnknown
from instruments.events import EventBatch
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.remote.endpoint import Endpoint, not_running, read_endpoint
from instruments.remote.failures import failure
from instruments.remote.lines import dial
from instruments.remote.status import InstrumentStatus, StopReport
from instruments.remote.wire import PROTOCOL, UnsendableError, WireError, receive, send
from instruments.state import MicroscopeState

T = TypeVar("T")
CONNECT_S: Final = 10.0
STOP_ANSWER_S: Final = 10.0
WAIT_S: Final = 60.0  # for an instrument that still finishes the exposure of its last owner
PATIENCE_S: Final = 600.0  # for an answer, beyond the deadline of the command itself
READ_PATIENCE_S: Final = 30.0  # for one that moves and computes nothing


def connect(endpoint: Endpoint | Path, *, timeout_s: float = CONNECT_S) -> RemoteInstrument:
    """The instrument whose endpoint (or endpoint file) this is, its command line open. Raises InstrumentFault."""
    where = endpoint if isinstance(endpoint, Endpoint) else read_endpoint(endpoint)
    return RemoteInstrument(where, dial_command_line(where, timeout_s=timeout_s))


def dial_command_line(endpoint: Endpoint, *, timeout_s: float = CONNECT_S) -> CommandLine:
    """A command line alone, for whoever puts something around it. Raises InstrumentFault."""
    if endpoint.port == 0:
        raise InstrumentFault(
            f"instrument {endpoint.name!r} is in the hands of a run in process {endpoint.pid}; wait for its end"
        )
    return CommandLine(endpoint, _dial(endpoint, endpoint.port, timeout_s))


@dataclass(frozen=True, slots=True)
class StopLine:
    """Looks at an instrument and stops it, whatever its owner does. Each call connects anew; all raise InstrumentFault.

    `timeout_s` is how long to wait for an answer; an instrument that is too stuck to give one has its beam on.
    """

    endpoint: Endpoint
    timeout_s: float = STOP_ANSWER_S

    @classmethod
    def of(cls, path: Path, *, timeout_s: float = STOP_ANSWER_S) -> Self:
        """That of the endpoint file."""
        return cls(read_endpoint(path), timeout_s)

    def status(self) -> InstrumentStatus:
        """What is loaded, who owns it, what runs, whether the beam is blanked."""
        return self._call({"call": "status"}, InstrumentStatus)

    def capabilities(self) -> Capabilities:
        """Of what is loaded; an InstrumentFault when nothing is."""
        return self._call({"call": "capabilities"}, Capabilities)

    def blank(self, reason: str, *, fence: int | None = None) -> StopReport:
        """Interrupt and blank; the owner may not act any more, the next one may.

        With `fence` only that owner is meant: if a newer one has the instrument, nothing happens.
        """
        return self._call({"call": "blank", "reason": reason, "fence": fence}, StopReport)

    def emergency_stop(self, reason: str, *, by: str) -> StopReport:
        """Interrupt, blank and lock: nobody may act until a person calls `clear`."""
        return self._call({"call": "emergency_stop", "reason": reason, "by": by}, StopReport)

    def events(self, after: int = 0, wait_s: float = 0.0) -> EventBatch:
        """What happened at the instrument after event number `after`, waiting for it as long as this."""
        with dial_stop_line(self.endpoint, self.timeout_s) as connection:
            call = {"call": "events", "after": after, "wait_s": wait_s, "fence": None}
            reply: dict[str, Any] = ask_on(connection, self.endpoint, call, dict, wait_s + self.timeout_s)
        return reply["batch"]

    def clear(self, *, by: str) -> InstrumentStatus:
        """Take the lock of an emergency stop off; the beam stays blanked until the next owner's command."""
        return self._call({"call": "clear", "by": by}, InstrumentStatus)

    def _call(self, message: dict[str, Any], kind: type[T]) -> T:
        with dial_stop_line(self.endpoint, self.timeout_s) as connection:
            return ask_on(connection, self.endpoint, message, kind, self.timeout_s)


def dial_stop_line(endpoint: Endpoint, timeout_s: float = STOP_ANSWER_S) -> Connection:
    """A stop line that stays, for whoever asks often. Raises InstrumentFault."""
    return _dial(endpoint, endpoint.stop_port, timeout_s)


def ask_on(connection: Connection, endpoint: Endpoint, message: dict[str, Any], kind: type[T], timeout_s: float) -> T:
    """The answer to one call of a stop line. Raises what was raised there, InstrumentFault where none comes."""
    try:
        send(connection, message)
        return _result(_next(connection, timeout_s), kind)
    except (OSError, EOFError, WireError) as error:
        raise InstrumentFault(silent_because(endpoint, str(error) or "it hung up")) from error


def silent_because(endpoint: Endpoint, because: str) -> str:
    """What to say, and to do, when an instrument's process is there and does not answer."""
    return (
        f"instrument {endpoint.name!r} (process {endpoint.pid}) does not answer ({because}): assume that its beam "
        f"is on, blank it at the instrument, then kill process {endpoint.pid}"
    )


class Line(Protocol):
    """Carries calls to an instrument: a `CommandLine`, or something around one."""

    def call(
        self, call: str, fence: int, arguments: Mapping[str, Any], *, patience_s: float, moves: bool = False
    ) -> Any:
        """The answer, or an error."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class CommandLine:
    """One connection, one call at a time; once broken it stays so."""

    def __init__(self, endpoint: Endpoint, connection: Connection) -> None:
        self.endpoint = endpoint
        self._connection: Connection | None = connection
        self._guard = threading.Lock()

    @property
    def is_broken(self) -> bool:
        """Whether there is nobody at the other end any more, as far as the last call knows."""
        return self._connection is None

    def close(self) -> None:
        """Hang up; more than once is harmless."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def call(
        self,
        call: str,
        fence: int,
        arguments: Mapping[str, Any],
        *,
        patience_s: float,
        wait_s: float = WAIT_S,
        moves: bool = False,
    ) -> Any:
        """The answer. A call that `moves` and has none is ResultUnknown, any other an InstrumentFault."""
        request = {"call": call, "fence": fence, "wait_s": wait_s}
        with self._guard:
            connection = self._living()
            try:
                send(connection, {"request": request, "arguments": dict(arguments)})
                reply = _next(connection, wait_s + patience_s)
            except UnsendableError as error:
                raise CommandRefused(f"{call} cannot be sent: {error}; nothing moved") from error
            except (OSError, EOFError, WireError) as error:
                self.close()
                kind = ResultUnknown if moves else InstrumentFault
                raise kind(
                    f"the line to instrument {self.endpoint.name!r} broke during {call} ({error or 'it hung up'}); "
                    "connect again and ask for the outcome"
                ) from error
            except BaseException:
                self.close()
                raise
        return _result(reply, object)

    def _living(self) -> Connection:
        """The connection, if the other end is still there: then nothing was sent, nothing can be unknown."""
        connection = self._connection
        if connection is None or connection.poll(0):
            self.close()
            name = self.endpoint.name
            raise InstrumentFault(
                f"the line to instrument {name!r} is broken; nothing was sent; connect and load again"
            )
        return connection


class RemoteInstrument:
    """A connected instrument; `load` gives the microscope."""

    def __init__(self, endpoint: Endpoint, line: Line) -> None:
        self.endpoint = endpoint
        self.stop_line = StopLine(endpoint)
        self._line = line

    def load(self, session_id: str, adapter: str, config: Mapping[str, Any], fence: int) -> RemoteMicroscope:
        """Own the instrument with this fence and open the adapter in its process; a Microscope.

        The same session, adapter and configuration again find the living instrument, which knows its action ids. It is
        Forecasting, Rebuildable or HiddenTruth when the adapter is. Raises ConfigurationError; CommandRefused for a
        fence older than one seen; InstrumentFault while it is locked; InstrumentBusy.
        """
        arguments = {"session_id": session_id, "adapter": adapter, "config": dict(config)}
        reply = self._line.call("load", fence, arguments, patience_s=PATIENCE_S)
        kind = _class_with(reply["protocols"])
        return kind(self._line, self.stop_line, fence, reply["capabilities"], is_living=reply["is_living"])

    def close(self) -> None:
        """Hang up; the instrument stays as it is."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RemoteMicroscope:
    """A `Microscope` in another process. All calls but `stop` from one thread at a time; `stop` from any."""

    def __init__(
        self, line: Line, stop_line: StopLine, fence: int, capabilities: Capabilities, *, is_living: bool
    ) -> None:
        self.stop_line = stop_line
        self.fence = fence
        self.is_living = is_living  # it was loaded for this session before, and knows what it did
        self._line = line
        self._capabilities = capabilities

    def capabilities(self) -> Capabilities:
        """As they were when it was loaded."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values now."""
        return self.ask("read_state", {}, patience_s=READ_PATIENCE_S)

    def execute(self, command: Command) -> MicroscopeState:
        """Carry out a command that yields no frame. Raises ResultUnknown when the line breaks."""
        return self.ask("execute", {"command": command}, more_s=command.deadline_s, moves=True)

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once, or be given a frame again that was exposed. Raises ResultUnknown when the line breaks."""
        return self.ask("acquire", {"command": command}, more_s=command.deadline_s, moves=True)

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost."""
        return self.ask("outcome", {"action_id": action_id}, patience_s=READ_PATIENCE_S)

    def stop(self) -> None:
        """Blank and interrupt by the stop line; nothing happens when somebody newer owns the instrument.

        Raises InstrumentFault when the instrument does not confirm that its beam is blanked.
        """
        report = self.stop_line.blank("stopped by its owner", fence=self.fence)
        if report.beam_blanked is not True and not report.is_ignored:
            raise InstrumentFault(f"instrument {report.name!r}: {report.message}")

    def close(self) -> None:
        """Hang up; the instrument stays as it is."""
        self._line.close()

    def ask(
        self,
        call: str,
        arguments: Mapping[str, Any],
        *,
        patience_s: float = PATIENCE_S,
        more_s: float = 0.0,
        moves: bool = False,
    ) -> Any:
        """One call on the command line with this owner's fence."""
        return self._line.call(call, self.fence, arguments, patience_s=patience_s + more_s, moves=moves)


def _forecast(self: RemoteMicroscope, command: AcquireFrame) -> tuple[float, float]:
    """(electrons, seconds) that `command` would take now; nothing moves."""
    return self.ask("forecast", {"command": command})


def _rebuild(self: RemoteMicroscope, commands: Sequence[Command]) -> None:
    """Put the simulated instrument into the state after `commands`."""
    self.ask("rebuild", {"commands": list(commands)})


def _truth(self: RemoteMicroscope) -> dict[str, Any]:
    """The hidden world, for the evaluation."""
    return self.ask("truth", {})


def _specimen_dose(self: RemoteMicroscope) -> SpecimenDose:
    """What the specimen that is in got so far, whoever exposed it."""
    return self.ask("specimen_dose", {}, patience_s=READ_PATIENCE_S)


def _acquire_dark(self: RemoteMicroscope, command: AcquireFrame) -> Frame:
    """What its detectors give without a beam. Raises ResultUnknown when the line breaks: stage and optics may move."""
    return self.ask("acquire_dark", {"command": command}, more_s=command.deadline_s, moves=True)


_EXTRA_METHODS: Final[dict[str, dict[str, Callable[..., Any]]]] = {
    "Forecasting": {"forecast": _forecast},
    "Rebuildable": {"rebuild": _rebuild},
    "HiddenTruth": {"truth": _truth},
    "CountsDose": {"specimen_dose": _specimen_dose},
    "TakesDarkFrames": {"acquire_dark": _acquire_dark},
}


def _class_with(protocols: Sequence[str]) -> type[RemoteMicroscope]:
    """A RemoteMicroscope with the methods of these protocols and no others: which there are is asked by isinstance."""
    methods = {name: method for protocol in protocols for name, method in _EXTRA_METHODS[protocol].items()}
    return type("RemoteMicroscope", (RemoteMicroscope,), methods)


def _dial(endpoint: Endpoint, port: int, timeout_s: float) -> Connection:
    if endpoint.protocol != PROTOCOL:
        raise InstrumentFault(
            f"instrument {endpoint.name!r} speaks protocol {endpoint.protocol}, this is {PROTOCOL}: restart its "
            "process with the same version of stempilot"
        )
    try:
        return dial(endpoint.host, port, endpoint.authkey(), timeout_s, endpoint.tls())
    except SSLCertVerificationError as error:
        raise InstrumentFault(
            f"instrument {endpoint.name!r} at {endpoint.host} shows another certificate than its ticket has, or one "
            f"that is not valid now ({error.verify_message}); copy the ticket again, and look who answers there if it "
            "is the same"
        ) from error
    except AuthenticationError as error:
        raise InstrumentFault(
            f"instrument {endpoint.name!r} at port {port} refuses this secret; read its endpoint file again"
        ) from error
    except BlockingIOError as error:
        raise InstrumentFault(silent_because(endpoint, f"silent for {timeout_s:g} s")) from error
    except OSError as error:
        raise InstrumentFault(not_running(endpoint.name, f"port {port} of {endpoint.host}: {error}")) from error


def _next(connection: Connection, patience_s: float) -> Any:
    """The next message. Raises TimeoutError when there is none in time."""
    if not connection.poll(patience_s):
        raise TimeoutError(f"silent for {patience_s:g} s")
    return receive(connection)


def _result(reply: Any, kind: type[T]) -> T:
    match reply:
        case {"result": result} if isinstance(result, kind):
            return result
        case {"error": _, "message": _}:
            raise failure(reply)
        case _:
            raise InstrumentFault(f"an answer that is none: {reply!r:.200}")
