"""Devices and signals of ophyd. Only the devices' process imports this, and with it ophyd itself."""

from __future__ import annotations

import time
from typing import Any, Final

from ophyd import EpicsMotor, Signal
from ophyd.device import BlueskyInterface
from ophyd.positioner import PositionerBase
from ophyd.signal import EpicsSignal, EpicsSignalBase
from ophyd.utils.errors import DisconnectedError, WaitTimeoutError

from instruments.adapters.ophyd.things import Wait, left_s, true_limits

_LOOK_S: Final = 0.2
_RIGHTS_S: Final = 10.0
_RIGHTS_LOOK_S: Final = 0.01


class ClassicThing:
    """Of ophyd: calls block, statuses are finished by its own threads."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing
        self._read_from = thing.user_readback if isinstance(thing, EpicsMotor) else thing

    def connect(self, timeout_s: float) -> None:
        """Raises TimeoutError, ophyd's own errors of a connection."""
        self._thing.wait_for_connection(timeout=timeout_s)
        self._read_from.wait_for_connection(timeout=timeout_s)

    def facts(self) -> dict[str, Any]:
        """The limits of its record or channel."""
        thing = self._thing
        if isinstance(thing, EpicsMotor):  # its record's soft limits: the setpoint itself often declares none
            return true_limits(thing.low_limit_travel.get(), thing.high_limit_travel.get())
        if not isinstance(thing, Signal | PositionerBase):
            return {}
        return true_limits(*(thing.limits or (None, None)))

    def read(self, timeout_s: float) -> Any:
        """Asked for now, not remembered."""
        source = self._read_from
        if isinstance(source, EpicsSignalBase):
            return source.get(timeout=timeout_s, connection_timeout=timeout_s, use_monitor=False)
        if isinstance(source, Signal):
            return source.get()
        return source.read()[source.name]["value"]

    def stamped_s(self, timeout_s: float) -> float | None:
        """EPICS sends it along with a value."""
        source = self._read_from
        if not isinstance(source, EpicsSignalBase):
            return None
        self.read(timeout_s)
        return float(source.timestamp)

    def check(self, value: Any) -> None:
        """Raises ValueError."""
        if isinstance(self._thing, Signal | PositionerBase):
            self._thing.check_value(value)

    def begin(self, value: Any, timeout_s: float) -> Wait:
        """Its status, as a wait."""
        self._await_rights(timeout_s)
        return self._wait(self._thing.set(value))

    def put(self, value: Any, timeout_s: float) -> None:
        """Sent; whoever reads it back sees what came of it."""
        self._await_rights(timeout_s)
        if isinstance(self._thing, EpicsSignal):
            self._thing.put(value, use_complete=False, wait=False, connection_timeout=timeout_s, force=True)
        else:
            self._thing.put(value)

    def trigger(self, timeout_s: float) -> Wait:
        """Staged before, unstaged after."""
        thing = self._thing
        if not isinstance(thing, BlueskyInterface):  # a signal that can be triggered: there is nothing to stage
            return self._wait(thing.trigger())
        thing.stage()
        wait = self._wait(thing.trigger())

        def until_unstaged(patience_s: float) -> None:
            try:
                wait(patience_s)
            finally:
                thing.unstage()

        return until_unstaged

    def stop(self, timeout_s: float) -> None:
        """By its own way to stop."""
        self._thing.stop(success=False)

    def _await_rights(self, timeout_s: float) -> None:
        """What a server has that came back is connected one by one, and a moment later said to be writable.

        Until then ophyd would refuse to write, or wait for a second only.
        """
        written = self._thing.user_setpoint if isinstance(self._thing, EpicsMotor) else self._thing
        until_s = time.monotonic() + min(timeout_s, _RIGHTS_S)
        while isinstance(written, EpicsSignal) and not (written.connected and written.write_access):
            if time.monotonic() >= until_s:
                return
            time.sleep(_RIGHTS_LOOK_S)

    def _wait(self, status: Any) -> Wait:
        """Until the status is done, or the thing is connected no more: then it never would be."""
        thing = self._thing

        def wait(patience_s: float) -> None:
            until_s = time.monotonic() + patience_s
            while True:
                try:
                    status.wait(timeout=min(left_s(until_s), _LOOK_S))
                except WaitTimeoutError:
                    if not thing.connected:
                        raise DisconnectedError(
                            f"{self._thing.name} was disconnected while it was waited for"
                        ) from None
                    if time.monotonic() >= until_s:
                        raise
                else:
                    return

        return wait
