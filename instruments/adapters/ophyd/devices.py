"""What is asked of the device tree, in the process that holds it; raises the house's errors, which cross as they are.

Neighbours: `device_program` makes it there, `line` calls it from here, `things` is the tree.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np

from instruments.adapters.ophyd.things import Thing, Tree, Wait, left_s
from instruments.errors import CommandRefused, ConfigurationError, InstrumentError, InstrumentFault, LinkLost

_LOOK_S: Final = 0.01
_EPICS_BEGINS_S: Final = 631_152_000.0  # 1990
_EXTRA: Final = ("ophyd", "epics", "bluesky")
_NOBODY: Final = {"DisconnectedError", "NotConnectedError", "TimeoutError"}  # by name: of three libraries
_ENDINGS: Final = (OSError, RuntimeError, TypeError, ValueError)  # of a setting whose device is read all the same
_PACKAGES: Final = ("ophyd", "ophyd-async", "bluesky", "pyepics", "caproto", "p4p", "aioca")
Settings = Sequence[Sequence[Any]]
"""(path, value) of each."""


class Devices:
    """The tree of a facility's function, connected. Every call has an end; values are the devices' own."""

    def __init__(
        self,
        devices: str,
        arguments: dict[str, Any],
        paths: list[str],
        stopping: Mapping[str, Any],
        *,
        connect_s: float,
        answer_s: float,
    ) -> None:
        """Raises ConfigurationError for a tree that is not as configured, LinkLost where nobody answers."""
        until_s = time.monotonic() + connect_s
        self._answer_s = answer_s
        self._stopping = stopping
        with _Opening(devices):
            self._tree = Tree(_made(devices), arguments)
            self._used = {path: self._tree.thing(path) for path in paths}
            for thing in self._used.values():
                thing.connect(left_s(until_s))

    def about(self) -> dict[str, Any]:
        """The limits of each part that has some, and the versions of what is installed here."""
        return {"facts": {path: thing.facts() for path, thing in self._used.items()}, "versions": _versions()}

    def read(self, paths: Sequence[str], deadline_s: float) -> dict[str, Any]:
        """The value of each path."""
        until_s = time.monotonic() + deadline_s
        with _Words("read"):
            return {path: _plain(self._read(path, until_s)) for path in paths}

    def set(self, values: Settings, read: Sequence[str], settle_s: float, deadline_s: float) -> dict[str, Any]:
        """Check all, send all, wait for all, settle; what went wrong by path, and what `read` says afterwards.

        Raises CommandRefused: nothing was sent.
        """
        until_s = time.monotonic() + deadline_s - settle_s
        for path, value in values:
            try:
                self._thing(path).check(value)
            except ValueError as error:
                raise CommandRefused(f"{path}: {error}") from error
        with _Words("set"):
            begun = [(path, self._thing(path).begin(value, left_s(until_s))) for path, value in values]
            faults = {path: fault for path, wait in begun if (fault := _fault(wait, until_s))}
            time.sleep(settle_s)
            read_until_s = time.monotonic() + self._answer_s  # what did not arrive in time is read all the same
            return {"faults": faults, "values": {path: _plain(self._read(path, read_until_s)) for path in read}}

    def expose(
        self, trigger: str, trigger_value: Any, images: dict[str, str], counter: str | None,
        before: Settings, after: Settings, deadline_s: float,
    ) -> dict[str, Any]:  # fmt: skip
        """Unblank, trigger, blank whatever happens; then the images, and how long the beam was on."""
        until_s = time.monotonic() + deadline_s
        with _Words("expose"):
            counted = self._read(counter, until_s) if counter else None
            times = self._lit(trigger, trigger_value, before, after, until_s)
            if counter and self._read(counter, until_s) == counted:
                raise RuntimeError(f"{trigger} said done, and {counter} still says {counted}: there is no new image")
            arrays = {name: np.asarray(self._read(path, until_s)) for name, path in images.items()}
            clock = self._clock(after, times.pop("dark_from_s"), times.pop("dark_by_s"), until_s)
        return {"images": arrays, "clock": clock, **times}

    def _clock(self, after: Settings, from_s: float, by_s: float, until_s: float) -> dict[str, Any] | None:
        """Whose clock it is, what it read when it changed, and when that was by ours: in between."""
        if not after:
            return None
        path = str(after[0][0])
        stamped_s = self._thing(path).stamped_s(min(left_s(until_s), self._answer_s))
        if stamped_s is None or stamped_s <= _EPICS_BEGINS_S:  # a server that stamps nothing says 0
            return None
        return {"device": path, "told_s": stamped_s, "asked_s": from_s, "answered_s": by_s}

    def _lit(
        self, trigger: str, trigger_value: Any, before: Settings, after: Settings, until_s: float
    ) -> dict[str, float]:
        thing = self._thing(trigger)
        begun_s = time.monotonic()
        try:
            self._set_each(before, until_s)
            lit_s = time.monotonic()
            patience_s = left_s(until_s)
            wait = thing.trigger(patience_s) if trigger_value is None else thing.begin(trigger_value, patience_s)
            wait(left_s(until_s))
            done_s = time.monotonic()
        finally:
            dark_from_s = time.time()
            self._set_each(after, until_s + 1.0)
            dark_by_s = time.time()
        open_s = time.monotonic() - begun_s
        return {"trigger_s": done_s - lit_s, "open_s": open_s, "dark_from_s": dark_from_s, "dark_by_s": dark_by_s}

    def stop(self) -> None:
        """Blank without waiting for anything, stop the others, read back that it is dark. Raises InstrumentFault."""
        dark, confirm, others = (self._stopping[name] for name in ("dark", "confirm", "others"))
        latency_s = float(self._stopping["latency_s"])
        until_s = time.monotonic() + latency_s
        with _Words("stop"):
            if dark is not None:
                self._thing(dark[0]).put(dark[1], left_s(until_s))
            faults = [f"{path}: {fault}" for path, value in others if (fault := self._stop_fault(path, value, until_s))]
            while confirm is not None and self._read(confirm[0], until_s) != confirm[1]:
                if time.monotonic() >= until_s:
                    raise InstrumentFault(
                        f"the blanker did not read {confirm[1]!r} within {latency_s:g} s of a stop; assume the beam on"
                    )
                time.sleep(_LOOK_S)
        if faults:
            raise InstrumentFault(f"the beam is off, but not everything stopped: {'; '.join(faults)}")

    def _stop_fault(self, path: str, value: Any, until_s: float) -> str | None:
        thing = self._thing(path)
        return _fault(thing.stop if value is None else lambda patience_s: thing.put(value, patience_s), until_s)

    def _set_each(self, values: Settings, until_s: float) -> None:
        for path, value in values:
            patience_s = min(left_s(until_s), self._answer_s)
            self._thing(path).begin(value, patience_s)(patience_s)

    def _read(self, path: str, until_s: float) -> Any:
        """A read that ends long before an exposure's deadline: some libraries do not notice that nobody is there."""
        return self._thing(path).read(min(left_s(until_s), self._answer_s))

    def _thing(self, path: str) -> Thing:
        return self._used[path]


