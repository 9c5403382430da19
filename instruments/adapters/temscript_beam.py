"""The beam of a microscope behind a temscript server: blanked, let through, and exposed under, once.

Neighbours: `temscript` commands it, `temscript_column` sets everything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import Final

import numpy as np

from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_exposure import Shot, raw_counts
from instruments.adapters.temscript_link import TemscriptLink
from instruments.errors import AcquisitionFailed, InstrumentError, InstrumentFault, LinkLost

_QUICKEST: Final = 0.9  # of the exposure: an answer sooner than that is no frame of it


class TemscriptBeam:
    """One blanker on two lines: `stop` has one of its own, so that it comes whatever the other is at."""

    def __init__(self, config: TemscriptConfig, link: TemscriptLink, *, is_simulated: bool) -> None:
        self.stopped = Event()
        self._config = config
        self._link = link
        self._stop_link = TemscriptLink(config.host, config.port, config.stop_latency_s)
        self._is_simulated = is_simulated
        self._passage = Lock()  # held while the beam is let through, so that a stop comes before or after it

    def close(self) -> None:
        """Hang up the line of `stop`."""
        self._stop_link.close()

    def stop(self) -> None:
        """Blank as soon as the server can; nothing passes after it until `release`. Raises LinkLost."""
        self.stopped.set()
        is_held = self._passage.acquire(timeout=self._config.answer_s)
        try:
            self._blank_by(self._stop_link)
        finally:
            if is_held:
                self._passage.release()

    def release(self) -> None:
        """Go on after `stop`, blanked."""
        self.blank()
        self.stopped.clear()

    def refuse_after_stop(self) -> None:
        """Raise InstrumentFault between `stop` and `release`."""
        if self.stopped.is_set():
            raise InstrumentFault("stopped, the beam blanked; release it, or open it again, after a person has looked")

    def blank(self) -> None:
        """Blank and see that it is: behind an exposure it takes as long as the stop latency says."""
        self._blank_by(self._link)

    def unblank(self, begun: Callable[[], None]) -> None:
        """Let it through; `begun` is called when it is about to be on. Raises InstrumentFault after a stop."""
        with self._passage:
            self.refuse_after_stop()
            begun()
            self._link.do("beam_blanked", False, self._config.answer_s)  # once: a stop may come before a second one

    def exposed(
        self, subframe_count: int, shot: Shot, begun: Callable[[], None] | None
    ) -> tuple[dict[str, np.ndarray], float]:
        """Counts of all sub-frames, and for how long the beam was on at most. It is blanked, whatever happens.

        Without `begun` the beam is not let through at all: a dark frame, of a blanked microscope.
        """
        begun_s = time.monotonic()
        failure: InstrumentError | None = None
        subframes: list[dict[str, np.ndarray]] = []
        try:
            self.refuse_after_stop()
            if begun is not None:
                self.unblank(begun)
            for _ in range(subframe_count):
                if subframes and self.stopped.is_set():
                    raise AcquisitionFailed(f"stopped after {len(subframes)} of {subframe_count} sub-frames")
                subframes.append(self._subframe(shot, may_be_empty=self._is_simulated or begun is None))
        except InstrumentError as error:
            failure = error
        try:
            self.blank()
        except InstrumentError as error:
            kind = LinkLost if isinstance(error, LinkLost) else InstrumentFault
            raise kind(f"exposed, and the beam is not confirmed off ({error}): take it as on") from (failure or error)
        if failure is not None:
            raise failure
        beam_on_s = time.monotonic() - begun_s
        return {name: np.stack([one[name] for one in subframes]) for name in shot.detectors}, beam_on_s

    def _blank_by(self, link: TemscriptLink) -> None:
        link.put("beam_blanked", True, within_s=self._config.stop_latency_s)
        if link.get("beam_blanked") is not True:
            raise InstrumentFault("the server said that it blanked, and the beam is on; blank it at the microscope")

    def _subframe(self, shot: Shot, *, may_be_empty: bool) -> dict[str, np.ndarray]:
        begun_s = time.monotonic()
        arrays = self._link.acquire(shot.detectors, shot.exposure_s + self._config.readout_s)
        took_s = time.monotonic() - begun_s
        if took_s < _QUICKEST * shot.exposure_s:
            raise AcquisitionFailed(
                f"a frame came after {took_s:.3g} s, before its {shot.exposure_s:.3g} s were over: of another exposure"
            )
        return raw_counts(shot, arrays, may_be_empty=may_be_empty)
