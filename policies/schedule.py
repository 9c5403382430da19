"""When hyperparameters are refitted: after numbers of observations that grow geometrically."""

from __future__ import annotations

from math import ceil


def last_refit(count: int, first: int, growth_factor: float = 1.25) -> int:
    """The largest number of observations <= `count` at which a refit is due; 0 before the first.

    Depends on the count alone, so a restored policy refits at the same places.

    >>> [last_refit(n, first=4) for n in (3, 4, 5, 6, 7, 8, 9, 10, 11)]
    [0, 4, 5, 5, 7, 7, 9, 9, 9]
    """
    if count < first:
        return 0
    due = first
    while (following := max(ceil(due * growth_factor), due + 1)) <= count:
        due = following
    return due
