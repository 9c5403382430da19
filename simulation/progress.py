"""How far a simulation is: loops say what they go through, and who listens shows it or stops it.

By itself a bar with the time left appears on stderr once an image takes more than two seconds, where a person looks
(terminal, notebook): never in pipes, worker processes or other threads. `reporting` listens instead, or to nothing at
all, and stops what an event cancels. Ctrl-C, a cancelled image and a listener that raises end within one batch; what a
`Simulator` keeps is kept only when it is whole, so that it can go on.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Protocol, TextIO, TypeVar, runtime_checkable

from simulation.errors import Cancelled, InvalidParameter

T = TypeVar("T")
SHOWN_AFTER_S = 2.0
"""Shorter work is not worth a bar."""
_REDRAWN_EVERY_S = 0.1
_BAR_CELLS = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an image is: `done` of `total` in the innermost loop, the fraction and the time left of the outermost."""

    what: str
    done: int
    total: int
    fraction: float
    elapsed_s: float
    left_s: float | None
    """None until something was finished to judge by."""


@runtime_checkable
class Listener(Protocol):
    """Whoever is told how far an image is."""

    def advance(self, standing: Standing) -> None:
        """Before every batch and after the last; what it raises ends the image."""
        ...

    def end(self) -> None:
        """The image is there, or was given up."""
        ...


@contextmanager
def reporting(listener: Listener | None = None, *, cancel: threading.Event | None = None) -> Iterator[None]:
    """Images made inside tell `listener` (None: nobody) how far they are; `cancel.set()` ends them with `Cancelled`."""
    if listener is not None and not isinstance(listener, Listener):
        raise InvalidParameter(
            f"listener is a {type(listener).__name__}; give an object with advance(standing) and end(), or None"
        )
    token = _ASKED.set((listener, cancel))
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def watched() -> Iterator[None]:
    """Around the making of one image: listens to its loops as was asked; an image within an image belongs to it."""
    asked = _ASKED.get()
    listener, cancel = (bar_for_a_person(), None) if asked is None else asked
    if _METER.get() is not None or (listener is None and cancel is None):
        yield
        return
    token = _METER.set(Meter(listener, cancel))
    try:
        yield
    finally:
        _METER.reset(token)
        if listener is not None:
            listener.end()


def batches(total: int, batch_count: int, what: str) -> Iterator[int]:
    """As `range(0, total, batch_count)`, telling before each batch how many are done."""
    meter = _METER.get()
    if meter is None:
        yield from range(0, total, batch_count)
        return
    with meter.stage(what, total) as stage:
        for start in range(0, total, batch_count):
            stage.step = min(batch_count, total - start)
            meter.tell()
            yield start
            stage.finish()
        meter.tell()


