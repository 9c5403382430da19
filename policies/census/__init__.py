"""The census of rare objects: survey, focus, fields, and second looks at undecided sites, by expected gain per cost."""

from policies.census.census import Census
from policies.census.settings import CensusSettings

__all__ = ["Census", "CensusSettings"]
