"""A device of a worker that hangs as a vendor's library does: in C, with Python's one lock in its hand."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np


class HangingDevice:
    def __init__(self, diary: str) -> None:
        self._diary = Path(diary)
        self._hangs = False
        self._write("opened")

    def echo(self, value: Any) -> Any:
        return value

    def zeros(self, count: int) -> np.ndarray:
        return np.zeros(count, np.uint8)

    def hang(self) -> None:
        self._hangs = True
        self._write("hangs")
        ctypes.PyDLL(None).sleep(600)

    def wait(self, duration_s: float, end: str = "") -> str:
        """At most so long; until there is a file `end`, where one is named."""
        self._write("waits")
        until_s = time.monotonic() + duration_s
        while time.monotonic() < until_s and not (end and Path(end).exists()):
            time.sleep(0.01)
        return "waited"

    def unsendable(self) -> Any:
        return object()

    def fail(self) -> None:
        raise ValueError("the vendor's own words")

    def stop(self) -> None:
        if self._hangs:  # a moment before its thread holds the lock
            ctypes.PyDLL(None).sleep(600)
        self._write("stopped")

    def _write(self, word: str) -> None:
        with self._diary.open("a", encoding="utf-8") as diary:
            diary.write(f"{word}\n")


def open_device(diary: str) -> HangingDevice:
    return HangingDevice(diary)
