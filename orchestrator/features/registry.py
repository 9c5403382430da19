"""Feature extractors by name: built-in ones first, then entry points of the group `stempilot.features`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from orchestrator.features.errors import UnknownExtractor
from orchestrator.features.feature_set import FeatureExtractor

GROUP = "stempilot.features"
_BUILT_IN = {
    "lattice_sites": "orchestrator.features.sites:LatticeSites",
    "patterns": "orchestrator.features.patterns:Patterns",
    "survey": "orchestrator.features.survey:Survey",
}


def extractors() -> dict[str, str]:
    """Every extractor that can be made: name -> `module:callable`; built-in names win."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return found | _BUILT_IN


def create(name: str, *args: Any, **options: Any) -> FeatureExtractor:
    """Make the extractor `name` with its arguments. Raises UnknownExtractor for a name nobody registered."""
    known = extractors()
    if name not in known:
        raise UnknownExtractor(f"no feature extractor is called {name!r}; known: {', '.join(sorted(known))}")
    module_name, _, attribute = known[name].partition(":")
    maker = cast("Callable[..., FeatureExtractor]", getattr(import_module(module_name), attribute))
    return maker(*args, **options)
