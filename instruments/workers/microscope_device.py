"""Any adapter as the device of a worker: run in another Python that has pydantic and NumPy, and the adapter's library.

Of stempilot it loads the package `instruments` alone, from where this file lies; the rest of its environment stays
out of the other Python's way. Neighbour: `adapters.worker` is the other end.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)


def open_device(adapter: str, config: dict[str, Any], path: list[str]) -> MicroscopeDevice:
    """The adapter of that name, or of the words `module:function`; `path` is searched for modules besides."""
    if sys.version_info < OLDEST:
        raise ImportError("an adapter needs Python {}.{} or later, this is {}".format(*OLDEST, sys.version.split()[0]))
    sys.path += path
    _load_instruments()
    registry = import_module("instruments.registry")
    if ":" not in adapter:
        return MicroscopeDevice(registry.open(adapter, **config))
    module, _, function = adapter.partition(":")
    return MicroscopeDevice(getattr(import_module(module), function)(**config))


class MicroscopeDevice:
    """A `Microscope` whose methods are called by name, with values as `remote.wire` packs them.

    What happens at it is kept, the newest thousand events, until the owner asks, which it does after every command.
    """

    def __init__(self, microscope: Any) -> None:
        self._microscope = microscope
        self._wire = import_module("instruments.remote.wire")
        events = import_module("instruments.events")
        self._log = events.EventLog()
        self._told = 0
        self._tells = isinstance(microscope, events.Eventful)
        if self._tells:
            microscope.events.attach(self._log)

    def protocols(self, names: list[str]) -> list[str]:
        """Those of these protocols that the adapter fulfils besides `Microscope`."""
        known = import_module("instruments.microscope")
        return [name for name in names if isinstance(self._microscope, getattr(known, name))]

    def tells(self) -> bool:
        """Whether the adapter tells of events."""
        return self._tells

    def ask(self, method: str, packed: Any, arrays: list[Any]) -> dict[str, Any]:
        """What the adapter's method returns for the packed arguments, packed."""
        result = getattr(self._microscope, method)(*self._wire.unpack(packed, arrays))
        found: list[Any] = []
        return {"packed": self._wire.pack(result, found), "arrays": found}

    def new_events(self) -> Any:
        """What happened since this was last asked, packed; None: nothing did."""
        batch = self._log.after(self._told)
        self._told = batch.last
        return self._wire.pack(batch, []) if batch.events else None

    def stop(self) -> None:
        """Blank and interrupt, from beside."""
        self._microscope.stop()


def _load_instruments() -> None:
    if "instruments" in sys.modules:
        return
    folder = [str(PACKAGE)]
    spec = importlib.util.spec_from_file_location(
        "instruments", PACKAGE / "__init__.py", submodule_search_locations=folder
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{PACKAGE} is no package")
    package = importlib.util.module_from_spec(spec)
    sys.modules["instruments"] = package
    spec.loader.exec_module(package)
