"""From a frame to features: site-by-site evidence, survey maps, and the words they are told in."""

from orchestrator.features.errors import FeatureError, NormalisedCounts, UnknownExtractor, UnknownSpecies
from orchestrator.features.feature_set import Feature, FeatureExtractor, FeatureSet
from orchestrator.features.registry import create, extractors
from orchestrator.features.sites import LatticeHint, LatticeSites
from orchestrator.features.survey import Survey

__all__ = [
    "Feature",
    "FeatureError",
    "FeatureExtractor",
    "FeatureSet",
    "LatticeHint",
    "LatticeSites",
    "NormalisedCounts",
    "Survey",
    "UnknownExtractor",
    "UnknownSpecies",
    "create",
    "extractors",
]