def steps(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items one by one, telling how many are done; one alone is not counted. `total`: of items without a length."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    meter = _METER.get()
    if meter is None or count < 2:
        yield from items
        return
    with meter.stage(what, count) as stage:
        for item in items:
            meter.tell()
            yield item
            stage.finish()


@contextmanager
def during(what: str) -> Iterator[None]:
    """Names what the loops inside are for."""
    meter = _METER.get()
    if meter is None:
        yield
        return
    with meter.stage(what, 1):
        yield


class _Stage:
    """One loop that runs."""

    __slots__ = ("_clock", "done", "started_s", "step", "step_started_s", "total", "what")

    def __init__(self, what: str, total: int, clock: Callable[[], float]) -> None:
        self.what, self.total, self._clock = what, total, clock
        self.done, self.step = 0, 1
        self.started_s = self.step_started_s = clock()

    def finish(self) -> None:
        """The step that ran is done."""
        self.done += self.step
        self.step_started_s = self._clock()

    def left_s(self, now_s: float, inner_left_s: float | None) -> float | None:
        """From the mean of the steps done; in the first step from what its own loop still needs."""
        in_step_s = now_s - self.step_started_s
        if self.done:
            each_s = (self.step_started_s - self.started_s) / self.done
        elif inner_left_s is not None:
            each_s = (in_step_s + inner_left_s) / self.step
        else:
            return None
        return max(each_s * (self.total - self.done) - in_step_s, inner_left_s or 0.0)


class Meter:
    """The loops of one image, outermost first, and who listens."""

    def __init__(
        self,
        listener: Listener | None,
        cancel: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener, self._cancel, self._clock = listener, cancel, clock
        self._started_s = clock()
        self._stages: list[_Stage] = []

    @contextmanager
    def stage(self, what: str, total: int) -> Iterator[_Stage]:
        """A loop that begins here; it ends with all loops inside it, whichever is left first."""
        made = _Stage(what, total, self._clock)
        self._stages.append(made)
        try:
            yield made
        finally:
            if made in self._stages:
                del self._stages[self._stages.index(made) :]

    def tell(self) -> None:
        """Say how far it is; raises `Cancelled` where somebody asked for an end."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("the image was cancelled; what was kept of it is whole, ask for it again")
        if self._listener is not None:
            self._listener.advance(self.standing())

    def standing(self) -> Standing:
        """How far it is now."""
        now_s, left_s = self._clock(), None
        for stage in reversed(self._stages):
            left_s = stage.left_s(now_s, left_s)
        outermost, innermost = self._stages[0], self._stages[-1]
        spent_s = now_s - outermost.started_s
        if innermost is outermost:
            fraction = outermost.done / max(1, outermost.total)
        else:
            fraction = 0.0 if left_s is None else spent_s / max(spent_s + left_s, 1e-9)
        around = [_in_words(stage) for stage in self._stages[:-1]]
        what = ": ".join([*around, innermost.what])
        return Standing(what, innermost.done, innermost.total, fraction, now_s - self._started_s, left_s)


def _in_words(stage: _Stage) -> str:
    return stage.what if stage.total == 1 else f"{stage.what} {stage.done + 1}/{stage.total}"


class Bar:
    """One line that is drawn again and again, gone at the end; only for what takes more than two seconds."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        shown_after_s: float = SHOWN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stream`: stderr by default."""
        self._stream = sys.stderr if stream is None else stream
        self._shown_after_s, self._clock = shown_after_s, clock
        self._drawn_s, self._width = -1e9, 0

    def advance(self, standing: Standing) -> None:
        """Draw it, at most ten times a second."""
        now_s = self._clock()
        if standing.elapsed_s < self._shown_after_s or now_s - self._drawn_s < _REDRAWN_EVERY_S:
            return
        text = line(standing)[: get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._drawn_s, self._width = now_s, len(text)

    def end(self) -> None:
        """Nothing of it remains."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._drawn_s, self._width = -1e9, 0


def line(standing: Standing) -> str:
    """What a bar says.

    >>> line(Standing("configurations 2/8: probes", 64, 256, 0.155, 12.0, 65.4))
    'configurations 2/8: probes 64/256 [===.................] 16 %, 1:05 left'
    """
    filled = int(_BAR_CELLS * standing.fraction)
    bar = "=" * filled + "." * (_BAR_CELLS - filled)
    left = "" if standing.left_s is None else f", {duration(standing.left_s)} left"
    return f"{standing.what} {standing.done}/{standing.total} [{bar}] {standing.fraction:.0%}".replace("%", " %") + left


def duration(left_s: float) -> str:
    """Minutes and seconds, hours before them where there are any.

    >>> duration(5), duration(65.4), duration(7322)
    ('0:05', '1:05', '2:02:02')
    """
    minutes, rest = divmod(round(left_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bar_for_a_person() -> Bar | None:
    """A bar where somebody looks: the main thread of a main process, in a notebook or on a terminal."""
    if threading.current_thread() is not threading.main_thread():
        return None
    if multiprocessing.current_process().name != "MainProcess":
        return None
    return Bar() if _is_notebook() or sys.stderr.isatty() else None


def _is_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


_ASKED: ContextVar[tuple[Listener | None, threading.Event | None] | None] = ContextVar("asked", default=None)
_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)
