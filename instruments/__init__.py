"""The words of the house: optics, scans, commands, frames, capabilities, limits, and the Microscope protocol.

The lowest layer; its neighbour above is `simulation` (one more adapter) and `orchestrator` (the loop).
"""

from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.commands import AcquireFrame, Blank, Command, Park, Unblank
from instruments.dose_ledger import DoseLedger
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    ResultUnknown,
    Unsupported,
)
from instruments.frames import Frame
from instruments.guards import GuardedMicroscope
from instruments.limits import SafetyEnvelope
from instruments.microscope import Forecasting, HiddenTruth, Microscope, Outcome, Rebuildable, Releasable
from instruments.optics import Aberrations, Coherence, Optics
from instruments.registry import known_adapters, open  # noqa: A004  the public name is fixed
from instruments.scans import ScanPattern, StagePosition
from instruments.state import MicroscopeState

__all__ = [
    "Aberrations",
    "AcquireFrame",
    "AcquisitionFailed",
    "Axis",
    "Blank",
    "Capabilities",
    "Coherence",
    "Command",
    "CommandRefused",
    "ConfigurationError",
    "Detector",
    "DoseLedger",
    "Forecasting",
    "Frame",
    "GuardedMicroscope",
    "HiddenTruth",
    "InstrumentBusy",
    "InstrumentError",
    "InstrumentFault",
    "Microscope",
    "MicroscopeState",
    "Mode",
    "Optics",
    "Outcome",
    "Park",
    "Rebuildable",
    "Releasable",
    "ResultUnknown",
    "SafetyEnvelope",
    "ScanPattern",
    "StagePosition",
    "Unblank",
    "Unsupported",
    "known_adapters",
    "open",
]
