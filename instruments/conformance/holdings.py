"""What this process holds: threads, processes, sockets, shared memory; and what is new of it after a close."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from typing import Self

import psutil

_LOOK_S = 0.1
_SHARED = "/dev/shm/"
_AFTERGLOW_S = 2.0  # in which what was told to end may still be seen


@dataclass(frozen=True, slots=True)
class Holdings:
    """Threads, processes, sockets and shared memory at one moment."""

    threads: frozenset[threading.Thread]
    processes: frozenset[psutil.Process]
    sockets: frozenset[tuple[int, str, str]]  # file descriptor, this end, the other
    memory: frozenset[str]  # shared segments that are mapped here

    @classmethod
    def now(cls) -> Self:
        """Of this process."""
        this = psutil.Process()
        return cls(
            frozenset(threading.enumerate()),
            frozenset(one for one in this.children(recursive=True) if not _is_of_python(one)),
            frozenset((one.fd, str(one.laddr), str(one.raddr)) for one in this.net_connections("all")),
            frozenset(_shared_segments(this)),
        )

    def still_held(self, patience_s: float) -> list[str]:
        """What is there now and was not then, in words; whatever goes within a while is not counted."""
        until_s = time.monotonic() + min(patience_s, _AFTERGLOW_S)
        gc.collect()
        while (found := self._new()) and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        return found

    def _new(self) -> list[str]:
        now = Holdings.now()
        return [
            *(f"thread {one.name!r}" for one in now.threads - self.threads if not one.name.startswith("conformance ")),
            *(f"process {one.pid}" for one in now.processes - self.processes if one.is_running()),
            *(f"socket {here or 'of no address'} {there}".rstrip() for _, here, there in now.sockets - self.sockets),
            *(f"shared memory {path}" for path in now.memory - self.memory),
        ]


def _is_of_python(process: psutil.Process) -> bool:
    """Whether it is the one that Python itself starts with the first shared memory, and keeps until it ends."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _shared_segments(this: psutil.Process) -> list[str]:
    """Where the system tells (Linux)."""
    try:
        return [one.path for one in this.memory_maps() if one.path.startswith(_SHARED)]
    except (AttributeError, psutil.Error):
        return []
