"""The answer, for `workflows.evaluation` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instruments.dose_ledger import DoseLedger
from instruments.footprints import Footprint, disc, rectangle
from simulation.world.cross_sections import hidden_factor
from simulation.world.damage import Birth, LitDisc, Raster
from simulation.world.specimen import World


def native_truth(world: World) -> dict[str, np.ndarray]:
    """Native defects: x_nm, y_nm (specimen frame), species, column (name), column_index, clean."""
    sites = sorted(world.columns.natives)
    xy = np.array([world.crystal.position_nm(site) for site in sites]).reshape(-1, 2)
    return {
        "x_nm": xy[:, 0],
        "y_nm": xy[:, 1],
        "species": np.array([world.columns.natives[site] for site in sites], dtype=str),
        "column": np.array([world.crystal.columns[site.column].name for site in sites], dtype=str),
        "column_index": np.array([site.column for site in sites], dtype=int),
        "clean": world.landscape.clean_at(xy[:, 0], xy[:, 1]),
    }


def birth_truth(world: World, births: Sequence[Birth]) -> dict[str, np.ndarray]:
    """Losses in order: x_nm, y_nm, species (after), time_s, action_id, subframe (first to show it), clean."""
    xy = np.array([world.crystal.position_nm(birth.site) for birth in births]).reshape(-1, 2)
    return {
        "x_nm": xy[:, 0],
        "y_nm": xy[:, 1],
        "species": np.array([birth.species for birth in births], dtype=str),
        "time_s": np.array([birth.time_s for birth in births], dtype=float),
        "action_id": np.array([birth.action_id for birth in births], dtype=str),
        "subframe": np.array([birth.subframe for birth in births], dtype=int),
        "clean": world.landscape.clean_at(xy[:, 0], xy[:, 1]),
    }


def dose_truth(world: World) -> dict[str, Any]:
    """Mean dose on the world's 1 nm cells, e/A2 (rows = y, lowest first), its highest bound, and all electrons."""
    ledger = DoseLedger()
    for where, electrons in world.exposed:
        if isinstance(where, Raster):
            ledger.add(_of_raster(where), electrons)
        elif isinstance(where, LitDisc) and where.tilt.is_upright:
            ledger.add(disc(where.x_nm, where.y_nm, where.diameter_nm), electrons)
        elif isinstance(where, LitDisc):
            strips = where.rasters(electrons)
            for strip in strips:
                ledger.add(_of_raster(strip), electrons * strip.width_nm * strip.height_nm / _area_nm2(strips))
        else:
            ledger.add_point(*where, electrons)
    config = world.config
    x_min_nm, y_min_nm = int(np.floor(-config.width_nm / 2)), int(np.floor(-config.height_nm / 2))
    columns, rows = int(np.ceil(config.width_nm)), int(np.ceil(config.height_nm))
    return {
        "dose_map_e_per_a2": ledger.mean_map(x_min_nm, y_min_nm, columns, rows),
        "dose_map_x_min_nm": x_min_nm,
        "dose_map_y_min_nm": y_min_nm,
        "dose_max_e_per_a2": ledger.max_e_per_a2,
        "electrons": ledger.electrons,
    }


def _of_raster(raster: Raster) -> Footprint:
    return rectangle(raster.x_nm, raster.y_nm, raster.width_nm, raster.height_nm, raster.rotation_deg)


def _area_nm2(rasters: Sequence[Raster]) -> float:
    return sum(raster.width_nm * raster.height_nm for raster in rasters)


def world_truth(world: World) -> dict[str, Any]:
    """What does not change: the landscape, clustering, hidden optics, cross-sections."""
    config = world.config
    return {
        "width_nm": config.width_nm,
        "height_nm": config.height_nm,
        "clean_mask": world.landscape.clean_mask(),
        "clean_fraction": float(np.mean(world.landscape.clean_mask()) if config.clean_fraction else 0.0),
        "density_field": world.density.relative,
        "clustering_sigma": world.density.clustering_sigma,
        "densities_per_nm2": dict(config.densities_per_nm2),
        "residual_aberrations": world.beam.residual.model_dump(),
        "focus_offset_nm": world.beam.focus_offset_nm,
        "eucentric_z_nm": -world.above_axis_nm,
        "emission_decay_fraction": world.beam.decay_fraction,
        "loss_barn": dict(world.barn_by_symbol),
        "excitation_factor": hidden_factor(config),
        "lattice_origin_nm": (world.crystal.origin_x_nm, world.crystal.origin_y_nm),
    }
