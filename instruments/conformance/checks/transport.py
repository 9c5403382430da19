"""What an adapter does when its server is silent, late, gone, or shared.

No answer may be waited for without end, none taken for that of another call, and no exposure repeated for a lost one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from instruments.commands import AcquireFrame
from instruments.conformance.bench import Bench, CannotJudge
from instruments.conformance.check import Check, Result, failed, passed
from instruments.conformance.findings import Measured
from instruments.conformance.frames import Shot
from instruments.conformance.owner import Hung, OwnerThread, attempted, awaited
from instruments.conformance.proxy import FaultyLine
from instruments.conformance.target import CountsExposures, Served
from instruments.errors import CommandRefused, InstrumentBusy, InstrumentError, Unsupported
from instruments.microscope import Microscope
from instruments.state import MicroscopeState

_NOTHING_MOVED = (CommandRefused, InstrumentBusy, Unsupported)
_OUTCOMES = ("delivered", "not_started", "unknown")
_NO_SERVER = "its target names no server that the kit may interfere with (it is not `Served`)"
_UNDER_WAY_S = 0.5  # without an answer: what only an exposure takes
_LOOK_S = 0.01


class Wire:
    """A microscope opened through lines that the check can spoil, called from one thread of its own."""

    def __init__(self, bench: Bench, target: Served, lines: list[FaultyLine]) -> None:
        self.target = target
        self._bench = bench
        self._lines = lines
        self._owner = OwnerThread()
        self._is_closed = False
        self.microscope = self.call(lambda: target.open_at(tuple(line.address for line in lines)), "opening")

    def spoil(self, how: Callable[[FaultyLine], None]) -> None:
        """The same to every line."""
        for line in self._lines:
            how(line)

    def unanswered_s(self) -> float:
        """How long a request has been waiting for its answer, on the line where that is longest."""
        return max(line.unanswered_s() for line in self._lines)

    def exposure_count(self) -> int | None:
        """Of the server until now; None where nobody counts."""
        return self.target.exposure_count() if isinstance(self.target, CountsExposures) else None

    def call(self, call: Callable[[], Any], what: str) -> Any:
        """What the call returns or raises. Raises Hung."""
        return self._owner.call(call, self._bench.conditions.patience_s, what)

    def begin(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call."""
        return self._owner.begin(call)

    def close(self) -> None:
        """Cut the lines, close the microscope as well as it goes; once."""
        if self._is_closed:
            return
        self._is_closed = True
        for line in self._lines:
            line.close()
        closing = self._owner.begin(lambda: self._bench.target.close(self.microscope))
        with suppress(InstrumentError, OSError, Hung):  # its lines are gone: how it closes then is not judged here
            awaited(closing, self._bench.conditions.patience_s, "closing")
        self._owner.end(0.1)


@contextmanager
def _wired(bench: Bench) -> Iterator[Wire]:
    target = bench.target
    if not isinstance(target, Served):
        raise CannotJudge(_NO_SERVER)
    bench.put_away()
    with ExitStack() as open_lines:
        lines = [open_lines.enter_context(FaultyLine(address)) for address in target.addresses()]
        wire = Wire(bench, target, lines)
        open_lines.callback(wire.close)
        yield wire


def _mute_server(bench: Bench) -> Result:
    with _wired(bench) as wire:
        wire.call(wire.microscope.read_state, "read_state")
        wire.spoil(FaultyLine.fall_silent)
        begun_s = time.monotonic()
        try:
            wire.call(wire.microscope.read_state, "read_state of a silent server")
        except InstrumentError as error:
            patience_s = bench.conditions.patience_s
            took = Measured(name="said so after", value=time.monotonic() - begun_s, unit="s", high=patience_s)
            return _stop_unheard(wire, f"{type(error).__name__}: {error}", took)
        return failed("the server was silent, and read_state gave an answer all the same")


