"""A future as Bluesky wants to see it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class FutureStatus:
    """Fulfils `bluesky.protocols.Status` for what a thread does."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __repr__(self) -> str:
        """What became of it: Bluesky writes this into the stop document of a plan that failed."""
        if not self._future.done():
            return "<not done yet>"
        error = self._future.exception()
        return "<done>" if error is None else f"<{type(error).__name__}: {error}>"

    def add_callback(self, callback: Callable[[FutureStatus], None]) -> None:
        """Called when it is done, at once if it is."""
        self._future.add_done_callback(lambda _: callback(self))

    def exception(self, timeout: Any = 0.0) -> BaseException | None:
        """What went wrong; None if nothing did. Raises TimeoutError after so many seconds; the name is Bluesky's."""
        return self._future.exception(timeout)

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it is done. Raises what went wrong, TimeoutError."""
        self._future.result(timeout_s)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._future.done()

    @property
    def success(self) -> bool:
        """Whether it is over, and well."""
        return self._future.done() and self._future.exception() is None
