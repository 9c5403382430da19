"""A beam that is on for one exposure alone, for devices of workers; told to stop, it is blanked and stays so.

Standard library only, in words that Python 3.8 understands; loads nothing of stempilot. Neighbours: `pyjem_device`,
`autoscript_device`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class CommandRefused(Exception):
    """Nothing moved."""


class AcquisitionFailed(Exception):
    """The beam was on, the frame is lost."""


class ConfigurationError(Exception):
    """What is wanted is not there."""


class Beam:
    """Blanker of a microscope: `write` blanks (True) or unblanks, `read` says whether it is blanked.

    `blank_beside` is how a stop blanks, from another thread; None: as everybody else.
    """

    def __init__(
        self, write: Callable[[bool], Any], read: Callable[[], bool], blank_beside: Callable[[], Any] | None = None
    ) -> None:
        self._write = write
        self._read = read
        self._blank_beside = blank_beside
        self._stopped = threading.Event()
        self._switching = threading.Lock()  # so that a stop comes before an unblank, or after it
        self.on_s = 0.0  # of the last exposure
        self.blank()

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, and not released since."""
        return self._stopped.is_set()

    @property
    def is_blanked(self) -> bool:
        """As read back."""
        return self._read()

    def blank(self) -> None:
        """Take it off. Raises RuntimeError where that is not read back."""
        self._write(True)
        if not self._read():
            raise RuntimeError("the beam was not blanked; assume that it is on")

    def unblank(self) -> None:
        """Let it on, once. Raises CommandRefused after a stop, RuntimeError where it is not read back."""
        with self._switching:
            if self.is_stopped:
                raise CommandRefused("stopped: the beam stays blanked until it is released")
            self._write(False)
        if self._read():
            raise RuntimeError("the beam was not let on: the blanker is read as closed")

    def stop(self) -> None:
        """Blank, and expose nothing more; from any thread, beside an exposure too."""
        self._stopped.set()
        with self._switching:
            if self._blank_beside is None:
                self._write(True)
            else:
                self._blank_beside()

    def release(self) -> None:
        """Expose again."""
        self._stopped.clear()

    def exposing(self, is_lit: bool) -> Exposing:
        """The beam on from the beginning of the block, unless it is to stay dark, and blanked at its end."""
        return Exposing(self, is_lit)


class Exposing:
    """One exposure. Whatever a library raises within is AcquisitionFailed: the beam was on, and is blanked again."""

    def __init__(self, beam: Beam, is_lit: bool) -> None:
        self._beam = beam
        self._is_lit = is_lit
        self._since_s = 0.0

    def __enter__(self) -> None:
        """Raise CommandRefused after a stop; then nothing was exposed."""
        if self._beam.is_stopped:
            raise CommandRefused("stopped: nothing is exposed until it is released")
        self._since_s = time.monotonic()
        if not self._is_lit:
            self._beam.blank()
            return
        try:
            self._beam.unblank()
        except RuntimeError:
            self._beam.blank()
            raise

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Raise RuntimeError where it cannot be blanked: assume that it is on."""
        self._beam.blank()
        self._beam.on_s = time.monotonic() - self._since_s if self._is_lit else 0.0
        if self._beam.is_stopped:
            raise AcquisitionFailed("stopped in the exposure; the beam is blanked")
        if isinstance(error, Exception) and not isinstance(error, AcquisitionFailed):
            raise AcquisitionFailed(
                f"exposed, but without a frame; the beam is blanked. {type(error).__name__}: {error}"
            ) from error