def _stop_unheard(wire: Wire, said: str, took: Measured) -> Result:
    """Whether a stop that nobody can have heard is said to be one."""
    try:
        wire.call(wire.microscope.stop, "stop of a silent server")
    except InstrumentError:
        return passed(said, took)
    return failed("the server was silent, and stop came back as if the beam were blanked", took)


def _call_after_timeout(bench: Bench) -> Result:
    with _wired(bench) as wire:
        microscope = wire.microscope
        wire.call(microscope.read_state, "read_state")
        wire.spoil(FaultyLine.hold_answers)
        late = attempted(lambda: wire.call(microscope.read_state, "read_state of a late server")).exception()
        if isinstance(late, Hung):
            raise late  # any other error is judged by `mute_server`
        wire.spoil(FaultyLine.heal)
        return _answers_right(bench, wire, microscope)


def _answers_right(bench: Bench, wire: Wire, microscope: Microscope) -> Result:
    """Whether calls after a late answer are answered by what they asked for, or refused, or a new opening helps."""
    said: InstrumentError | None = None
    for _ in range(3):
        try:
            outcome = wire.call(lambda: microscope.outcome("never-asked"), "outcome")
            state = wire.call(microscope.read_state, "read_state")
        except InstrumentError as error:
            said = error
            continue
        if outcome not in _OUTCOMES or not isinstance(state, MicroscopeState):
            return failed(f"a late answer was taken for that of the next call: outcome() gave {outcome!r:.80}")
        return passed("after a call that had no answer in time the next ones are answered right")
    fresh = wire.call(lambda: bench.target.open(), "opening again")
    try:
        wire.call(fresh.read_state, "read_state after opening again")
    finally:
        wire.call(lambda: bench.target.close(fresh), "closing")
    return passed(f"it says that it has to be opened again ({said}), and then works")


def _lost_answer(bench: Bench) -> Result:
    command = _permitted(bench, "lost")
    with _wired(bench) as wire:
        before = wire.exposure_count()
        error = _broken_in_mid_command(bench, wire, command, lambda: wire.spoil(_cut_once))
        if isinstance(error, Result):
            return error
        wire.close()  # its server may have room for one client
        again = _opened_again(bench, command)
        try:
            outcome = bench.timed(lambda: again.outcome(command.action_id), "outcome")
        finally:
            bench.timed(lambda: bench.target.close(again), "closing")
        after = wire.exposure_count()
    if outcome == "not_started":
        return failed("the exposure's answer was lost, and its outcome is 'not_started': its dose would be spent twice")
    counted = "" if before is None or after is None else f"; {after - before} exposure(s) at the server"
    if before is not None and after is not None and after - before > command.subframe_count:
        return failed(f"the exposure was sent again after its answer was lost{counted}")
    return passed(f"{type(error).__name__}; after connecting again its outcome is {outcome!r}{counted}")


def _opened_again(bench: Bench, command: AcquireFrame) -> Microscope:
    """A new opening; that its server is busy with the exposure is waited out. Raises what opening raises."""
    until_s = time.monotonic() + bench.conditions.patience_s + command.deadline_s
    while True:
        try:
            return bench.timed(bench.target.open, "opening again")
        except InstrumentBusy:
            if time.monotonic() > until_s:
                raise
        time.sleep(_UNDER_WAY_S)


def _permitted(bench: Bench, shot: Shot) -> AcquireFrame:
    """An exposure to be made over a line of the check's own. Raises CannotJudge."""
    if not isinstance(bench.target, Served):
        raise CannotJudge(_NO_SERVER)
    command = bench.shots.command(shot)
    bench.permit(command)
    return command


def _cut_once(line: FaultyLine) -> None:
    """Hang up; who dials again finds a line that is whole."""
    line.cut()
    line.heal()


def _server_killed(bench: Bench) -> Result:
    command = _permitted(bench, "killed")
    with _wired(bench) as wire:
        try:
            error = _broken_in_mid_command(bench, wire, command, wire.target.kill)
        finally:
            begun_s = time.monotonic()
            wire.target.revive()
        if isinstance(error, Result):
            return error
        wire.close()
        again = _opened_again(bench, command)
        try:
            bench.timed(again.read_state, "read_state after the server came back")
        finally:
            bench.timed(lambda: bench.target.close(again), "closing")
    back = Measured(name="server started and connected again in", value=time.monotonic() - begun_s, unit="s")
    return passed(f"{type(error).__name__}; with a new server it works again", back)


