"""The words of the house: optics, scans, commands, frames, capabilities, limits, and the Microscope protocol.

The lowest layer; its neighbour above is `simulation` (one more adapter) and `orchestrator` (the loop).
"""

from instruments.actions import ActionState
from instruments.arrangement import Arrangement
from instruments.axes import KNOWN_AXES, axis_values
from instruments.calibrations import Calibration, CalibrationRegistry
from instruments.capabilities import Axis, Capabilities, Detector, Mode, Procedure
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.deadlines import deadline_for
from instruments.dose_ledger import DoseLedger
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    LookNeeded,
    ResultUnknown,
    Unsupported,
)
from instruments.events import Eventful, Events, InstrumentEvent, Subscription
from instruments.frames import Frame
from instruments.guards import GuardedMicroscope
from instruments.limits import AxisLimit, SafetyEnvelope, StageBox
from instruments.microscope import Forecasting, HiddenTruth, Linked, Microscope, Outcome, Rebuildable, Releasable
from instruments.optics import Aberrations, Coherence, Optics
from instruments.registry import known_adapters, open  # noqa: A004  the public name is fixed
from instruments.retries import is_idempotent, moved_by, when_free
from instruments.scans import ScanPattern, StagePosition
from instruments.state import AxisReading, ClockOffset, ColumnState, MicroscopeState
from instruments.transforms import FrameTransform

__all__ = [
    "KNOWN_AXES",
    "Aberrations",
    "AcquireFrame",
    "AcquisitionFailed",
    "ActionState",
    "Arrangement",
    "Axis",
    "AxisLimit",
    "AxisReading",
    "AxisValue",
    "Blank",
    "Calibration",
    "CalibrationRegistry",
    "Capabilities",
    "ClockOffset",
    "Coherence",
    "ColumnState",
    "Command",
    "CommandRefused",
    "ConfigurationError",
    "Detector",
    "DoseLedger",
    "Eventful",
    "Events",
    "Forecasting",
    "Frame",
    "FrameTransform",
    "GuardedMicroscope",
    "HiddenTruth",
    "InstrumentBusy",
    "InstrumentError",
    "InstrumentEvent",
    "InstrumentFault",
    "LinkLost",
    "Linked",
    "LookNeeded",
    "Microscope",
    "MicroscopeState",
    "Mode",
    "Optics",
    "Outcome",
    "Park",
    "Procedure",
    "Rebuildable",
    "Releasable",
    "ResultUnknown",
    "RunProcedure",
    "SafetyEnvelope",
    "ScanPattern",
    "SetAxes",
    "StageBox",
    "StagePosition",
    "Subscription",
    "Unblank",
    "Unsupported",
    "axis_values",
    "deadline_for",
    "is_idempotent",
    "known_adapters",
    "moved_by",
    "open",
    "when_free",
]
