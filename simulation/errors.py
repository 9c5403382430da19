"""What can go wrong in a simulation, named by what to do next.

SimulationError
  InvalidSpecimen      the structure or its cell cannot be simulated; repair it
  InvalidParameter     an argument is out of range; the message says which, its limit and the unit
  MethodUnavailable    this method does not exist, or cannot treat this case; choose one of those named
  DeviceUnavailable    the wanted device is not on this machine; choose another or "auto"
  UnreadableLibrary    stored fingerprints are damaged or newer than this program; the message says which file
  Cancelled            somebody asked for an end; what was kept is whole, ask again when wanted

ProbeOutgrowsCell      a warning: the image is that of a row of probes; repeat the cell
SourceUnresolved       a warning: steps are too wide to blur the finished image; use placement="exact"
AccuracyMissed         a warning: the method asked for comes no nearer; use method="auto" or read error_estimate
"""

from __future__ import annotations


class SimulationError(Exception):
    """Any failure of the simulation package."""


class InvalidSpecimen(SimulationError, ValueError):
    """The structure, its file or its cell cannot be simulated."""


class InvalidParameter(SimulationError, ValueError):
    """An argument is out of range or of the wrong kind."""


class MethodUnavailable(SimulationError, ValueError):
    """The method is unknown, not offered, or not able to treat this case."""


class DeviceUnavailable(SimulationError, RuntimeError):
    """The wanted device or array library is not on this machine."""


class Cancelled(SimulationError):
    """Somebody asked for an end while it was computed."""


class UnreadableLibrary(SimulationError, ValueError):
    """A stored library of fingerprints is damaged, missing, or of a newer format."""


class ProbeOutgrowsCell(UserWarning):
    """The probe is wider than the periodic cell it was simulated in."""


class SourceUnresolved(UserWarning):
    """Steps are too wide for a blur of the finished image (placement="bilinear") to be right."""


class AccuracyMissed(UserWarning):
    """The method asked for could not come as near to multislice as `accuracy` asks; the image says how near it is."""
