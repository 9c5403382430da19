"""The one thread that calls a microscope while the kit looks on: whoever waits for it, waits for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Hung(Exception):
    """A call that did not come back in the time it was given; its thread is lost."""


class OwnerThread:
    """Carries out calls one after another in a thread of its own, which a call that hangs may keep."""

    def __init__(self, name: str = "conformance owner") -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Start a call; its result comes later."""
        future: Future[T] = Future()
        self._jobs.put((call, future))
        return future

    def call(self, call: Callable[[], T], patience_s: float, what: str) -> T:
        """What the call returns or raises. Raises Hung when it does neither in time."""
        return awaited(self.begin(call), patience_s, what)

    def end(self, patience_s: float = 5.0) -> None:
        """Let the thread go; one that hangs stays behind."""
        self._jobs.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            with _Told(future):
                future.set_result(call())
            del job, call, future


class _Told:
    """Whatever is raised within goes to who waits for the future, and no further."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self._future.set_exception(error)
        return True


def attempted(call: Callable[[], T]) -> Future[T]:
    """A call that was made, its result or the error it ended with; Ctrl-C goes on."""
    future: Future[T] = Future()
    with _Told(future):
        future.set_result(call())
    if isinstance(future.exception(), KeyboardInterrupt):
        future.result()
    return future


def awaited(future: Future[T], patience_s: float, what: str) -> T:
    """The result of a call that was begun. Raises Hung, or what the call raised."""
    try:
        error = future.exception(patience_s)
    except TimeoutError:
        raise Hung(f"{what} did not come back in {patience_s:g} s") from None
    if error is not None:
        raise error
    return future.result()
