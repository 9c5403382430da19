"""The hidden world of the simulated microscope: specimen, contamination, damage, drift, beam, clock: a file each."""

from simulation.world.config import DefectConfig, SimulatedConfig
from simulation.world.specimen import World

__all__ = ["DefectConfig", "SimulatedConfig", "World"]
