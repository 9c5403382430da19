"""The one thread in which an adapter is opened and called, and the stop that comes from beside it.

An adapter may hang in either: whoever waits here waits for a limited time, and is told. Neighbour: `host`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Command
from instruments.errors import (
    CommandRefused,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    ResultUnknown,
    Unsupported,
)
from instruments.frames import Frame
from instruments.guards import GuardedMicroscope
from instruments.microscope import Closable, Microscope, Outcome, Rebuildable, Releasable, TakesDarkFrames
from instruments.remote.daemon_executor import DaemonExecutor
from instruments.state import MicroscopeState

Opener = Callable[[str, Mapping[str, Any]], Microscope]
STOP_DEADLINE_S: Final = 5.0
STOP_GRACE_S: Final = 30.0  # for a call that was stopped to come back, before its caller is told that it did not
_STOP_AGAIN_S: Final = (0.1, 0.2)  # a stop may meet an exposure that is about to begin and not be noticed by it
_LOOK_S: Final = 0.2
_NOTHING_MOVED: Final = (CommandRefused, InstrumentBusy, Unsupported)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The adapter that is open, and for whom."""

    session_id: str
    adapter: str
    config: Mapping[str, Any]
    microscope: Microscope
    capabilities: Capabilities

    def is_for(self, session_id: str, adapter: str, config: Mapping[str, Any]) -> bool:
        """Whether it is what is asked for."""
        return (self.session_id, self.adapter, self.config) == (session_id, adapter, config)


@dataclass(frozen=True, slots=True)
class Doing:
    """The call that runs."""

    call: str
    action_id: str | None
    since: datetime
    started_s: float


@dataclass(slots=True)
class Asked:
    """One call for the adapter's thread; `started_s` is None until it begins there.

    `overran` is told when a call runs longer than `deadline_s`, before it is stopped.
    """

    name: str
    call: Callable[[], Any]
    action_id: str | None = None
    deadline_s: float | None = None
    overran: Callable[[str], object] = bool
    started_s: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it has run past its deadline."""
        if self.started_s is None or self.deadline_s is None:
            return False
        return time.monotonic() >= self.started_s + self.deadline_s


@dataclass(frozen=True, slots=True)
class Stopped:
    """What the adapter's own `stop` did, in words too."""

    beam_blanked: bool | None
    message: str


