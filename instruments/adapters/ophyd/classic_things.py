"""Devices and signals of ophyd. Only the devices' process imports this, and with it ophyd itself."""

from __future__ import annotations

import time
from typing import Any, Final

from ophyd import Device, EpicsMotor, Signal
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
        self._settable: list[EpicsSignal] = []

    def connect(self, timeout_s: float) -> None:
        """Raises TimeoutError, ophyd's own errors of a connection."""
        self._thing.wait_for_connection(timeout=timeout_s)
        self._read_from.wait_for_connection(timeout=timeout_s)
        self._settable = _settable(self._thing)

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
        self._await_rights(timeout_s)
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
        self._await_rights(timeout_s)
        self._thing.stop(success=False)

    def _await_rights(self, timeout_s: float) -> None:
        """Until what can be written is known to be, as long as there is patience.

        What a server has that came back is connected one by one, and a moment later said to be writable: until then
        ophyd would refuse to write, or wait for a second only. Of a server that was mute for a while and answers again,
        pyepics knows the rights and tells nobody: ophyd would refuse for ever.
        """
        until_s = time.monotonic() + min(timeout_s, _RIGHTS_S)
        while late := self._late():
            if time.monotonic() >= until_s:
                return
            for one in late:
                _tell_rights(one)
            time.sleep(_RIGHTS_LOOK_S)

    def _late(self) -> list[EpicsSignal]:
        """Those that may be written and do not know it; and the one that is to be written, until it may."""
        written = self._thing.user_setpoint if isinstance(self._thing, EpicsMotor) else self._thing
        shut = (one for one in self._settable if not (one.connected and one.write_access))
        return [one for one in shut if one is written or _is_writable(one)]

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


def _settable(thing: Any) -> list[EpicsSignal]:
    """The signals of a device, or the signal itself, that may be written."""
    parts = [found.item for found in thing.walk_signals()] if isinstance(thing, Device) else [thing]
    return [part for part in parts if isinstance(part, EpicsSignal)]


def _is_writable(signal: EpicsSignal) -> bool:
    """As pyepics has it from the server."""
    pv = signal._write_pv
    return bool(pv.connected and pv.write_access)


def _tell_rights(signal: EpicsSignal) -> None:
    """As pyepics would, had it heard of them."""
    if _is_writable(signal):
        pv = signal._write_pv
        for tell in list(pv.access_callbacks):
            tell(pv.read_access, pv.write_access, pv=pv)
