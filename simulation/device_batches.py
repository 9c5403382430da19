"""Batches of waves as large as a device holds: sized beforehand (`backend`), and halved where that was too much.

How much a GPU has free is known, but not what its libraries take for plans and workspaces, nor what other programs
begin to use. So a batch that does not fit is done again in halves, and later ones begin with what fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from simulation.backend import Backend
from simulation.errors import DeviceUnavailable
from simulation.threads import in_order

Result = TypeVar("Result")


def in_batches(
    function: Callable[[int, int], Result], starts: Iterable[int], batch_count: int, total: int, on: Backend
) -> Iterator[Result]:
    """Results of `function(start, stop)` in order, on as many threads as `on` has; batches too large are halved.

    `starts`: of batches of `batch_count` items, `total` in all (`progress.batches` tells how many are done).
    """
    fitting = batch_count

    def results(start: int) -> list[Result]:
        nonlocal fitting
        made: list[Result] = []
        stop = min(start + batch_count, total)
        while start < stop:
            end = min(start + fitting, stop)
            part = _tried(function, start, end, on)
            if part is None:
                on.free_cached()
                fitting = (end - start + 1) // 2
            else:
                made.append(part[0])
                start = end
        return made

    for made in in_order(results, starts, on.threads):
        yield from made


def _tried(function: Callable[[int, int], Result], start: int, stop: int, on: Backend) -> tuple[Result] | None:
    """None where it does not fit; when this has returned, nothing holds what it had taken."""
    try:
        return (function(start, stop),)
    except (*on.out_of_memory, RuntimeError) as error:
        if not on.is_out_of_memory(error):
            raise
        if stop - start > 1:
            return None
        raise DeviceUnavailable(
            f"{on.name} ran out of memory on a single wave ({on.memory_bytes / 2**30:.2f} GiB were free before); end"
            " other programs on it, use a coarser sampling_nm or a smaller cell, or choose device='cpu'"
        ) from error
