"""Libraries compute in one thread: small arrays are slower, and sums not repeatable, when spread over several."""

from __future__ import annotations

import os
import sys

from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """Every library of this process, torch also where it is loaded later: that takes a second, and not all need it."""
    one_thread_of_torch()
    threadpool_limits(1)


def one_thread_of_torch() -> None:
    """Torch alone, now or when it is loaded."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
