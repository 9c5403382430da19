"""Calls of Tango devices with a deadline each, and the house's errors. Its neighbour `tango_devices` says which.

A stop has a link of its own. CORBA numbers its requests: the late reply of a call given up is no later call's. pytango
notices silence some seconds late; a call is waited for as long as it may take, and left behind in its thread then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as CallTimeout
from importlib import import_module
from typing import Any, Final, TypeVar

from instruments.adapters.clocks import offset_of
from instruments.errors import (
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
    Unsupported,
)
from instruments.state import ClockOffset

T = TypeVar("T")
_REFUSED: Final = ("API_WAttrOutsideLimit", "API_AttrNotWritable", "API_CommandNotAllowed", "API_AttrNotAllowed")
_MISSING: Final = ("API_AttrNotFound", "API_CommandNotFound")
_UNDEFINED: Final = ("DB_DeviceNotDefined", "API_UnsupportedDBaseModifier", "API_WrongDeviceNameSyntax")
_SILENT: Final = frozenset(
    ("API_CorbaException", "API_ServerNotRunning", "API_CantConnectToDevice", "API_DeviceTimedOut")
)
_SHORTEST_MS: Final = 10
_DELAY_S: Final = 1.1  # before it Tango refuses to connect anew
_GRACE_S: Final = 0.2  # after a call's own timeout until it is left behind
_LOOK_UP_S: Final = 12.0  # for a device that was not asked for before


class TangoLink:
    """Devices by name, from one thread.

    A device is looked up once and kept: where nobody answers, looking it up takes Tango up to 10 s. One whose call was
    left behind is looked up anew, within the time of the call that needs it.
    """

    def __init__(self, answer_s: float) -> None:
        try:
            self._tango = import_module("tango")
        except ImportError as error:
            raise ConfigurationError(
                f"pytango is not installed ({error}); install stempilot with the extra `tango`"
            ) from error
        self._answer_s = answer_s
        self._proxies: dict[str, Any] = {}
        self._known: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "tango")
        self._attributes: dict[tuple[str, str], Any] = {}
        self.is_lost = False
        self._lost_s = -_DELAY_S

    def read(self, device: str, attribute: str, within_s: float | None = None) -> Any:
        """The value now. Raises LinkLost, Unsupported, InstrumentFault where it is marked invalid."""
        read = self._call(device, f"{device}/{attribute}", within_s, lambda proxy: proxy.read_attribute(attribute))
        if read.quality == self._tango.AttrQuality.ATTR_INVALID:
            raise InstrumentFault(f"{device}/{attribute} is marked invalid by its device; see there")
        return read.value

    def write(self, device: str, attribute: str, value: Any) -> None:
        """Set; the device's own refusal is CommandRefused."""
        # By its description, not by name: pytango asks for that in between, and takes silence for a wrong type.
        known = self._described(device, attribute)
        words = f"{device}/{attribute} = {value}"
        self._call(device, words, None, lambda proxy: proxy.write_attribute(known, value))

    def run(self, device: str, command: str, *, moves: bool = False) -> None:
        """A command without arguments; one that `moves` and was not answered is ResultUnknown."""
        words = f"{device}/{command}"
        self._call(device, words, None, lambda proxy: proxy.command_inout(command), moves=moves)

    def state(self, device: str) -> str:
        """Its State as a word: ON, MOVING, RUNNING, FAULT."""
        return str(self._call(device, f"{device}/State", None, lambda proxy: proxy.state()))

    def limits(self, device: str, attribute: str) -> tuple[float | None, float | None]:
        """Those of the device, in its own unit; None for none."""
        found = self._described(device, attribute)
        return _number(found.min_value), _number(found.max_value)

    def _described(self, device: str, attribute: str) -> Any:
        """What the device says of an attribute, asked once."""
        if (device, attribute) not in self._attributes:
            words = f"the description of {device}/{attribute}"
            found = self._call(device, words, None, lambda proxy: proxy.get_attribute_config(attribute))
            self._attributes[device, attribute] = found
        return self._attributes[device, attribute]

    def clocks(self) -> dict[str, ClockOffset]:
        """Of each device that answered before, by the time at which it reads its State now. Raises LinkLost."""
        return {device: self._clock(device) for device in sorted(self._known)}

    def _clock(self, device: str) -> ClockOffset:
        words = f"{device}/State"
        asked_s = time.time()
        read = self._call(device, words, None, lambda proxy: proxy.read_attribute("State"))
        return offset_of(read.time.totime(), asked_s, time.time())

    def start(self) -> None:
        """See whether every device answers; Tango connects anew by itself, once a second. Raises LinkLost."""
        time.sleep(max(0.0, self._lost_s + _DELAY_S - time.monotonic()))
        for device in sorted(self._known):
            self._call(device, f"{device} (ping)", None, lambda proxy: proxy.ping())

    def close(self) -> None:
        """Forget the devices; a call that was left behind is not waited for."""
        self._proxies.clear()
        self._thread.shutdown(wait=True)

    def _call(
        self, device: str, what: str, within_s: float | None, call: Callable[[Any], T], *, moves: bool = False
    ) -> T:
        within_s = within_s or self._answer_s
        is_sent = False

        def made() -> T:
            nonlocal is_sent
            proxy = self._proxy(device)
            proxy.set_timeout_millis(max(_SHORTEST_MS, round(1e3 * within_s)))
            is_sent = True
            return call(proxy)

        patience_s = within_s + (_GRACE_S if device in self._known else _LOOK_UP_S)
        try:
            answer = self._waited_for(self._thread.submit(made), patience_s)
        except self._tango.DevFailed as error:
            raise self._named(error, what, is_unknown=moves and is_sent) from error
        except CallTimeout as error:
            self._proxies.pop(device, None)
            raise self._lost(f"{what}: no answer in {within_s:g} s", is_unknown=moves and is_sent) from error
        self._known.add(device)
        self.is_lost = False
        return answer

    def _waited_for(self, call: Future[T], patience_s: float) -> T:
        """What it gives. One that takes longer is left behind, and its thread with it. Raises TimeoutError."""
        try:
            return call.result(patience_s)
        except CallTimeout:
            self._thread.shutdown(wait=False)
            self._thread = ThreadPoolExecutor(1, "tango")
            raise

    def _proxy(self, device: str) -> Any:
        if device not in self._proxies:
            self._proxies[device] = self._tango.DeviceProxy(device)
            self._proxies[device].set_source(self._tango.DevSource.DEV)  # what a server polled is of some time ago
        return self._proxies[device]

    def _lost(self, words: str, *, is_unknown: bool) -> Exception:
        self.is_lost, self._lost_s = True, time.monotonic()
        if is_unknown:
            return ResultUnknown(f"{words}; its dose counts as spent, ask for the outcome before anything else")
        return LinkLost(f"{words}; assume that the beam is on")

    def _named(self, error: Any, what: str, *, is_unknown: bool) -> Exception:
        reason, reasons = error.args[0].reason, {one.reason for one in error.args}
        words = f"{what}: {' '.join(error.args[0].desc.split())}"
        if reason in _UNDEFINED:
            return ConfigurationError(f"{words}; name a device that Tango knows")
        if reasons & _SILENT:  # of the whole stack: it may be wrapped
            return self._lost(words, is_unknown=is_unknown)
        if reason in _MISSING:
            return Unsupported(words)
        if reason == "API_CommandTimedOut":  # its server did not let go of the device
            return InstrumentBusy(words)
        return CommandRefused(words) if reason in _REFUSED else InstrumentFault(words)


def _number(limit: str) -> float | None:
    """A limit as Tango writes it: a number, or words for none."""
    try:
        return float(limit)
    except ValueError:
        return None