def _broken_in_mid_command(
    bench: Bench, wire: Wire, command: AcquireFrame, spoil: Callable[[], None]
) -> InstrumentError | Result:
    """How an exposure ends whose request went out and whose answer never comes; a Result if it ends wrongly."""
    microscope, before = wire.microscope, wire.exposure_count()
    exposing = wire.begin(lambda: microscope.acquire(command))
    _under_way(wire, exposing, before, bench.conditions.patience_s)
    wire.spoil(FaultyLine.hold_answers)
    spoil()
    try:
        awaited(exposing, bench.conditions.patience_s + command.deadline_s, "acquire over a line that broke")
    except _NOTHING_MOVED as error:
        return failed(f"{type(error).__name__} ({error}): that says nothing moved, but the exposure had been sent")
    except InstrumentError as error:
        return error
    return failed("the line broke before any answer came, and acquire gave a frame: it was exposed again, or invented")


def _under_way(wire: Wire, exposing: Future[Any], before: int | None, patience_s: float) -> None:
    """Let all that comes before it pass until the exposure runs. Raises CannotJudge when it is not seen to."""
    begun_s = time.monotonic()
    while not exposing.done() and time.monotonic() - begun_s < patience_s:
        count = wire.exposure_count()
        if count is not None and before is not None:
            if count > before:
                return
        elif _UNDER_WAY_S <= wire.unanswered_s() <= time.monotonic() - begun_s:
            return
        time.sleep(_LOOK_S)
    if not exposing.done():
        raise CannotJudge(f"no exposure was seen to begin within {patience_s:g} s")
    ended = exposing.exception() or "a frame came"
    raise CannotJudge(
        f"the exposure was over before the line could be broken in it ({ended}); raise stop_exposure_s, or let the "
        "target count its exposures (`CountsExposures`)"
    )


# --- several clients


def _concurrent_clients(bench: Bench) -> Result:
    allowed = bench.capabilities.concurrent_clients
    if allowed == 1 and not isinstance(bench.target, Served):
        raise CannotJudge("one client is declared, and its target names no server that a second one could reach")
    first = bench.read_state()
    faults, refused, call_count = _hammered(bench, first)
    clients = bench.conditions.client_count
    if len(refused) == clients:  # nobody took over: whoever was there first must be served as before
        faults += _state_faults(bench.read_state(), first)
    elif isinstance(attempted(bench.read_state).exception(), InstrumentError):
        with suppress(InstrumentError):  # it has another owner now, and the next check opens it anew
            bench.put_away()
    if faults:
        return failed(f"{len(faults)} of {call_count} answers were wrong, such as {faults[0]}")
    if refused and allowed >= clients:
        return failed(f"{allowed} clients are declared, of {clients} some were refused: {refused[0]}")
    how = f"; {len(refused)} were refused by name ({refused[0]})" if refused else ""
    return passed(f"{clients} clients at once, {call_count} answers of the right kind and value{how}")


def _hammered(bench: Bench, first: MicroscopeState) -> tuple[list[str], list[str], int]:
    """Wrong answers, refusals, and how many calls there were, of several clients at once."""
    conditions = bench.conditions
    owners = [OwnerThread(f"conformance client {number}") for number in range(conditions.client_count)]
    opened = [owner.begin(bench.target.open) for owner in owners]
    working = [
        owner.begin(lambda number=number, opening=opening: _client(bench, number, opening, first))
        for number, (owner, opening) in enumerate(zip(owners, opened, strict=True))
    ]
    try:
        results = [awaited(work, conditions.patience_s, "a client among several") for work in working]
    finally:
        for owner, opening in zip(owners, opened, strict=True):
            if opening.done() and opening.exception() is None:
                owner.begin(lambda opening=opening: bench.target.close(opening.result()))
            owner.end()
    return (
        [fault for faults, _ in results for fault in faults],
        [refusal for _, refusals in results for refusal in refusals],
        sum(conditions.client_call_count for _, refusals in results if not refusals),
    )


