"""Calls one after another in a thread that keeps no process from ending, as a vendor's call that hangs would.

The executors of the standard library wait for their threads when the interpreter ends. Neighbour: `adapter_thread`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonExecutor:
    """Takes calls from any thread; its own thread lives while there are any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_working = False

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What the call will return or raise, once those before it are done."""
        future: Future[T] = Future()
        with self._guard:
            self._waiting.append((future, call))
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            with self._guard:
                if not self._waiting:
                    self._is_working = False
                    return
                future, call = self._waiting.popleft()
            with _Told(future):
                future.set_result(call())


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
