"""Calls one after another in a thread that keeps no process from ending, as a vendor's call that hangs would.

The executors of the standard library wait for their threads when the interpreter ends. Neighbour: `adapter_thread`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
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
            _settle(future, call)


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  whoever waits for the future gets it, whatever it is
        future.set_exception(error)
    else:
        future.set_result(result)