def _client(
    bench: Bench, number: int, opening: Future[Microscope], first: MicroscopeState
) -> tuple[list[str], list[str]]:
    """Wrong answers of one client, and why it was refused, at its opening or later."""
    faults: list[str] = []
    try:
        microscope = opening.result()
    except InstrumentError as error:
        return faults, [f"{type(error).__name__}: {error}"]
    try:
        delivered = _Delivered.asked(microscope, bench)
        for count in range(bench.conditions.client_call_count):
            faults += _one_call(microscope, f"client-{number}-{count}", count, bench, first)
            faults += delivered.faults(microscope)
    except InstrumentError as error:
        return faults, [f"{type(error).__name__}: {error}"]
    return faults, []


@dataclass(frozen=True, slots=True)
class _Delivered:
    """An action that gave a frame, and what one client is told of it: the answers to others differ from that."""

    action_id: str | None
    outcome: str

    @classmethod
    def asked(cls, microscope: Microscope, bench: Bench) -> Self:
        """The frame `still`, where it was taken before."""
        action_id = bench.delivered("still")
        return cls(action_id, microscope.outcome(action_id) if action_id is not None else "")

    def faults(self, microscope: Microscope) -> list[str]:
        """Whether the answer is another than before."""
        if self.action_id is None or (outcome := microscope.outcome(self.action_id)) == self.outcome:
            return []
        return [f"outcome() of an action gave {outcome!r:.80} and {self.outcome!r:.80}"]


def _one_call(microscope: Microscope, action_id: str, count: int, bench: Bench, first: MicroscopeState) -> list[str]:
    match count % 3:
        case 0:
            return _state_faults(microscope.read_state(), first)
        case 1:
            outcome = microscope.outcome(action_id)
            return [] if outcome in ("not_started", "unknown") else [f"outcome() of a new action gave {outcome!r:.80}"]
        case _:
            card = microscope.capabilities()
            return [] if card == bench.capabilities else [f"capabilities() gave {card!r:.80}"]


def _state_faults(answer: object, first: MicroscopeState) -> list[str]:
    """What is wrong with an answer that should be a state with the stage where it was: servers mix answers up."""
    is_right = isinstance(answer, MicroscopeState) and answer.stage == first.stage
    return [] if is_right else [f"read_state() gave {answer!r:.80}"]


MUTE_SERVER = Check(
    name="mute_server",
    does="lets the server fall silent, reads the state and stops; moves and exposes nothing",
    cure="put a limit of time on every call, stop included, and raise InstrumentFault when it runs out",
    run=_mute_server,
)
CALL_AFTER_TIMEOUT = Check(
    name="call_after_timeout",
    does="holds an answer back until the adapter gives up, lets it come late, and calls again",
    cure="throw the connection away after a call that had no answer; a late answer must never meet the next call",
    run=_call_after_timeout,
)
LOST_ANSWER = Check(
    name="lost_answer",
    does="cuts the line while an exposure runs, before its answer; asks a new connection for its outcome",
    cure="raise ResultUnknown, and never repeat an exposure alone; outcome() says delivered or unknown",
    run=_lost_answer,
    shots=("lost",),
)
SERVER_KILLED = Check(
    name="server_killed",
    does="kills the server in the middle of an exposure and starts it again",
    cure="raise ResultUnknown (or InstrumentFault), and let a new opening connect again",
    run=_server_killed,
    shots=("killed",),
)
CONCURRENT_CLIENTS = Check(
    name="concurrent_clients",
    does="opens several clients at once, each of which reads and compares kind and value of every answer",
    cure="frame messages and number them, or let one client in at a time and refuse the others",
    run=_concurrent_clients,
)
