"""A specimen of micrometres, addressed by stage position: grid, holes, flakes, particles, dirt; atoms where asked."""

from simulation.builders.landscape.config import LandscapeConfig
from simulation.builders.landscape.objects import Flake, Particle
from simulation.builders.landscape.scene import Landscape, Overview

__all__ = ["Flake", "Landscape", "LandscapeConfig", "Overview", "Particle"]
