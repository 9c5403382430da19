"""A specimen of micrometres addressed by stage position: a low-cost overview, and the atoms of any field."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.argument_kinds import kinds_checked
from simulation.arguments import whole_pair
from simulation.builders.amorphous import (
    CARBON_DENSITY_G_PER_CM3,
    CARBON_DISTANCE_NM,
    ROUNDS,
    atoms_per_nm3,
    candidates_for,
    spaced,
)
from simulation.builders.crystals import crystal
from simulation.builders.landscape.config import LandscapeConfig
from simulation.builders.landscape.objects import Flake, Particle, flakes_of, particles_of
from simulation.builders.landscape.places import Purpose, generator_at, tiles, uniform_at
from simulation.builders.landscape.terrain import Terrain
from simulation.builders.lattice_filling import Lattice, placed, turn_z
from simulation.builders.layers import LAYERS, layer_lattice, layer_thickness_angstrom
from simulation.builders.limits import atomic_number, within
from simulation.errors import InvalidParameter, InvalidSpecimen

_FACE_NM = 0.3
_GAP_NM = 0.3
_BLOCK_NM = 3.0
_STAGE_LIMIT_NM = 1e7
_SMALLEST_SIDE_NM, _LARGEST_SIDE_NM = 1e-3, 1e6
LARGEST_FIELD_NM2 = 10_000.0
"""Atoms are made for fields of at most this area (about 5 million atoms of a 5 nm film); larger ones are refused."""
_MEAN_PARTICLES_BEYOND = 200_000

Atomic = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Overview:
    """Maps (rows, columns), lowest y first, sampled at the middle of each pixel.

    `thickness_nm` by part: film, contamination, flake, particle, bar. `atoms_per_nm2` by element, without the bars.
    """

    x_nm: NDArray[np.float64]
    y_nm: NDArray[np.float64]
    thickness_nm: dict[str, NDArray[np.float64]]
    atoms_per_nm2: dict[str, NDArray[np.float64]]


class Landscape:
    """Micrometres of specimen in the frame of the stage; deterministic in (seed, place), nothing is stored.

    Seen along the beam: particles, then flakes, then film and contamination, whose entrance face lies at one depth
    everywhere. All fields have cells of one depth, `depth_nm`.
    """

    @kinds_checked
    def __init__(self, config: LandscapeConfig) -> None:
        self.config = config
        self.terrain = Terrain(config)
        self._flakes, self._particles = flakes_of(config), particles_of(config)
        self._particle_lattice = Lattice.of(crystal(config.particle_material))
        carbon = atoms_per_nm3(CARBON_DENSITY_G_PER_CM3, {"C": 1.0})
        self._carbon_per_nm3 = carbon
        self._candidates_per_nm3, kept = candidates_for(carbon, CARBON_DISTANCE_NM)
        self._thinning = carbon / (self._candidates_per_nm3 * kept)
        flake_nm = layer_thickness_angstrom(config.flake_material, config.flake_layers_max_count) / 10
        self._support_nm = _FACE_NM + config.particle_diameter_max_nm + _GAP_NM + flake_nm + _GAP_NM
        self.depth_nm = self._support_nm + config.film_thickness_nm + config.contamination_limit_nm + _FACE_NM

    @kinds_checked
    def flakes(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> list[Flake]:
        """Flakes that may reach into the field with its corner of lowest x and y at (x, y)."""
        _check_field(x_nm, y_nm, width_nm, height_nm)
        return self._flakes.meeting(x_nm, y_nm, width_nm, height_nm)

    @kinds_checked
    def particles(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> list[Particle]:
        """Particles that reach into the field and rest on film or flake."""
        _check_field(x_nm, y_nm, width_nm, height_nm)
        found = self._particles.meeting(x_nm, y_nm, width_nm, height_nm)
        if not found:
            return []
        x, y = np.array([each.x_nm for each in found]), np.array([each.y_nm for each in found])
        held = ~self.terrain.is_bar(x, y) & (self.terrain.has_film(x, y) | (self._layers_at(x, y) > 0))
        return [particle for particle, is_held in zip(found, held, strict=True) if is_held]

    @kinds_checked
    def overview(
        self, x_nm: float, y_nm: float, width_nm: float, height_nm: float, shape_px: tuple[int, int]
    ) -> Overview:
        """Maps of what lies there, without making an atom: thickness by part, atoms per area by element.

        Where more than 200,000 particles would have to be drawn, their mean stands for them.
        """
        _check_field(x_nm, y_nm, width_nm, height_nm)
        rows, columns = whole_pair("shape_px", shape_px)
        x = x_nm + (np.arange(columns) + 0.5) * width_nm / columns
        y = y_nm + (np.arange(rows) + 0.5) * height_nm / rows
        grid_x, grid_y = np.meshgrid(x, y)
        bar, film = self.terrain.is_bar(grid_x, grid_y), self.terrain.has_film(grid_x, grid_y)
        layers = np.where(bar, 0, self._layers_at(grid_x, grid_y))
        held = ~bar & (film | (layers > 0))
        carbon_nm = np.where(~bar & film, self.config.film_thickness_nm, 0.0)
        dirt_nm = np.where(held, self.terrain.contamination_nm(grid_x, grid_y), 0.0)
        particle_nm = self._particle_thickness(x, y, held, (x_nm, y_nm, width_nm, height_nm))
        thickness = {
            "film": carbon_nm,
            "contamination": dirt_nm,
            "flake": layers * LAYERS[self.config.flake_material].layer_distance_angstrom / 10,
            "particle": particle_nm,
            "bar": np.where(bar, self.config.bar_thickness_nm, 0.0),
        }
        return Overview(x, y, thickness, self._atoms_per_nm2(carbon_nm + dirt_nm, layers, particle_nm))

    @kinds_checked
    def atoms(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> Any:
        """The atoms of a field as `ase.Atoms`, positions from its corner of lowest x and y.

        Fields that overlap hold the same atoms where they do. The cell repeats for the simulation only: within a
        probe's width of the border an image is not that of the landscape. A hole gives a cell without atoms, which
        is imaged like any other. Raises `InvalidSpecimen` on a bar, and for fields above `LARGEST_FIELD_NM2`.
        """
        _check_field(x_nm, y_nm, width_nm, height_nm)
        area_nm2 = width_nm * height_nm
        if area_nm2 > LARGEST_FIELD_NM2:
            raise InvalidParameter(
                f"a field of {area_nm2:.0f} nm2 is above {LARGEST_FIELD_NM2:.0f} nm2; make it smaller, or use overview"
            )
        samples = np.linspace(x_nm, x_nm + width_nm, 33), np.linspace(y_nm, y_nm + height_nm, 33)
        if self.terrain.is_bar(*np.meshgrid(*samples)).any():
            raise InvalidSpecimen(
                f"the field at ({x_nm:.0f}, {y_nm:.0f}) nm meets an opaque grid bar; move to an open square"
            )
        field = (x_nm, y_nm, width_nm, height_nm)
        parts = [self._carbon(*field)]
        parts += [self._flake_atoms(flake, *field) for flake in self.flakes(*field)]
        parts += [self._particle_atoms(particle, *field) for particle in self.particles(*field)]
        numbers = np.concatenate([part[0] for part in parts])
        positions = np.concatenate([part[1] for part in parts])
        local = positions - (10 * x_nm, 10 * y_nm, 0.0)
        lengths = (10 * width_nm, 10 * height_nm, 10 * self.depth_nm)
        return placed(numbers, local, lengths, name="landscape", seed=self.config.seed, corner_nm=(x_nm, y_nm))

    def _layers_at(self, x_nm: NDArray[np.float64], y_nm: NDArray[np.float64]) -> NDArray[np.int64]:
        layers = np.zeros(np.shape(x_nm), dtype=np.int64)
        low_x, low_y = float(np.min(x_nm)), float(np.min(y_nm))
        width, height = float(np.max(x_nm)) - low_x, float(np.max(y_nm)) - low_y  # 0 for a single point
        for flake in self._flakes.meeting(low_x, low_y, width, height):
            near = (np.abs(x_nm - flake.x_nm) < flake.radius_nm) & (np.abs(y_nm - flake.y_nm) < flake.radius_nm)
            inside = flake.outside_nm(x_nm[near], y_nm[near]) <= 0
            layers[near] = np.where(inside, flake.layer_count, layers[near])
        return layers

    def _particle_thickness(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        held: NDArray[np.bool_],
        field: tuple[float, float, float, float],
    ) -> NDArray[np.float64]:
        """Chords through the spheres, drawn on the few pixels of each; or their mean, if there are too many."""
        config = self.config
        if self._particles.per_nm2 * field[2] * field[3] > _MEAN_PARTICLES_BEYOND:
            low, high = config.particle_diameter_min_nm, config.particle_diameter_max_nm
            mean_cube = (low + high) * (low**2 + high**2) / 4
            mean_nm = float(self._particles.per_nm2 * np.pi / 6 * mean_cube)
            return np.where(held, mean_nm, 0.0)
        found = np.zeros(held.shape)
        for particle in self.particles(*field):
            radius = particle.radius_nm
            rows = slice(*np.searchsorted(y, (particle.y_nm - radius, particle.y_nm + radius)))
            columns = slice(*np.searchsorted(x, (particle.x_nm - radius, particle.x_nm + radius)))
            away2 = (y[rows, None] - particle.y_nm) ** 2 + (x[None, columns] - particle.x_nm) ** 2
            found[rows, columns] += 2 * np.sqrt(np.maximum(radius**2 - away2, 0.0))
        return found

    def _atoms_per_nm2(
        self, carbon_nm: NDArray[np.float64], layers: NDArray[np.int64], particle_nm: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        from ase.data import chemical_symbols

        data = LAYERS[self.config.flake_material]
        nothing: NDArray[np.float64] = np.zeros(carbon_nm.shape)
        found: dict[str, NDArray[np.float64]] = {"C": carbon_nm * self._carbon_per_nm3}
        per_site = 200.0 / (sqrt(3) * data.a_angstrom**2)
        for symbol in sorted({site[0] for site in data.sites}):
            sites = [site[0] for site in data.sites].count(symbol)
            there = 1.0 - self.config.flake_vacancy_fraction * (symbol == data.sites[-1][0])
            found[symbol] = found.get(symbol, nothing) + layers.astype(np.float64) * (per_site * sites * there)
        lattice = self._particle_lattice
        cell_nm3 = float(abs(np.linalg.det(lattice.cell_angstrom))) / 1000
        for number in np.unique(lattice.numbers):
            symbol, count = chemical_symbols[number], int((lattice.numbers == number).sum())
            found[symbol] = found.get(symbol, nothing) + particle_nm * (count / cell_nm3)
        return found

    def _carbon(self, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> Atomic:
        """Film and contamination: amorphous carbon from the support plane downstream."""
        margin = 2 * ROUNDS * CARBON_DISTANCE_NM
        low = np.array([x_nm - margin, y_nm - margin, 0.0])
        deepest = self.config.film_thickness_nm + self.config.contamination_limit_nm
        high = np.array([x_nm + width_nm + margin, y_nm + height_nm + margin, deepest])
        drawn = [self._carbon_candidates(*tile) for tile in tiles(low, high, _BLOCK_NM)]
        candidates = np.concatenate(drawn)
        within = np.all((candidates[:, :2] >= low[:2]) & (candidates[:, :2] <= high[:2]), axis=1)
        candidates = candidates[within]
        candidates = candidates[self._is_carbon(*candidates[:, :3].T)]
        if len(candidates) == 0:
            return np.empty(0, dtype=np.int64), np.empty((0, 3))
        kept = candidates[spaced(candidates[:, :3], candidates[:, 3], CARBON_DISTANCE_NM)]
        x, y = kept[:, 0], kept[:, 1]
        inside = (x >= x_nm) & (x < x_nm + width_nm) & (y >= y_nm) & (y < y_nm + height_nm)
        kept = kept[inside & (kept[:, 4] < self._thinning)]
        positions = 10.0 * (kept[:, :3] + np.array([0.0, 0.0, self._support_nm]))
        return np.full(len(kept), atomic_number("C"), dtype=np.int64), positions

    def _carbon_candidates(self, column: int, row: int, level: int) -> NDArray[np.float64]:
        """(n, 5) candidates of one block: x, y, depth below the support plane in nm, mark, chance."""
        rng = generator_at(self.config.seed, Purpose.CARBON, column, row, level)
        count = rng.poisson(self._candidates_per_nm3 * _BLOCK_NM**3)
        drawn = rng.random((count, 5))
        drawn[:, :3] = (drawn[:, :3] + (column, row, level)) * _BLOCK_NM
        return drawn

    def _is_carbon(
        self, x_nm: NDArray[np.float64], y_nm: NDArray[np.float64], depth_nm: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether points below the support plane lie in film or contamination."""
        film = self.terrain.has_film(x_nm, y_nm)
        held = film | (self._layers_at(x_nm, y_nm) > 0)
        below_film_nm = depth_nm - np.where(film, self.config.film_thickness_nm, 0.0)
        found = held & (below_film_nm < 0)
        open_case = held & ~found
        found[open_case] = below_film_nm[open_case] < self.terrain.contamination_nm(x_nm[open_case], y_nm[open_case])
        return found

    def _flake_atoms(self, flake: Flake, x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> Atomic:
        material = self.config.flake_material
        lattice = layer_lattice(material, flake.layer_count)
        thickness = layer_thickness_angstrom(material, flake.layer_count)
        origin = np.array([10 * flake.x_nm, 10 * flake.y_nm, 10 * (self._support_nm - _GAP_NM) - thickness - 1.0])
        low = np.array([10 * x_nm, 10 * y_nm, origin[2]])
        high = np.array([10 * (x_nm + width_nm), 10 * (y_nm + height_nm), origin[2] + thickness + 2.0])
        numbers, positions = lattice.turned(turn_z(flake.azimuth_rad)).inside(low, high, origin)
        last = atomic_number(LAYERS[material].sites[-1][0])
        missing = (numbers == last) & (uniform_at(self.config.seed, positions) < self.config.flake_vacancy_fraction)
        kept = ~missing & (flake.outside_nm(positions[:, 0] / 10, positions[:, 1] / 10) <= 0)
        return numbers[kept], positions[kept]

    def _particle_atoms(
        self, particle: Particle, x_nm: float, y_nm: float, width_nm: float, height_nm: float
    ) -> Atomic:
        centre = 10 * np.array([particle.x_nm, particle.y_nm, self._particle_floor_nm(particle) - particle.radius_nm])
        radius = 10 * particle.radius_nm
        low = np.maximum(centre - radius, (10 * x_nm, 10 * y_nm, -np.inf))
        high = np.minimum(centre + radius, (10 * (x_nm + width_nm), 10 * (y_nm + height_nm), np.inf))
        if np.any(low >= high):
            return np.empty(0, dtype=np.int64), np.empty((0, 3))
        numbers, positions = self._particle_lattice.turned(particle.rotation).inside(low, high, centre)
        kept = ((positions - centre) ** 2).sum(axis=1) < radius**2
        return numbers[kept], positions[kept]

    def _particle_floor_nm(self, particle: Particle) -> float:
        """Depth of what the particle rests on: the highest flake within its reach, or the film."""
        side = 2 * particle.radius_nm
        below = self.flakes(particle.x_nm - particle.radius_nm, particle.y_nm - particle.radius_nm, side, side)
        x, y = np.array([particle.x_nm]), np.array([particle.y_nm])
        layers = [flake.layer_count for flake in below if flake.outside_nm(x, y)[0] < particle.radius_nm]
        if not layers:
            return self._support_nm - _GAP_NM
        thickness_nm = layer_thickness_angstrom(self.config.flake_material, max(layers)) / 10
        return self._support_nm - _GAP_NM - thickness_nm - _GAP_NM


def _check_field(x_nm: float, y_nm: float, width_nm: float, height_nm: float) -> None:
    """Refuse fields off the stage, and sides that no survey has."""
    for name, at_nm in (("x_nm", x_nm), ("y_nm", y_nm)):
        within(f"the stage position {name}", at_nm, -_STAGE_LIMIT_NM, _STAGE_LIMIT_NM, "nm")
    for name, side_nm in (("width_nm", width_nm), ("height_nm", height_nm)):
        within(name, side_nm, _SMALLEST_SIDE_NM, _LARGEST_SIDE_NM, "nm")
