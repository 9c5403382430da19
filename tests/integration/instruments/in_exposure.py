"""What a test does in the middle of an exposure: not before it has begun, however busy the machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from instruments.adapters.driven import DrivenMicroscope
from tests.waiting import until

A_MOMENT_S = 0.4  # from the order to expose until the far side does


@contextmanager
def in_exposure(microscope: DrivenMicroscope, action_id: str, do: Callable[[], object]) -> Iterator[None]:
    """`do` is called from a thread beside as soon as the block's exposure of that name is under way."""
    over = threading.Event()

    def beside() -> None:
        until(lambda: action_id in microscope._exposed or over.is_set(), "the exposure", every_s=0.01)
        time.sleep(A_MOMENT_S)
        do()

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