class _Words:
    """Around a call: what a vendor's library raises becomes LinkLost or InstrumentFault, with the call's name."""

    def __init__(self, call: str) -> None:
        self._call = call

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, InstrumentError):
            return
        if _is_nobody_there(error):
            raise LinkLost(f"{self._call}: {_words(error)}; assume that the beam is on") from error
        raise InstrumentFault(f"{self._call}: {_words(error)}") from error


class _Opening:
    """Around the making of the tree: LinkLost where nobody answers, ConfigurationError for everything else."""

    def __init__(self, devices: str) -> None:
        self._devices = devices

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        if _is_nobody_there(error):
            raise LinkLost(f"{self._devices}: {_words(error)}; see whether its server runs") from error
        raise ConfigurationError(f"{self._devices}: {_words(error)}") from error


def _made(devices: str) -> Any:
    module_name, _, function_name = devices.partition(":")
    try:
        return getattr(import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        if error.name in _EXTRA:
            raise LookupError(f"{error}; pip install 'stempilot[ophyd]', or name another python") from error
        raise


def _fault(wait: Wait, until_s: float) -> str | None:
    try:
        wait(left_s(until_s))
    except _ENDINGS as error:
        return _words(error)
    return None


def _plain(value: Any) -> Any:
    """A number or a word as JSON has it."""
    if isinstance(value, str | bool | int | float):
        return value
    array = np.asarray(value)
    if array.size != 1:
        raise TypeError(f"an axis has one value, not {array.size}: {value!r:.80}")
    return array.reshape(-1)[0].item()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _is_nobody_there(error: BaseException) -> bool:
    return bool(_NOBODY & {one.__name__ for one in type(error).__mro__})


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
