"""Feature errors, named by what may happen next.

FeatureError
  NormalisedCounts   the frame is not raw counts: no probabilities; describe it without them
  UnknownSpecies     the model does not know the species: correct the list
  UnknownExtractor   nobody registered that name: correct the name or install the plug-in
"""

from __future__ import annotations

from orchestrator.errors import FeatureError

__all__ = ["FeatureError", "NormalisedCounts", "UnknownExtractor", "UnknownSpecies"]


class NormalisedCounts(FeatureError):
    """The frame is not raw counts, so Poisson statistics do not hold."""


class UnknownSpecies(FeatureError):
    """A species that the lattice model does not know."""


class UnknownExtractor(FeatureError):
    """A feature extractor that nobody registered."""
