"""What a piece of work tells whoever shows it, and the work itself, done once, begun by whoever comes first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_MOST_LINES: Final = 500


@dataclass
class Telling:
    """Lines for people, and how far it is; written by the work's thread, read by another. Old lines are dropped."""

    fraction: float = 0.0
    statement: str = ""
    _lines: deque[str] = field(default_factory=lambda: deque[str](maxlen=_MOST_LINES))

    def say(self, line: str) -> None:
        """One line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """The lines since the last call."""
        lines: list[str] = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines


class Once(Generic[T]):
    """Work for a thread of its own that two others may begin; `result` is there once one of them has."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._guard = threading.Lock()
        self._began = threading.Event()
        self.result: Future[T] = Future()

    def begin(self) -> bool:
        """Begin it; False where it has begun before."""
        with self._guard:
            if self._began.is_set():
                return False
            executor = ThreadPoolExecutor(1, "experiment")
            self.result = executor.submit(self._work)
            executor.shutdown(wait=False)
            self._began.set()
        return True

    def has_begun(self, within_s: float) -> bool:
        """Wait for somebody to begin it, but not longer than that."""
        return self._began.wait(within_s)
