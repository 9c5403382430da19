"""The process that holds the devices: `python -m instruments.adapters.ophyd.process COMMAND_FD STOP_FD`.

It makes the tree when it is told how, and answers one call after another; a second line takes stops beside them. It
ends with the adapter: a line that is hung up ends it, whatever a vendor's library still does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np

from instruments.adapters.ophyd.messages import Message, receive, send
from instruments.adapters.ophyd.things import Thing, Tree, Wait, left_s
from instruments.connections import Line

_IDLE_S: Final = 1e8  # until the next call comes
_LOOK_S: Final = 0.01
_EXTRA: Final = ("ophyd", "epics", "bluesky")


class RefusedError(Exception):
    """The device says no before anything was sent to any."""


class Devices:
    """What can be asked of the tree; each call has until a moment of `time.monotonic`."""

    def __init__(self) -> None:
        self._tree: Tree | None = None
        self._answer_s = 1.0

    def open(
        self, until_s: float, devices: str, arguments: dict[str, Any], paths: list[str], answer_s: float
    ) -> Message:
        """Make the tree and connect what is used of it; what each path says of itself."""
        self._answer_s = answer_s
        module_name, _, function_name = devices.partition(":")
        try:
            make = getattr(import_module(module_name), function_name)
        except ModuleNotFoundError as error:
            if error.name in _EXTRA:
                raise LookupError(f"{error}; pip install 'stempilot[ophyd]', or name another python") from error
            raise
        self._tree = Tree(make, arguments)
        things = [self._tree.thing(path) for path in paths]
        for thing in things:
            thing.connect(left_s(until_s))
        return Message({"facts": {path: self._thing(path).facts() for path in paths}, "versions": _versions()})

    def read(self, until_s: float, paths: list[str]) -> Message:
        """The value of each path."""
        return Message({"values": {path: _plain(self._read(path, until_s)) for path in paths}})

    def set(self, until_s: float, values: list[list[Any]]) -> Message:
        """Check all, send all, wait for all; what went wrong, by path."""
        things = [(path, self._thing(path), value) for path, value in values]
        for path, thing, value in things:
            try:
                thing.check(value)
            except ValueError as error:
                raise RefusedError(f"{path}: {error}") from error
        begun = [(path, thing.begin(value, left_s(until_s))) for path, thing, value in things]
        faults = {path: fault for path, wait in begun if (fault := _fault(wait, until_s))}
        return Message({"faults": faults})

    def expose(
        self, until_s: float, trigger: str, trigger_value: Any, images: dict[str, str], counter: str | None,
        before: list[list[Any]], after: list[list[Any]],
    ) -> Message:  # fmt: skip
        """Unblank, trigger, blank whatever happens; then the images. Times are this computer's monotonic clock."""
        thing = self._thing(trigger)
        counted = self._read(counter, until_s) if counter else None
        begun_s = time.monotonic()
        try:
            self._set_each(before, until_s)
            lit_s = time.monotonic()
            patience_s = left_s(until_s)
            wait = thing.trigger(patience_s) if trigger_value is None else thing.begin(trigger_value, patience_s)
            wait(left_s(until_s))
            done_s = time.monotonic()
        finally:
            self._set_each(after, until_s + 1.0)
        dark_s = time.monotonic()
        if counter and self._read(counter, until_s) == counted:
            raise RuntimeError(f"{trigger} said done, and {counter} still says {counted}: there is no new image")
        arrays = {name: np.asarray(self._read(path, until_s)) for name, path in images.items()}
        return Message({"trigger_s": done_s - lit_s, "open_s": dark_s - begun_s}, arrays)

    def stop(
        self, until_s: float, dark: list[Any] | None, confirm: list[Any] | None, others: list[list[Any]]
    ) -> Message:
        """Blank without waiting for anything, stop the others, read back that it is dark; what went wrong."""
        faults: dict[str, str] = {}
        if dark is not None:
            self._thing(dark[0]).put(dark[1], left_s(until_s))
        for path, value in others:
            thing = self._thing(path)
            stop = (
                thing.stop
                if value is None
                else lambda patience_s, thing=thing, value=value: thing.put(value, patience_s)
            )
            if fault := _fault(stop, until_s):
                faults[path] = fault
        is_dark = confirm is None
        while not is_dark and time.monotonic() < until_s:
            is_dark = bool(self._read(confirm[0], until_s) == confirm[1]) if confirm else True
            time.sleep(0 if is_dark else _LOOK_S)
        return Message({"faults": faults, "is_dark": is_dark})

    def _set_each(self, values: list[list[Any]], until_s: float) -> None:
        for path, value in values:
            patience_s = min(left_s(until_s), self._answer_s)
            self._thing(path).begin(value, patience_s)(patience_s)

    def _read(self, path: str, until_s: float) -> Any:
        """A read that ends long before an exposure's deadline: some libraries do not notice that nobody is there."""
        return self._thing(path).read(min(left_s(until_s), self._answer_s))

    def _thing(self, path: str) -> Thing:
        if self._tree is None:
            raise LookupError("the device tree was not opened")
        return self._tree.thing(path)


def _fault(wait: Wait, until_s: float) -> str | None:
    try:
        wait(left_s(until_s))
    except Exception as error:  # noqa: BLE001  a vendor's status may carry any error; it is told with its path
        return f"{type(error).__name__}: {error}"
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
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for name in ("ophyd", "ophyd-async", "bluesky", "pyepics", "caproto", "p4p", "aioca"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _kind(error: BaseException) -> str:
    """What follows from a fault, for the adapter: nothing was sent, nobody answers, or anything else."""
    if isinstance(error, RefusedError):
        return "refused"
    names = {one.__name__ for one in type(error).__mro__}
    return "lost" if names & {"DisconnectedError", "NotConnectedError", "TimeoutError"} else "fault"


def serve(line: Line, call: Callable[[str, dict[str, Any]], Message]) -> None:
    """Answer calls until the line is hung up."""
    while True:
        line.begin(time.monotonic() + _IDLE_S)
        try:
            asked = receive(line).values
        except (OSError, EOFError):
            return
        number = asked.pop("number")
        try:
            answer = call(asked.pop("call"), asked)
        except Exception as error:  # noqa: BLE001  whatever a vendor's library raises crosses as its words
            answer = Message({"error": _kind(error), "message": f"{type(error).__name__}: {error}"})
        answer.values["number"] = number
        send(line, answer)


def main(command_fd: int, stop_fd: int) -> None:
    """Serve both lines; end at once when the first is hung up."""
    devices = Devices()

    def call(name: str, arguments: dict[str, Any]) -> Message:
        until_s = time.monotonic() + arguments.pop("deadline_s")
        match name:
            case "open":
                return devices.open(until_s, **arguments)
            case "read":
                return devices.read(until_s, **arguments)
            case "set":
                return devices.set(until_s, **arguments)
            case "expose":
                return devices.expose(until_s, **arguments)
            case "stop":
                return devices.stop(until_s, **arguments)
            case _:
                raise LookupError(f"no call is named {name!r}")

    stop_line = _line(stop_fd)
    threading.Thread(target=serve, args=(stop_line, call), name="stop", daemon=True).start()
    try:
        serve(_line(command_fd), call)
    finally:
        os._exit(0)  # a vendor's threads may hang at the interpreter's end


def _line(descriptor: int) -> Line:
    return Line(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
