"""The Merlin's control port: one command and its reply after another, on one line, each with its deadline.

The port serves one client at a time, so there is no second line for a stop: no command here takes longer than an answer
does, and a stop breaks off the one that waits. Neighbours: `messages`, `stream` (the frames).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Final

from instruments.adapters.merlin.config import TRIGGER_CODES, MerlinConfig
from instruments.adapters.merlin.messages import Kind, read_reply, request
from instruments.commands import AcquireFrame
from instruments.connections import Connection, Line
from instruments.errors import ConfigurationError, InstrumentError, InstrumentFault

_TOLD_ABOUT: Final = ("SOFTWAREVERSION", "DETECTORSTATUS", "TEMPERATURE", "HVBIAS", "GAIN", "THRESHOLD0", "THRESHOLD1")
_UNDEFINED: Final = "undef"
_TOLERANCE: Final = 1e-6


class MerlinControl:
    """Settings with read-back, start and stop."""

    def __init__(self, config: MerlinConfig) -> None:
        self._config = config
        self._connection = Connection("merlin", config.host, config.control_port, connect_s=config.answer_s)

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer."""
        return self._connection.is_lost

    def get(self, name: str) -> str:
        """One value, as the Merlin writes it. Raises LinkLost, Unsupported."""
        return self._ask("GET", name, "0", repeatable=True)

    def set(self, values: Mapping[str, float]) -> None:
        """Set them all, then read them back. Raises InstrumentFault for one that reads otherwise."""
        for name, value in values.items():
            self._ask("SET", name, f"{value:.9g}", repeatable=True)
        told = {name: self.get(name) for name in values}
        missed = [
            f"{name} {told[name]} instead of {value:g}" for name, value in values.items() if not _is(told[name], value)
        ]
        if missed:
            raise InstrumentFault(f"the Merlin took the settings and reads back {'; '.join(missed)}; see its window")

    def arm(self) -> None:
        """Let it take frames as its triggers come. Never sent twice: ResultUnknown without an answer."""
        self._ask("CMD", "STARTACQUISITION", "0", repeatable=False)

    def soft_trigger(self) -> None:
        """What another trigger would do."""
        self._ask("CMD", "SOFTTRIGGER", "0", repeatable=False)

    def stop(self) -> None:
        """End the acquisition; harmless where there is none, so it may be sent again."""
        self._ask("CMD", "STOPACQUISITION", "0", repeatable=True)

    def check_detector(self) -> dict[str, str]:
        """What it tells of itself. Raises ConfigurationError where it is not the detector of the configuration."""
        rows, columns = self._config.shape_px
        found = {name: self.get(name) for name in ("IMAGEY", "IMAGEX")}
        if not (_is(found["IMAGEY"], rows) and _is(found["IMAGEX"], columns)):
            raise ConfigurationError(
                f"the Merlin has {found['IMAGEY']} x {found['IMAGEX']} px, shape_px says {rows} x {columns}; correct it"
            )
        return {name: value for name in _TOLD_ABOUT if (value := self._told(name)) is not None}

    def break_off(self) -> None:
        """End the call that waits, from another thread."""
        self._connection.abort()

    def reconnect(self) -> None:
        """Connect anew, and see that somebody answers. Raises LinkLost."""
        self._connection.reconnect(self._config.answer_s)
        self.get("IMAGEX")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _told(self, name: str) -> str | None:
        try:
            value = self.get(name)
        except InstrumentFault:
            raise
        except InstrumentError:  # this one does not know the word
            return None
        return None if value == _UNDEFINED else value

    def _ask(self, kind: Kind, name: str, value: str, *, repeatable: bool) -> str:
        def exchange(line: Line) -> str:
            line.send(request(kind, name, value))
            return read_reply(line, kind, name)

        return self._connection.call(
            exchange, what=f"{kind} {name}", deadline_s=self._config.answer_s, repeatable=repeatable
        )


def settings_of(command: AcquireFrame, config: MerlinConfig) -> dict[str, float]:
    """What the Merlin is told before this frame; times in ms, thresholds in keV."""
    rows, columns = command.scan.shape_px
    count = command.subframe_count * rows * columns
    at_a_trigger = {"frame": 1, "line": columns, "scan": rows * columns}[config.frames_per_trigger]
    dwell_ms = command.scan.dwell_time_us * 1e-3
    thresholds = {f"THRESHOLD{number}": value * 1e-3 for number, value in enumerate(config.thresholds_ev)}
    return {
        "COUNTERDEPTH": config.counter_depth,
        "CONTINUOUSRW": int(config.gap_us == 0),
        **thresholds,
        "ACQUISITIONTIME": dwell_ms - config.gap_us * 1e-3,
        "ACQUISITIONPERIOD": dwell_ms,
        "NUMFRAMESTOACQUIRE": count,
        "NUMFRAMESPERTRIGGER": at_a_trigger,
        "TRIGGERSTART": TRIGGER_CODES[config.trigger],
        "FILEENABLE": 0,
    }


def _is(told: str, wanted: float) -> bool:
    try:
        return isclose(float(told), wanted, rel_tol=_TOLERANCE, abs_tol=1e-9)
    except ValueError:
        return False
