"""Native defects: a clustered density and the lattice sites drawn from it; independent of the contamination above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from simulation.world.config import SimulatedConfig
from simulation.world.crystal import Crystal, Site
from simulation.world.randomness import Purpose, generator

STEP_NM = 2.0
CLUSTERINGS = (0.0, 0.7, 1.2)


@dataclass(frozen=True)
class DefectField:
    """Relative density of native defects, mean 1: exp(sigma g - sigma^2 / 2), shared by all species.

    g is a Gaussian field of unit variance and covariance exp(-r^2 / (2 length^2)); sigma is hidden, from {0, 0.7, 1.2}.
    """

    clustering_sigma: float
    relative: np.ndarray  # (rows, columns), cell centres, 2 nm
    x_min_nm: float
    y_min_nm: float

    @classmethod
    def draw(cls, config: SimulatedConfig) -> DefectField:
        """The field of this configuration's hidden seed."""
        sigma = config.clustering_sigma
        if sigma is None:
            sigma = float(generator(config.hidden_seed, Purpose.CLUSTERING).choice(CLUSTERINGS))
        rows, columns = (int(np.ceil(side / STEP_NM)) for side in (config.height_nm, config.width_nm))
        smoothing_px = config.clustering_length_nm / np.sqrt(2) / STEP_NM
        pad = int(np.ceil(4 * smoothing_px)) + 1
        noise = generator(config.hidden_seed, Purpose.DENSITY).standard_normal((rows + 2 * pad, columns + 2 * pad))
        impulse = np.zeros(2 * pad + 1)
        impulse[pad] = 1.0
        std = float((gaussian_filter(impulse, smoothing_px) ** 2).sum())
        g = gaussian_filter(noise, smoothing_px)[pad:-pad, pad:-pad] / std
        return cls(sigma, np.exp(sigma * g - sigma**2 / 2), -config.width_nm / 2, -config.height_nm / 2)

    def at(self, x_nm: np.ndarray, y_nm: np.ndarray) -> np.ndarray:
        """Relative density at points, bilinear."""
        coordinates = [(y_nm - self.y_min_nm) / STEP_NM - 0.5, (x_nm - self.x_min_nm) / STEP_NM - 0.5]
        return map_coordinates(self.relative, coordinates, order=1, mode="nearest")


def draw_natives(config: SimulatedConfig, crystal: Crystal, density: DefectField) -> dict[Site, str]:
    """Native defects: site -> species. Poisson in number, each on a lattice site of its column, one per site.

    Points are drawn evenly at the highest density, kept with relative / highest, and moved to the nearest site of their
    column (all sites of a column have Voronoi cells of one area, so this is the per-site density).
    """
    natives: dict[Site, str] = {}
    area_nm2 = config.width_nm * config.height_nm
    highest = float(density.relative.max())
    for number, (species, per_nm2) in enumerate(sorted(config.densities_per_nm2.items())):
        rng = generator(config.hidden_seed, Purpose.NATIVES, number)
        count = rng.poisson(per_nm2 * area_nm2 * highest)
        x = rng.uniform(-0.5, 0.5, count) * config.width_nm
        y = rng.uniform(-0.5, 0.5, count) * config.height_nm
        kept = rng.random(count) * highest < density.at(x, y)
        if kept.any():
            for site in crystal.nearest(config.defects[species].column, x[kept], y[kept]):
                natives.setdefault(site, species)
    return natives
