"""Flakes and particles: drawn tile by tile, none overlapping another of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulation.builders.landscape.config import LandscapeConfig
from simulation.builders.landscape.places import Purpose, generator_at, tiles
from simulation.builders.nanoparticles import random_orientation

_GAP_NM = 0.5


@dataclass(frozen=True, slots=True)
class Flake:
    """A convex polygon of a layered crystal: middle, sides (normal and distance), azimuth of its lattice, layers."""

    x_nm: float
    y_nm: float
    radius_nm: float
    azimuth_rad: float
    layer_count: int
    normals: NDArray[np.float64]
    distances_nm: NDArray[np.float64]
    mark_fraction: float

    def outside_nm(self, x_nm: NDArray[np.float64], y_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far points lie outside the nearest side; negative inside."""
        away = np.stack([x_nm - self.x_nm, y_nm - self.y_nm], axis=-1)
        return (away @ self.normals.T - self.distances_nm).max(axis=-1)


@dataclass(frozen=True, slots=True)
class Particle:
    """A sphere of crystal, turned at random."""

    x_nm: float
    y_nm: float
    radius_nm: float
    rotation: NDArray[np.float64]
    mark_fraction: float


Thing = TypeVar("Thing", Flake, Particle)


@dataclass(frozen=True, slots=True)
class Population(Generic[Thing]):
    """All flakes, or all particles, of a landscape.

    Of two that overlap the one with the higher mark is not there (hard-core thinning: Matern, Spatial Variation, 1960,
    second kind), so that a thing depends on its near surroundings only.
    """

    config: LandscapeConfig
    purpose: Purpose
    per_nm2: float
    largest_radius_nm: float

    def meeting(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> list[Thing]:
        """Those whose circle meets the field, by place."""
        reach = 3 * self.largest_radius_nm + _GAP_NM
        low, high = np.array([x_nm, y_nm]) - reach, np.array([x_nm + width_nm, y_nm + height_nm]) + reach
        drawn = [thing for tile in tiles(low, high, self._side_nm) for thing in self._drawn(*tile)]
        centres = np.array([(thing.x_nm, thing.y_nm) for thing in drawn]).reshape(-1, 2)
        near = np.all((centres >= low) & (centres <= high), axis=1)
        candidates = [thing for thing, is_near in zip(drawn, near, strict=True) if is_near]
        return [
            thing
            for thing, is_kept in zip(candidates, _hard_core(candidates, self.largest_radius_nm), strict=True)
            if is_kept and _meets(thing, x_nm, y_nm, width_nm, height_nm)
        ]

    @property
    def _side_nm(self) -> float:
        """Tiles of a few candidates, so that a small field draws little more than it needs."""
        return max(2 * self.largest_radius_nm, (4 / max(self.per_nm2, 1e-12)) ** 0.5 if self.per_nm2 > 0 else 1e4)

    def _drawn(self, column: int, row: int) -> list[Thing]:
        rng = generator_at(self.config.seed, self.purpose, column, row)
        side = self._side_nm
        draw = _flake if self.purpose is Purpose.FLAKES else _particle
        things = []
        for _ in range(rng.poisson(self.per_nm2 * side * side)):
            x_nm, y_nm = (np.array([column, row]) + rng.random(2)) * side
            things.append(draw(self.config, float(x_nm), float(y_nm), rng))
        return things


def flakes_of(config: LandscapeConfig) -> Population[Flake]:
    """The flakes of a landscape."""
    return Population(config, Purpose.FLAKES, config.flakes_per_um2 * 1e-6, config.flake_radius_max_nm)


def particles_of(config: LandscapeConfig) -> Population[Particle]:
    """The particles of a landscape, those over nothing included."""
    largest_nm = config.particle_diameter_max_nm / 2
    return Population(config, Purpose.PARTICLES, config.particles_per_um2 * 1e-6, largest_nm)


def _flake(config: LandscapeConfig, x_nm: float, y_nm: float, rng: np.random.Generator) -> Flake:
    """Three or six sides along lattice directions, as grown or cleaved flakes have; uneven by up to a half."""
    radius = rng.uniform(config.flake_radius_min_nm, config.flake_radius_max_nm)
    azimuth = rng.uniform(0, 2 * np.pi)
    sides = int(rng.choice([3, 6]))
    angles = azimuth + np.pi / 2 + 2 * np.pi * np.arange(sides) / sides
    normals = np.column_stack([np.cos(angles), np.sin(angles)])
    inscribed = 0.5 if sides == 3 else np.sqrt(3) / 2
    distances = radius * inscribed * rng.uniform(0.5, 1.0, sides)
    layers = int(rng.integers(1, config.flake_layers_max_count + 1))
    return Flake(x_nm, y_nm, radius, azimuth, layers, normals, distances, rng.random())


def _particle(config: LandscapeConfig, x_nm: float, y_nm: float, rng: np.random.Generator) -> Particle:
    radius = rng.uniform(config.particle_diameter_min_nm, config.particle_diameter_max_nm) / 2
    return Particle(x_nm, y_nm, radius, random_orientation(rng), rng.random())


def _hard_core(things: list[Thing], largest_radius_nm: float) -> NDArray[np.bool_]:
    from scipy.spatial import cKDTree

    kept = np.ones(len(things), dtype=bool)
    if len(things) < 2:
        return kept
    centres = np.array([(thing.x_nm, thing.y_nm) for thing in things])
    radii = np.array([thing.radius_nm for thing in things])
    marks = np.array([thing.mark_fraction for thing in things])
    pairs = cKDTree(centres).query_pairs(2 * largest_radius_nm + _GAP_NM, output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    apart = np.linalg.norm(centres[first] - centres[second], axis=1)
    overlap = apart < radii[first] + radii[second] + _GAP_NM
    kept[np.where(marks[first] > marks[second], first, second)[overlap]] = False
    return kept


def _meets(thing: Flake | Particle, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> bool:
    dx = max(x_nm - thing.x_nm, 0.0, thing.x_nm - (x_nm + width_nm))
    dy = max(y_nm - thing.y_nm, 0.0, thing.y_nm - (y_nm + height_nm))
    return dx * dx + dy * dy <= thing.radius_nm**2
