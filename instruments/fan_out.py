"""Who is told of something: added and taken away from any thread, while others are being told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FanOut(Generic[T]):
    """The ones to be told, in the order in which they came; who goes through them sees those of that moment."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._members: tuple[T, ...] = ()

    def add(self, member: T) -> None:
        """One more from now on."""
        with self._guard:
            self._members = (*self._members, member)

    def forget(self, member: T) -> None:
        """This one no more; harmless for one that is not among them."""
        with self._guard:
            self._members = tuple(other for other in self._members if other is not member)

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)
