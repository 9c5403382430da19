"""Specimens from a seed and a few words: `ase.Atoms` in orthogonal periodic cells, beam along +z, angstrom.

Lengths in arguments are nm. Every structure carries its name and source in `info`; what is placed at random comes back
with the list of what was placed. `simulation.simulate` takes the atoms as they are.
"""

from simulation.builders.amorphous import amorphous_film
from simulation.builders.crystals import CRYSTALS, crystal
from simulation.builders.dynamics import Evolving, NucleationAndGrowth, ReactionFront, ReductionFront
from simulation.builders.frameworks import FRAMEWORKS, framework
from simulation.builders.grain_boundaries import Bicrystal, layer_tilt_boundary, tilt_boundary
from simulation.builders.landscape import Landscape, LandscapeConfig, Overview
from simulation.builders.layers import LAYERS, STACKINGS, bilayer, commensurate_twists, monolayer, twisted_bilayer
from simulation.builders.limits import areal_density_per_nm2, mass_density_g_per_cm3
from simulation.builders.nanoparticles import SHAPES, core_shell, nanoparticle, on_film
from simulation.builders.perovskites import PEROVSKITES, perovskite
from simulation.builders.point_defects import (
    Defective,
    DefectSite,
    PointDefect,
    dopant_at_depth,
    with_defects,
    with_fraction_replaced,
    with_random_defects,
)
from simulation.builders.stacking_faults import Planar, close_packed, stacking_fault
from simulation.builders.zone_axes import zone_axis

__all__ = [
    "CRYSTALS",
    "FRAMEWORKS",
    "LAYERS",
    "PEROVSKITES",
    "SHAPES",
    "STACKINGS",
    "Bicrystal",
    "DefectSite",
    "Defective",
    "Evolving",
    "Landscape",
    "LandscapeConfig",
    "NucleationAndGrowth",
    "Overview",
    "Planar",
    "PointDefect",
    "ReactionFront",
    "ReductionFront",
    "amorphous_film",
    "areal_density_per_nm2",
    "bilayer",
    "close_packed",
    "commensurate_twists",
    "core_shell",
    "crystal",
    "dopant_at_depth",
    "framework",
    "layer_tilt_boundary",
    "mass_density_g_per_cm3",
    "monolayer",
    "nanoparticle",
    "on_film",
    "perovskite",
    "stacking_fault",
    "tilt_boundary",
    "twisted_bilayer",
    "with_defects",
    "with_fraction_replaced",
    "with_random_defects",
    "zone_axis",
]
