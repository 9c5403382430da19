"""Devices and signals of ophyd-async. Only the devices' process imports this, and with it ophyd-async itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, cast

from bluesky.protocols import Locatable, Stageable
from ophyd_async.core import SignalR, SignalW  # pyright: ignore[reportMissingImports]  may be elsewhere

from instruments.adapters.ophyd.things import Wait, true_limits


class AsyncThing:
    """Of ophyd-async: everything happens in the event loop of one thread."""

    def __init__(self, thing: Any, loop: LoopThread) -> None:
        self._thing = thing
        self._loop = loop

    def connect(self, timeout_s: float) -> None:
        """Raises TimeoutError, ophyd's own errors of a connection."""

        async def connect() -> None:
            await self._thing.connect(timeout=timeout_s)

        self._loop.run(connect(), timeout_s + 1)

    def facts(self) -> dict[str, Any]:
        """The limits of its record or channel."""
        described = self._loop.run(self._described(), 5.0)
        control = described.get("limits", {}).get("control") or {}
        return true_limits(control.get("low"), control.get("high"))

    async def _described(self) -> dict[str, Any]:
        if not isinstance(self._thing, SignalR):
            return {}
        return dict(next(iter((await self._thing.describe()).values())))

    def read(self, timeout_s: float) -> Any:
        """Asked for now, not remembered."""
        return self._loop.run(self._value(), timeout_s)

    async def _value(self) -> Any:
        if isinstance(self._thing, SignalR):
            return await self._thing.get_value()
        if isinstance(self._thing, Locatable):  # of ophyd-async: its locate is a coroutine
            return (await cast("Any", self._thing).locate())["readback"]
        return (await self._thing.read())[self._thing.name]["value"]

    def stamped_s(self, timeout_s: float) -> float | None:
        """EPICS sends it along with a value."""
        return self._loop.run(self._stamp(), timeout_s)

    async def _stamp(self) -> float | None:
        if not isinstance(self._thing, SignalR):
            return None
        return float((await self._thing.read(cached=False))[self._thing.name]["timestamp"])

    def check(self, value: Any) -> None:
        """Raises ValueError."""
        low, high = (self.facts().get(name) for name in ("low", "high"))
        if low is not None and high is not None and not low <= value <= high:
            raise ValueError(f"{self._thing.name}: {value} is outside {low} to {high}")

    def begin(self, value: Any, timeout_s: float) -> Wait:
        """Its status, as a wait."""

        async def set_value() -> None:
            if isinstance(self._thing, SignalW):
                await self._thing.set(value, timeout=timeout_s)
            else:
                await self._thing.set(value)

        return self._loop.begin(set_value())

    def put(self, value: Any, timeout_s: float) -> None:
        """Sent; whoever reads it back sees what came of it."""
        self.begin(value, timeout_s)

    def trigger(self, timeout_s: float) -> Wait:
        """Staged before, unstaged after."""

        async def expose() -> None:
            is_staged = isinstance(self._thing, Stageable)
            if is_staged:
                await self._thing.stage()
            try:
                await self._thing.trigger()
            finally:
                if is_staged:
                    await self._thing.unstage()

        return self._loop.begin(expose())

    def stop(self, timeout_s: float) -> None:
        """By its own way to stop."""

        async def stop() -> None:
            await self._thing.stop(success=False)

        self._loop.run(stop(), timeout_s)


class LoopThread:
    """An event loop in a thread of its own; what is begun in it is waited for from elsewhere."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="devices", daemon=True).start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Wait:
        """Start it; it is cancelled when a wait for it runs out."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)

        def wait(patience_s: float) -> Any:
            try:
                return future.result(patience_s)
            except FutureTimeout as error:
                future.cancel()
                raise TimeoutError(str(error) or f"no answer in {patience_s:g} s") from error

        return wait

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Its result. Raises TimeoutError."""
        return cast("Callable[[float], Any]", self.begin(work))(timeout_s)