class AdapterThread:
    """Calls one adapter from one thread; keeps the last frame, so that it can be given to the next owner."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._calls = ThreadPoolExecutor(1, "adapter")
        self._stops = DaemonExecutor("stop")
        self._is_called_elsewhere = False
        self._kept: Frame | None = None
        self._last_blanked: bool | None = None
        self.is_stopped = False
        self.not_blanked: str | None = None
        self._stop_count = 0
        self._stopped_s = 0.0
        self.loaded: Loaded | None = None
        self.doing: Doing | None = None

    @property
    def beam_blanked(self) -> bool | None:
        """None: not known. A stopped beam is blanked, an exposure's is not."""
        if self.is_stopped:
            return True
        if self.exposing is not None:
            return False
        return self._last_blanked if self.not_blanked is None else None

    @property
    def exposing(self) -> str | None:
        """Action id of the exposure that runs."""
        doing = self.doing
        return doing.action_id if doing is not None and doing.call == "acquire" else None

    def call(self, asked: Asked, *, wait_s: float, is_wanted: Callable[[], bool]) -> Any:
        """What the call returns or raises, run in the adapter's thread once that is free.

        Raises InstrumentBusy when it has not begun after `wait_s`, or is not wanted any more; ResultUnknown when it was
        stopped and does not come back, or when it ran past its deadline: then it is stopped from here.
        """
        future = self._calls.submit(self._do, asked)
        until_s = time.monotonic() + wait_s
        while not wait([future], timeout=_LOOK_S).done:
            is_late = not is_wanted() or time.monotonic() >= until_s
            if is_late and future.cancel():
                now = self.doing
                what = f"{now.call} since {now.since:%H:%M:%S} UTC" if now else "another call"
                raise InstrumentBusy(f"the instrument is busy with {what}; nothing moved, try again")
            if asked.is_late:
                raise self._stopped_late(asked)
            if self._does_not_come_back(future):
                raise ResultUnknown(
                    f"{asked.name} was stopped more than {STOP_GRACE_S:.0f} s ago and has not come back; its dose "
                    "counts as spent; look at the instrument, then restart its process"
                )
        return _result_of(future)

    def _do(self, asked: Asked) -> Any:
        asked.started_s = time.monotonic()
        self.doing = Doing(asked.name, asked.action_id, datetime.now(UTC), asked.started_s)
        try:
            return asked.call()
        finally:
            self.doing = None

    def _stopped_late(self, asked: Asked) -> ResultUnknown:
        """Stop a call that ran past its deadline, once; what its caller is told. Its frame, if it comes, is kept."""
        what = f"{asked.name} {asked.action_id or ''}".strip()
        reason = f"{what} was not done within its deadline of {asked.deadline_s:g} s"
        asked.overran(reason)
        stopped = self.stop()
        return ResultUnknown(f"{reason} and was stopped: {stopped.message}; its dose counts as spent")

    def _does_not_come_back(self, future: Future[Any]) -> bool:
        doing, stopped_s = self.doing, self._stopped_s
        return (
            future.running()
            and doing is not None
            and doing.started_s < stopped_s
            and time.monotonic() > stopped_s + STOP_GRACE_S
        )

    # --- from beside

    def stop(self) -> Stopped:
        """Blank and interrupt, waiting for the adapter to say so, but not for ever; from any thread, at any time."""
        self._stop_count += 1
        loaded = self.loaded
        if loaded is None:
            return Stopped(None, "nothing is loaded: there is no adapter to blank the beam with")
        stopping = self._stops.submit(lambda: self._stop(loaded.microscope))
        if self._may_be_exposing:
            self._stops.submit(lambda: self._stop_again(loaded.microscope))
        if not wait([stopping], timeout=STOP_DEADLINE_S).done:
            return self._unconfirmed(
                f"the adapter's stop has not come back in {STOP_DEADLINE_S:.0f} s: assume that the beam is on, blank "
                "it at the instrument, and kill this process",
            )
        error = stopping.exception()
        if error is not None:
            return self._unconfirmed(
                f"the adapter could not stop: {type(error).__name__}: {error}; assume that the beam is on"
            )
        return Stopped(True, "beam blanked")

    def _unconfirmed(self, message: str) -> Stopped:
        """A stop that failed is remembered, until one is confirmed or the adapter itself says that it is dark."""
        self.not_blanked = None if self.is_stopped else message  # it may have come back this very moment
        return Stopped(self.is_stopped or None, "beam blanked" if self.is_stopped else message)

    def _stop(self, microscope: Microscope) -> None:
        microscope.stop()
        self.not_blanked = None
        self.is_stopped = True
        self._stopped_s = time.monotonic()

    def _stop_again(self, microscope: Microscope) -> None:
        for pause_s in _STOP_AGAIN_S:
            time.sleep(pause_s)
            if self.is_stopped and self._may_be_exposing:
                microscope.stop()

    @property
    def _may_be_exposing(self) -> bool:
        """Also where the microscope is called elsewhere, and nobody here knows."""
        return self.exposing is not None or self._is_called_elsewhere

    # --- in the adapter's thread

    def load(self, session_id: str, adapter: str, config: Mapping[str, Any]) -> bool:
        """Open the adapter, or go on with the living one that is loaded for the same; whether it was the living one."""
        stop_count = self._stop_count
        is_living = self._go_on(session_id, adapter, config)
        if not is_living:
            self._let_go()
            microscope = self._opener(adapter, config)
            if isinstance(microscope, Rebuildable):
                self._kept = None  # a simulated instrument gives frames from its own history alone
            self.loaded = Loaded(session_id, adapter, config, microscope, microscope.capabilities())
            self.is_stopped = False
        if self._stop_count != stop_count:
            self.microscope.stop()
            self.is_stopped = True
            raise InstrumentFault("stopped while it was loaded; claim the instrument again to go on")
        self._last_blanked = None
        self._read_back(self.microscope.read_state())
        return is_living

    def _let_go(self) -> None:
        """Close the one that was loaded before: many an instrument takes one client, and a worker is a process."""
        if self.loaded is None or not isinstance(self.loaded.microscope, Closable):
            return
        try:
            self.loaded.microscope.close()
        except InstrumentError as error:
            log.warning("%s: could not be closed: %s", self.loaded.adapter, error)

    def adopt(self, session_id: str, adapter: str, config: Mapping[str, Any], microscope: Microscope) -> None:
        """Take a microscope that is called elsewhere, to stop it from here."""
        self._is_called_elsewhere = True
        self.loaded = Loaded(session_id, adapter, config, microscope, microscope.capabilities())

    def _read_back(self, state: MicroscopeState) -> None:
        """What the adapter itself says of its beam."""
        has_beam = self.loaded is None or self.loaded.capabilities.has_beam
        self._last_blanked = None if has_beam and "beam_blanked" in state.undetermined else state.beam_blanked
        if self._last_blanked:
            self.not_blanked = None

    def _go_on(self, session_id: str, adapter: str, config: Mapping[str, Any]) -> bool:
        loaded = self.loaded
        if loaded is None or not loaded.is_for(session_id, adapter, config):
            return False
        guarded = loaded.microscope
        if isinstance(guarded, GuardedMicroscope) and guarded.held_because is not None:
            if guarded.is_link_lost():
                guarded.reconnect()  # blanks first
            guarded.acknowledge("whoever took off the lock")  # both are locked, so a person did before this load
        if self.is_stopped:
            if not isinstance(loaded.microscope, Releasable):
                return False
            loaded.microscope.release()
            self.is_stopped = False
        return True

    @property
    def microscope(self) -> Microscope:
        """The adapter. Raises InstrumentFault when nothing is loaded."""
        if self.loaded is None:
            raise InstrumentFault("nothing is loaded into the instrument; load first")
        return self.loaded.microscope

    def acquire(self, command: AcquireFrame, check: Callable[[], None]) -> Frame:
        """Expose if `check` does not raise, or give the last frame again, which needs no permission."""
        kept = self._kept
        if kept is not None and kept.requested == command:
            return kept
        check()
        with self._beam_unknown_after_errors():
            frame = self.microscope.acquire(command)
        self._kept = frame
        self._read_back(frame.state)
        return frame

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """What the detectors give without a beam; kept by nobody. Raises Unsupported where it takes none."""
        microscope = self.microscope
        if not isinstance(microscope, TakesDarkFrames):
            raise Unsupported("this instrument takes no dark frames")
        with self._beam_unknown_after_errors():
            frame = microscope.acquire_dark(command)
        self._read_back(frame.state)
        return frame

    def execute(self, command: Command) -> MicroscopeState:
        """Carry out a command without a frame."""
        with self._beam_unknown_after_errors():
            state = self.microscope.execute(command)
        self._read_back(state)
        return state

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action: of the last frame this process knows, even where the instrument cannot tell."""
        if self._kept is not None and self._kept.action_id == action_id:
            return "delivered"
        return self.microscope.outcome(action_id)

    @contextmanager
    def _beam_unknown_after_errors(self) -> Iterator[None]:
        before = self._last_blanked
        self._last_blanked = None
        try:
            yield
        except _NOTHING_MOVED:
            self._last_blanked = before
            raise


def _result_of(future: Future[Any]) -> Any:
    """What was returned or raised; an error of the adapter's own making is a fault of the instrument."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, InstrumentError):
        raise error
    log.error("the adapter raised what it should not", exc_info=error)
    raise InstrumentFault(f"the adapter raised {type(error).__name__}: {error}") from error
