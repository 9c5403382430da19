"""Any adapter in a process of its own, under another Python: for a library that needs one, or that may hang or crash.

    [instruments.column]
    adapter = "worker"
    [instruments.column.config]
    python = "/opt/vendor/bin/python"
    adapter = "vendor_adapter:open_column"
    config = {host = "192.168.0.7"}

That Python needs pydantic, NumPy and the adapter's library, nothing else of stempilot. Neighbours: `workers` (the
process), `remote` (an instrument as a process that outlives its owner; a worker ends with its own).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from instruments.adapters.adapter_config import AdapterConfig
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.deadlines import OVERHEAD_S
from instruments.errors import (
    CommandRefused,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    Unsupported,
)
from instruments.events import Events
from instruments.frames import Frame
from instruments.microscope import Outcome, Releasable
from instruments.remote.wire import UnsendableError, WireError, pack, unpack
from instruments.state import MicroscopeState
from instruments.workers import Program, Worker

DEVICE: Final = Path(__file__).parents[1] / "workers" / "microscope_device.py"
READ_S: Final = 30.0
REBUILD_S: Final = 600.0
_NOTHING_MOVED: Final = (CommandRefused, InstrumentBusy, Unsupported)


class WorkerConfig(AdapterConfig):
    """Which Python, which adapter in it, and the adapter's own configuration."""

    adapter_name = "worker"

    python: Path
    adapter: str = Field(min_length=1, description="a registered name, or `module:function` of that Python")
    config: dict[str, Any] = Field(default_factory=dict)
    path: tuple[str, ...] = Field(default=(), description="folders in which that Python looks for modules besides")
    start_s: float = Field(default=120.0, gt=0, le=3600, description="for the adapter to be open")


def open_worker(**config: Any) -> WorkerMicroscope:
    """Open an adapter in a worker; the keys are those of `WorkerConfig`. Raises ConfigurationError, InstrumentFault."""
    checked = WorkerConfig.checked(config)
    opening = {"adapter": checked.adapter, "config": checked.config, "path": list(checked.path)}
    program = Program(
        name=f"worker of {checked.adapter}", python=checked.python, file=DEVICE, config=opening, start_s=checked.start_s
    )
    worker = Worker(program)
    try:
        tells = bool(worker.call("tells", deadline_s=READ_S))
        protocols = worker.call("protocols", {"names": list(_EXTRA_METHODS)}, deadline_s=READ_S)
        methods = {name: method for protocol in protocols for name, method in _EXTRA_METHODS[protocol].items()}
        return type("WorkerMicroscope", (WorkerMicroscope,), methods)(worker, tells=tells)
    except BaseException:
        worker.close()
        raise


class WorkerMicroscope:
    """Microscope, Linked, Eventful and Closable in a worker; Forecasting and so on where its adapter is."""

    def __init__(self, worker: Worker, *, tells: bool = False) -> None:
        """`tells`: the adapter tells of events."""
        self.worker = worker
        self._tells = tells
        self._capabilities: Capabilities = self.ask("capabilities")
        self._sent: dict[str, int] = {}  # action id -> the start of the worker it was sent to

    def capabilities(self) -> Capabilities:
        """As they were when it was opened."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values now."""
        return self.ask("read_state")

    def execute(self, command: Command) -> MicroscopeState:
        """Carry out a command that yields no frame. Raises ResultUnknown when the worker dies or hangs over it."""
        return self._commanded("execute", command)

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once, or be given a frame again. Raises ResultUnknown when the worker dies or hangs over it."""
        return self._commanded("acquire", command)

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action: unknown where the worker that had it is gone and a new one knows nothing."""
        outcome: Outcome = self.ask("outcome", action_id)
        sent_to = self._sent.get(action_id, self.worker.start_count)
        return "unknown" if outcome == "not_started" and sent_to != self.worker.start_count else outcome

    def stop(self) -> None:
        """Blank and interrupt. A worker that does not say in time that it has, is killed and a new one blanks."""
        self.worker.stop(max(3.0, 2 * self._capabilities.stop_latency_s))

    def is_link_lost(self) -> bool:
        """Whether the worker was killed or died, and has not been started again."""
        return self.worker.is_lost

    def reconnect(self) -> None:
        """Start a worker that was lost; its adapter is stopped, and goes on where it can (`Releasable`)."""
        self.worker.start()
        if isinstance(self, Releasable):
            self.release()

    @property
    def events(self) -> Events:
        """What happens at the adapter, told after each command; and that its process was lost, and runs again."""
        return self.worker.events

    def close(self) -> None:
        """End the worker, which blanks."""
        self.worker.close()

    def ask(self, method: str, *arguments: Any, deadline_s: float = READ_S, moves: bool = False) -> Any:
        """One call of the adapter's method. Raises ResultUnknown or LinkLost without an answer in time."""
        arrays: list[Any] = []
        try:
            request = {"method": method, "packed": pack(list(arguments), arrays), "arrays": arrays}
        except UnsendableError as error:
            raise CommandRefused(f"{method} cannot be sent: {error}; nothing moved") from error
        reply: Mapping[str, Any] = self.worker.call("ask", request, deadline_s=deadline_s, moves=moves)
        try:
            return unpack(reply["packed"], reply["arrays"])
        except (ValidationError, ValueError, TypeError, KeyError, IndexError, WireError) as error:
            raise InstrumentFault(f"{self.worker.program.name} answered {method} with what is none: {error}") from error

    def _commanded(self, method: str, command: Command) -> Any:
        self.worker.start()
        self._sent.setdefault(command.action_id, self.worker.start_count)
        try:
            return self.ask(method, command, deadline_s=command.deadline_s + OVERHEAD_S, moves=True)
        except _NOTHING_MOVED:
            if method == "execute" or self.ask("outcome", command.action_id) == "not_started":
                del self._sent[command.action_id]
            raise
        finally:
            if self._tells and not self.worker.is_lost:
                self._take_in_events()

    def _take_in_events(self) -> None:
        with suppress(InstrumentError):  # what came of the command is more than what is told of it
            packed = self.worker.call("new_events", deadline_s=READ_S)
            if packed is not None:
                self.events.take_in(unpack(packed, []), self.worker.program.name)


def _forecast(self: WorkerMicroscope, command: AcquireFrame) -> tuple[float, float]:
    """(electrons, seconds) that `command` would take now; nothing moves."""
    return self.ask("forecast", command)


def _rebuild(self: WorkerMicroscope, commands: Sequence[Command]) -> None:
    """Put the simulated instrument into the state after `commands`."""
    self.ask("rebuild", list(commands), deadline_s=REBUILD_S)


def _truth(self: WorkerMicroscope) -> dict[str, Any]:
    """The hidden world, for the evaluation."""
    return self.ask("truth", deadline_s=REBUILD_S)


def _release(self: WorkerMicroscope) -> None:
    """Go on after `stop`."""
    self.ask("release")


def _acquire_dark(self: WorkerMicroscope, command: AcquireFrame) -> Frame:
    """What `acquire` would give without a beam."""
    return self.ask("acquire_dark", command, deadline_s=command.deadline_s + OVERHEAD_S, moves=True)


_EXTRA_METHODS: Final[dict[str, dict[str, Callable[..., Any]]]] = {
    "Forecasting": {"forecast": _forecast},
    "Rebuildable": {"rebuild": _rebuild},
    "HiddenTruth": {"truth": _truth},
    "Releasable": {"release": _release},
    "TakesDarkFrames": {"acquire_dark": _acquire_dark},
}
