"""One device or signal of a tree, ophyd's or ophyd-async's, behind the few words the adapter needs; and the tree.

Neighbours: `classic_things` and `async_things`, loaded by the devices' process for what the tree is made of.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

Wait = Callable[[float], None]
"""Waits so many seconds for what was begun; raises TimeoutError or what went wrong."""


class Thing(Protocol):
    """One device or signal."""

    def connect(self, timeout_s: float) -> None:
        """Raises TimeoutError where nobody answers."""
        ...

    def facts(self) -> dict[str, Any]:
        """`low` and `high`, the device's own limits, where it has any."""
        ...

    def read(self, timeout_s: float) -> Any:
        """Its value now, asked for now: no monitor's memory."""
        ...

    def stamped_s(self, timeout_s: float) -> float | None:
        """When it last changed, by its server's clock, in seconds since 1970; None where nobody says."""
        ...

    def check(self, value: Any) -> None:
        """Raises ValueError for what the device says it would refuse; nothing is sent."""
        ...

    def begin(self, value: Any, timeout_s: float) -> Wait:
        """Send a value; the wait ends when the device says it is done."""
        ...

    def put(self, value: Any, timeout_s: float) -> None:
        """Send a value, and wait for nothing but its sending."""
        ...

    def trigger(self, timeout_s: float) -> Wait:
        """Let a detector expose."""
        ...

    def stop(self, timeout_s: float) -> None:
        """Stop what it does."""
        ...


def resolved(root: Any, path: str) -> Any:
    """What lies at `a.b.0.c` from the root: attributes, keys of mappings, indices. Raises LookupError."""
    thing = root
    for part in path.split("."):
        try:
            thing = _part(thing, part)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise LookupError(f"the device tree has no {path!r}: nothing is called {part!r} there") from error
    return thing


def _part(thing: Any, name: str) -> Any:
    if isinstance(thing, Mapping):
        parts = cast("Mapping[Any, Any]", thing)
        return parts[int(name)] if name.isdigit() and name not in parts else parts[name]
    return thing[int(name)] if name.isdigit() else getattr(thing, name)


def true_limits(low: Any, high: Any) -> dict[str, Any]:
    """Limits that are limits: EPICS says 0 and 0 where there are none."""
    if low is None or high is None or not low < high:
        return {}
    return {"low": float(low), "high": float(high)}


class Tree:
    """The device tree that a facility's function made, and its parts by path."""

    def __init__(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._things: dict[str, Thing] = {}
        self._loop: Any = None
        self._root = make(**arguments)

    def thing(self, path: str) -> Thing:
        """The part at a path. Raises LookupError."""
        if path not in self._things:
            self._things[path] = self._wrapped(resolved(self._root, path))
        return self._things[path]

    def _wrapped(self, found: Any) -> Thing:
        core = sys.modules.get("ophyd_async.core")
        if core is None or not isinstance(found, core.Device):
            from instruments.adapters.ophyd.classic_things import ClassicThing

            return ClassicThing(found)
        from instruments.adapters.ophyd.async_things import AsyncThing, LoopThread

        self._loop = self._loop or LoopThread()
        return AsyncThing(found, self._loop)


def left_s(until_s: float) -> float:
    """Seconds until a moment of `time.monotonic`; never below a millisecond, so that what is there is taken."""
    return max(until_s - time.monotonic(), 1e-3)
