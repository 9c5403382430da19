"""Physics to images: STEM simulated by multislice, and by faster methods that say how far they are from it.

Its neighbours are `instruments` below (the words: optics, scans) and `workflows` above, which wires the simulated
microscope to the loop.
"""

from simulation.detectors import AnnularDetector, PixelatedDetector, SegmentedDetector
from simulation.engine import Simulator, simulate
from simulation.errors import (
    AccuracyMissed,
    Cancelled,
    DeviceUnavailable,
    InvalidParameter,
    InvalidSpecimen,
    MethodUnavailable,
    ProbeOutgrowsCell,
    SimulationError,
    SourceUnresolved,
)
from simulation.phonons import DebyeWaller, FrozenPhonons
from simulation.potential import projected_potential
from simulation.probe import probe
from simulation.progress import reporting
from simulation.scans import GridScan, PointScan

__all__ = [
    "AccuracyMissed",
    "AnnularDetector",
    "Cancelled",
    "DebyeWaller",
    "DeviceUnavailable",
    "FrozenPhonons",
    "GridScan",
    "InvalidParameter",
    "InvalidSpecimen",
    "MethodUnavailable",
    "PixelatedDetector",
    "PointScan",
    "ProbeOutgrowsCell",
    "SegmentedDetector",
    "SimulationError",
    "Simulator",
    "SourceUnresolved",
    "probe",
    "projected_potential",
    "reporting",
    "simulate",
]
