"""Batches on several threads: each is computed by one thread alone, so that results have the same bits for any number.

Libraries that spread single operations over threads make theirs wait for one another, which burns processor time, and
add up in another order. Here they keep to one thread, and whole batches run beside each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from simulation.arguments import whole

Item = TypeVar("Item")
Result = TypeVar("Result")
_SHARE_OF_PROCESSORS = 2
_MOST_BY_ITSELF = 4


def checked_threads(threads: Any) -> int:
    """The number asked for; for None that of OMP_NUM_THREADS, or else half of the processors, four at most."""
    if threads is not None:
        return whole("threads", threads, 1)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return max(1, min(_processors() // _SHARE_OF_PROCESSORS, _MOST_BY_ITSELF))


def _processors() -> int:
    """That this process may use, where the system says."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` with so many calls at once; results come in the order of the items, at most one waits beside them.

    An error, or leaving the loop, ends it once the calls that run have returned.
    """
    if threads == 1:
        yield from map(function, items)
        return
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "simulation") as pool:
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for waiting in running:
                waiting.cancel()
