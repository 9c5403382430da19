"""The microscope on the bench: opened when first needed, exposed once per shot, whatever check asks for it.

Checks come in any order, and each shot is taken once and shared: dose is spent once. Neighbours: `frames` (what is
exposed), `owner` (the thread that calls).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from secrets import token_hex
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from instruments.actions import NOTHING_MOVED
from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command
from instruments.conformance.conditions import Conditions
from instruments.conformance.frames import SHOTS, TOGETHER, Shot, Shots
from instruments.conformance.given import Given
from instruments.conformance.holdings import Holdings
from instruments.conformance.owner import Hung, OwnerThread, attempted, awaited
from instruments.conformance.target import AdapterTarget, OpenedTarget, Target
from instruments.dose_ledger import DoseLedger
from instruments.envelope_checks import check_bounds, check_permissions, check_pole_piece, check_steps
from instruments.errors import CommandRefused, InstrumentError, InstrumentFault, Unsupported
from instruments.exposure_checks import Charge
from instruments.frames import Frame
from instruments.guards import GuardedMicroscope, worst_charge
from instruments.limits import SafetyEnvelope
from instruments.microscope import Microscope, Releasable
from instruments.state import MicroscopeState

T = TypeVar("T")
_NO_FRAMES: Final = "this instrument declares no mode: it takes no frames"


class Halted(InstrumentFault):
    """Somebody stopped the instrument from outside: nothing more is asked of it."""


class CannotJudge(Exception):
    """What a check needs is not there; it says so and is skipped."""


class Bench:
    """One target under test. `close` gives everything back; a context manager."""

    def __init__(
        self, target: Target, conditions: Conditions | None = None, envelope: SafetyEnvelope | None = None
    ) -> None:
        self.target = target
        self.conditions = conditions or Conditions()
        self.envelope = envelope or SafetyEnvelope()
        self._halted_because: str | None = None
        self._owner = OwnerThread()
        self._microscope: Microscope | None = None
        self._capabilities: Capabilities | None = None
        self._guarded: GuardedMicroscope | None = None
        self._given: Given | None = None
        self._hung: Hung | None = None
        self._ledger = DoseLedger()
        self._before: Holdings | None = None
        self._opening_count = 0
        self._taken_in: dict[Shot, int] = {}
        self._shots: Shots | None = None
        self._commands: dict[Shot, AcquireFrame] = {}
        self._frames: dict[Shot, Frame] = {}
        self._refused: dict[Shot, Exception] = {}
        self._objections: dict[Shot, Exception] = {}
        self._measured: dict[tuple[str, ...], Future[Any]] = {}

    # --- opening and closing

    @property
    def microscope(self) -> Microscope:
        """The adapter itself, without a guard: what it refuses, it refuses by itself. Raises Halted."""
        if self._halted_because is not None:
            raise Halted(self._halted_because)
        if self._microscope is None:
            self._before = Holdings.now()
            self._microscope = self._sound(lambda: self.timed(self.target.open, "opening"), "opening", object)
            self._opening_count += 1
        return self._microscope

    @property
    def capabilities(self) -> Capabilities:
        """As the instrument said first."""
        if self._capabilities is None:
            self._capabilities = self._sound(
                lambda: self.call(lambda microscope: microscope.capabilities(), "capabilities"),
                "capabilities()",
                Capabilities,
            )
        return self._capabilities

    @property
    def shots(self) -> Shots:
        """Commands of the kit's exposures, around where the instrument stood when it was opened.

        Raises ConfigurationError for conditions that the instrument says it cannot meet.
        """
        if self._shots is None:
            self.conditions.refuse_beyond(self.capabilities)
            state = self._sound(self.read_state, "read_state()", MicroscopeState)
            self._shots = Shots(self.capabilities, state, self.conditions, token_hex(4))
        return self._shots

    def _sound(self, ask: Callable[[], T], what: str, kind: type) -> T:
        """What an instrument must answer before anything can be tried. Raises InstrumentError where it does not."""
        asked = attempted(ask)
        error = asked.exception()
        if isinstance(error, InstrumentError):
            raise error
        if error is not None:
            raise InstrumentFault(f"{self.target.name}: {what} raised {type(error).__name__}: {error}") from error
        if not isinstance(asked.result(), kind):
            raise InstrumentFault(f"{self.target.name}: {what} gave {asked.result()!r:.80}, no {kind.__name__}")
        return asked.result()

    def close(self) -> None:
        """Blank, close the microscope, let the thread go. Raises InstrumentError."""
        try:
            error = attempted(self.put_away).exception()
        finally:
            self._owner.end()
        if isinstance(error, InstrumentError):
            raise error
        if error is not None:
            raise InstrumentFault(
                f"{self.target.name} was not stopped and closed ({type(error).__name__}: {error}); assume that its "
                "beam is on, and look at it"
            ) from error

    def put_away(self) -> None:
        """Blank and close the microscope; the next call opens it again."""
        microscope, self._microscope, self._guarded = self._microscope, None, None
        if microscope is None:
            return
        try:
            self.timed(microscope.stop, "stop")
        finally:
            self.timed(lambda: self.target.close(microscope), "closing")

    def left_behind(self) -> list[str]:
        """Put the microscope away, and name what it took since it was opened and has not given back."""
        self.read_state()
        before, microscope = self._before or Holdings.now(), self._microscope
        self.put_away()
        if microscope is not None and isinstance(self.target, OpenedTarget | AdapterTarget):
            self._close_again(microscope)
        del microscope
        return before.still_held(self.conditions.patience_s)

    def _close_again(self, microscope: Microscope) -> None:
        """Harmless, where the target has nothing to do with it but the adapter's own `close`."""
        self.timed(lambda: self.target.close(microscope), "closing a second time")

    def halt(self, because: str) -> None:
        """Ask nothing more of the instrument, whatever check runs; from any thread. The caller stops it."""
        self._halted_because = because

    def stop(self) -> None:
        """Blank and interrupt what is open; from any thread."""
        microscope = self._microscope
        if microscope is not None:
            microscope.stop()

    def abandon(self) -> None:
        """Leave a microscope that hangs to its thread, and go on with a new one of each."""
        self._microscope, self._guarded, self._owner = None, None, OwnerThread()

    def go_on(self) -> None:
        """Ready again after `stop`."""
        microscope = self.microscope
        if isinstance(microscope, Releasable):
            self.timed(microscope.release, "release")
        else:
            self.put_away()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- calling

    def timed(self, call: Callable[[], T], what: str) -> T:
        """The result of a call in the owner's thread. Raises Hung after `patience_s`; then the owner is a new one."""
        try:
            return self._owner.call(call, self.conditions.patience_s, what)
        except Hung:
            self.abandon()
            raise

    def call(self, ask: Callable[[Microscope], T], what: str) -> T:
        """The same, of the microscope."""
        microscope = self.microscope
        return self.timed(lambda: ask(microscope), what)

    def read_state(self) -> MicroscopeState:
        """Read back now."""
        return self.call(lambda microscope: microscope.read_state(), "read_state")

    def blank(self) -> MicroscopeState:
        """Blank the beam; the state read back after it."""
        command = Blank(action_id=self.shots.action_id())
        return self.call(lambda microscope: microscope.execute(command), "blank")

    def acquire(self, command: AcquireFrame) -> Frame:
        """The adapter's own answer to a command, whatever it is; no guard."""
        microscope = self.microscope
        patience_s = self.conditions.patience_s + command.deadline_s
        try:
            return self._owner.call(lambda: microscope.acquire(command), patience_s, "acquire")
        except Hung:
            self.abandon()
            raise

    def begin(self, command: AcquireFrame) -> Future[Frame]:
        """Start an exposure through the guard; its frame comes later."""
        guarded = self._guard()
        return self._owner.begin(lambda: guarded.acquire(command))

    def wait(self, future: Future[T], patience_s: float, what: str) -> T:
        """The result of what was begun. Raises Hung; then the owner is a new one."""
        try:
            return awaited(future, patience_s, what)
        except Hung:
            self.abandon()
            raise

    # --- exposing

    def frame(self, shot: Shot) -> Frame:
        """The frame of that name, exposed through the facility's envelope. Raises CannotJudge where there is none."""
        if not self.capabilities.modes:
            raise CannotJudge(_NO_FRAMES)
        if shot not in self._frames and shot not in self._refused:
            for one in next((group for group in TOGETHER if shot in group), (shot,)):
                self._take(one)
        if shot in self._refused:
            raise CannotJudge(f"no frame {shot!r}: {self._refused[shot]}") from self._refused[shot]
        return self._frames[shot]

    def permit(self, command: AcquireFrame) -> Charge:
        """Debit an exposure that is not made through the guard. Raises CannotJudge where the envelope forbids it."""
        if not self.capabilities.modes:
            raise CannotJudge(_NO_FRAMES)
        guarded = self._guard()
        try:
            charge = self.timed(lambda: guarded.check_limits(command), "the guard")
        except CommandRefused as error:
            raise CannotJudge(f"the facility's envelope forbids it: {error}") from error
        self._ledger.add_frame(command, charge.electrons, charge.settling_electrons, charge.cells)
        return charge

    def dare(self, command: Command, *, by_execute: bool = False, as_if: AcquireFrame | None = None) -> object:
        """The adapter's own answer to what it should refuse, and may carry out; no guard.

        Of a real instrument it is asked only where the facility's envelope allows what would happen, which for a
        command that makes no sense is `as_if`. Raises CannotJudge where not.
        """
        if self.capabilities.simulated:
            return self._answer(command, by_execute=by_execute)
        if not isinstance(command, AcquireFrame):
            self._refuse_beyond(axis_values(command))
            return self._answer(command, by_execute=by_execute)
        exposed = as_if or command
        charge = self.permit(exposed)
        try:
            return self._answer(command, by_execute=by_execute)
        except NOTHING_MOVED:
            self._ledger.add_frame(exposed, -charge.electrons, -charge.settling_electrons, charge.cells)
            raise

    def _answer(self, command: Command, *, by_execute: bool) -> object:
        if isinstance(command, AcquireFrame) and not by_execute:
            return self.acquire(command)
        return self.call(lambda microscope: microscope.execute(command), command.kind)

    def _refuse_beyond(self, values: Mapping[str, AxisValue]) -> None:
        state, limits = self.read_state(), self.envelope
        places = {name: [value] for name, value in state.all_axes().items() if isinstance(value, float)}
        try:
            check_permissions(values, self.capabilities, limits)
            check_bounds(values, limits)
            check_steps(values, places, {}, limits)
            check_pole_piece(values, places, limits)
        except CommandRefused as error:
            raise CannotJudge(f"the facility's envelope forbids it: {error}") from error

    def renewed(self, shot: Shot) -> Frame:
        """The frame, from the microscope that is open now: taken again if it was opened anew since."""
        self.frame(shot)
        if self._microscope is None or self._taken_in[shot] != self._opening_count:
            self._frames.pop(shot)
            self._take(shot)
        return self.frame(shot)

    def once(self, frames: tuple[Frame, ...], measure: Callable[[], T]) -> T:
        """What is measured on these frames, or was before; what it raised is raised again."""
        key = tuple(frame.action_id for frame in frames)
        if key not in self._measured:
            self._measured[key] = attempted(measure)
        return self._measured[key].result()

    def why_none(self, shot: Shot) -> Exception | None:
        """The error that came instead of this shot; None if it was taken."""
        try:
            self.frame(shot)
        except CannotJudge as reason:
            return self._refused.get(shot) or Unsupported(str(reason))
        return None

    def asked(self, shot: Shot) -> AcquireFrame:
        """What was asked for when this frame was taken, whatever the frame says of that. Raises CannotJudge."""
        self.frame(shot)
        return self._commands[shot]

    def delivered(self, shot: Shot) -> str | None:
        """The action id of this shot, if it was taken before; it is not taken for that."""
        return self._commands[shot].action_id if shot in self._frames else None

    def objection(self, shot: Shot) -> Exception | None:
        """What the guard had against this frame when it came, as that it is another command's; None: nothing."""
        self.frame(shot)
        return self._objections.get(shot)

    def _take(self, shot: Shot) -> None:
        if shot in self._frames or shot in self._refused:
            return
        if not self.shots.makes(shot):
            self._refused[shot] = Unsupported("this instrument turns no scan")
            return
        if self._hung is not None:  # one wait is enough to tell
            self._refused[shot] = self._hung
            return
        command, guarded = self.shots.command(shot), self._guard()
        self._commands[shot], self._taken_in[shot] = command, self._opening_count
        if self._given is not None:
            self._given.forget()
        future = self._owner.begin(lambda: guarded.acquire(command))
        patience_s = self.conditions.patience_s + command.deadline_s
        taken = attempted(lambda: self.wait(future, patience_s, "acquire"))
        match taken.exception():
            case None:
                self._frames[shot] = taken.result()
            case Halted() as error:
                raise error
            case Exception() as error:
                self._keep_as_given(shot, error)
            case error:
                raise error or RuntimeError("unreachable")

    def _keep_as_given(self, shot: Shot, error: Exception) -> None:
        """What became of a shot that ended in an error: of a simulated instrument the frame itself may be judged.

        A real one is asked for nothing more that exposes: its guard wants a person to look.
        """
        asked = self._given
        given = asked.last if asked is not None else None
        self._hung = error if isinstance(error, Hung) else self._hung
        if asked is not None and asked.has_answered and not isinstance(given, Frame):
            error = InstrumentFault(f"acquire() gave {given!r:.80}, which is no Frame")
        self._refused[shot] = error
        if self.capabilities.simulated and isinstance(given, Frame):
            self._frames[shot] = given
            self._objections[shot] = error
            del self._refused[shot]

    def _guard(self) -> GuardedMicroscope:
        guarded = self._guarded
        if guarded is not None and guarded.held_because is not None and self.capabilities.simulated:
            guarded = None  # nobody has to look at a simulated one, and what it gave is judged by the checks
        if guarded is None:
            given, envelope = Given(self.microscope), self.envelope
            guarded = self.timed(lambda: GuardedMicroscope(given, envelope, self._ledger), "capabilities")
            self._given, self._guarded = given, guarded
        return guarded

    # --- what it costs

    def worst(self, shots: Sequence[Shot] = SHOTS) -> tuple[float, float]:
        """(electrons, e/A2 on the worst 1 nm2) that these shots can put on the specimen together, in advance."""
        ledger, shots_made = DoseLedger(), self.shots
        for shot in filter(shots_made.makes, shots):
            command = shots_made.command(shot)
            charge = worst_charge(command, self.capabilities)
            ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        return ledger.electrons, ledger.max_e_per_a2
