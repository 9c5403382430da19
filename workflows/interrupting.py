"""Ctrl-C and SIGTERM around a run in the main thread: once to end in order, twice to leave at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from orchestrator.loop import Control

FIRST_INTERRUPT: Final = "finishing this frame, then blanking and saving (Ctrl-C again aborts at once)"


@contextmanager
def interruptible(
    control: Control, stop_now: Callable[[], None], say: Callable[[str], None], first: str = FIRST_INTERRUPT
) -> Iterator[None]:
    """Ctrl-C once asks to end in order and says `first`; twice stops the microscope and leaves at once.

    The second one leaves at once also where the run has ended by then and its last words are being written. Only in the
    main thread; elsewhere the caller has its own way.
    """
    heard: list[int] = []

    def handle(number: int, frame: object) -> None:
        del frame
        heard.append(number)
        if control.interrupt.is_set():
            try:
                stop_now()
            finally:
                os._exit(130)
        control.interrupt.set()
        say(f"interrupted: {first}")

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, previous in before.items():
            raises = previous is signal.default_int_handler
            signal.signal(number, _leave if heard and raises else previous)


def _leave(number: int, frame: object) -> None:
    del number, frame
    os._exit(130)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, where it would otherwise end the process without a word."""
    is_main = threading.current_thread() is threading.main_thread()
    ends_at_once = is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ends_at_once:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ends_at_once:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
