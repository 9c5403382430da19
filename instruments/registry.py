"""Instruments by name: built-in adapters first, then entry points of the group `stempilot.instruments`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from instruments.errors import ConfigurationError
from instruments.microscope import Microscope

GROUP = "stempilot.instruments"
_BUILT_IN = {
    "simulated": "simulation.microscope:open_simulated",
    "replay": "instruments.adapters.replay:open_replay",
    "ophyd": "instruments.adapters.ophyd:open_ophyd",
    "temscript": "instruments.adapters.temscript:open_temscript",
    "merlin": "instruments.adapters.merlin:open_merlin",
    "instamatic": "instruments.adapters.instamatic:open_instamatic",
    "gateway": "instruments.adapters.gateway:open_gateway",
    "worker": "instruments.adapters.worker:open_worker",
    "nion": "instruments.adapters.nion:open_nion",
    "tango": "instruments.adapters.tango_devices:open_tango",
    "serialem": "instruments.adapters.serialem:open_serialem",
    "digitalmicrograph": "instruments.adapters.digitalmicrograph:open_digitalmicrograph",
    "ceos": "instruments.adapters.ceos:open_ceos",
    "pyjem": "instruments.adapters.pyjem:open_pyjem",
    "autoscript": "instruments.adapters.autoscript:open_autoscript",
    "micromanager": "instruments.adapters.micromanager:open_micromanager",
}


def known_adapters() -> dict[str, str]:
    """Every adapter that can be opened: name -> `module:function`; built-in names win."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return found | _BUILT_IN


def open(name: str, **config: Any) -> Microscope:  # noqa: A001  the public name is fixed
    """Open the adapter `name` with its configuration. Raises ConfigurationError for a name nobody registered."""
    known = known_adapters()
    if name not in known:
        raise ConfigurationError(
            f"no instrument adapter is called {name!r}; known: {', '.join(sorted(known))}; install the package whose "
            f"entry point of {GROUP!r} it is"
        )
    module_name, _, function_name = known[name].partition(":")
    try:
        opener = cast("Callable[..., Microscope]", getattr(import_module(module_name), function_name))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"adapter {name!r} ({known[name]}) cannot be loaded: {error}; install its package again, with what it needs"
        ) from error
    return opener(**config)
