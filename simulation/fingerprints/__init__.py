"""Libraries of simulated fingerprints, for choosing among structures, thicknesses and tilts by what was counted."""

from simulation.fingerprints.library import BuildReport, FingerprintLibrary
from simulation.fingerprints.measured import Measured
from simulation.fingerprints.ranking import Ranking
from simulation.fingerprints.settings import (
    Candidate,
    ImageFingerprint,
    LibrarySettings,
    PatternFingerprint,
    SpectrumFingerprint,
)
from simulation.fingerprints.storage import Entry, Label

__all__ = [
    "BuildReport",
    "Candidate",
    "Entry",
    "FingerprintLibrary",
    "ImageFingerprint",
    "Label",
    "LibrarySettings",
    "Measured",
    "PatternFingerprint",
    "Ranking",
    "SpectrumFingerprint",
]
