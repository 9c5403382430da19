"""Exposures at once of the fitted twin: a parallel beam on a disc of the specimen, an image or a diffraction pattern.

Atoms as they stand in the world, moving thermally, by multislice; contamination as carbon atoms of a film on top, whose
places belong to the world. Neighbours: `simulation.parallel_beam` has the physics, `rendering` counts electrons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, hypot, pi
from typing import Any, Final, cast

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from instruments.capabilities import Detector, Mode
from instruments.commands import AcquireFrame
from instruments.errors import CommandRefused
from instruments.optics import Optics
from instruments.scans import ScanPattern
from simulation.backend import backend
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.parallel_beam import ObjectiveLens, Waves, diffraction, exit_wave, from_axis, on_camera
from simulation.scattering_factors import projected_scattering_factor
from simulation.specimens import Specimen
from simulation.structure_columns import ColumnLattice, placed
from simulation.wave_grid import WaveGrid
from simulation.world.crystal import Site
from simulation.world.fittings import Fittings
from simulation.world.randomness import Purpose, generator
from simulation.world.specimen import World
from simulation.world.tilt import UPRIGHT, Tilt, sheet_angstrom

Places = NDArray[np.float64]
"""Positions in angstrom, (n, 3), depth along the beam."""
CAMERA: Final = "camera"
LIT_NM: Final = "illuminated_nm"
CAMERA_LENGTH_MM: Final = 200.0
CAMERA_PIXEL_MM: Final = 0.05
MRAD_PER_PX: Final = CAMERA_PIXEL_MM / CAMERA_LENGTH_MM * 1e3
MAX_DWELL_US: Final = 2e6
_WIDEST_NM: Final = {"tem_image": 16.0, "tem_diffraction": 10.0}
_MOST_PX = 1024
_SAMPLING_NM = 0.02
_MARGIN_NM = 1.0  # of atoms around what is seen, and as far again as defocus carries what they scatter to 30 mrad
_CARRIED_NM_PER_NM = 0.03
_CARBON_PER_NM3 = 90.0  # amorphous carbon, 1.8 g/cm3 (assumption)
_GAP_ANGSTROM = 0.5  # above the first atom of a specimen that leans and below its last
_KEY_ORIGIN = 1_000_000  # keys of random draws are not negative, cells are


def modes_at_once(quantum_efficiency: float) -> tuple[Mode, ...]:
    """An image and a diffraction pattern, by one camera that counts single electrons."""
    camera = Detector(
        name=CAMERA,
        gain_counts_per_electron=quantum_efficiency,
        without_references="single electrons are counted: no dark counts, one gain for all pixels",
    )
    return (
        Mode(name="tem", kind="tem_image", detectors=(camera,)),
        Mode(name="diffraction", kind="tem_diffraction", camera_length_mm=CAMERA_LENGTH_MM, detectors=(camera,)),
    )


def refuse_at_once(command: AcquireFrame, mode: Mode, fittings: Fittings) -> None:
    """Raise CommandRefused for what cannot be exposed at once as the beam stands."""
    scan, lit_nm = command.scan, fittings.lit_nm()
    widest_nm = _WIDEST_NM[mode.kind]
    across_nm = max(scan.field_of_view_nm, scan.height_nm)
    seen_nm = hypot(scan.field_of_view_nm, scan.height_nm) if mode.kind == "tem_image" else scan.field_of_view_nm
    if max(scan.shape_px) > _MOST_PX:
        raise CommandRefused(f"{scan.shape_px} px are more than {_MOST_PX} px a side of the camera; ask for fewer")
    if scan.rotation_deg != 0:
        raise CommandRefused(f"rotation_deg {scan.rotation_deg:g}: the camera does not turn; leave it at 0")
    if mode.kind == "tem_diffraction" and scan.shape_px[0] != scan.shape_px[1]:
        raise CommandRefused(f"shape_px {scan.shape_px}: a pattern is taken with as many rows as columns")
    if across_nm > widest_nm:
        raise CommandRefused(f"field of view {across_nm:g} nm is above {widest_nm:g} nm of mode {mode.name!r}")
    if scan.illuminated_nm is not None and scan.illuminated_nm != lit_nm:
        raise CommandRefused(
            f"illuminated_nm {scan.illuminated_nm:g} nm: the beam is {lit_nm:g} nm wide; set that axis"
        )
    if seen_nm > lit_nm:
        raise CommandRefused(f"{seen_nm:.4g} nm are to be seen, {lit_nm:g} nm are lit; set illuminated_nm wider")


@dataclass(frozen=True, slots=True)
class View:
    """What one sub-frame looks at: middle of the field on the specimen, its way meanwhile, lens, what stands there."""

    x_nm: float
    y_nm: float
    way_nm: tuple[float, float]
    optics: Optics
    focal_spread_nm: float
    contents: Mapping[Site, str]
    keys: tuple[int, ...]  # of the thermal displacements
    tilt: Tilt = UPRIGHT

    def on_sheet(self, width_nm: float, height_nm: float, depth_nm: float = 0.0) -> tuple[float, float]:
        """Sides of the part of the specimen, so thick, that stands in a field of that width and height."""
        corners = [
            self.tilt.on_sheet(width_nm / 2, side * height_nm / 2, level * depth_nm / 2)
            for side in (-1, 1)
            for level in (-1, 1)
        ]
        return 2 * max(abs(u) for u, _ in corners), 2 * max(abs(v) for _, v in corners)


@dataclass
class ParallelBeam:
    """Expected electrons on the camera, as fractions of those on the lit disc."""

    world: World

    def expected(self, mode: Mode, scan: ScanPattern, view: View, fittings: Fittings) -> NDArray[np.float64]:
        """(rows, columns)."""
        lit_nm2 = pi / 4 * fittings.lit_nm() ** 2
        if mode.kind == "tem_diffraction":
            selected_nm2 = pi / 4 * scan.field_of_view_nm**2
            return self._pattern(scan, view, fittings.descan_mrad()) * (selected_nm2 / lit_nm2)
        return self._image(scan, view, fittings.objective_mrad()) * (scan.pixel_size_nm**2 / lit_nm2)

    def _image(self, scan: ScanPattern, view: View, aperture_mrad: float | None) -> NDArray[np.float64]:
        """1 in vacuum; smeared along the way of the specimen."""
        margin_nm = _MARGIN_NM + _CARRIED_NM_PER_NM * abs(view.optics.defocus_nm)
        grid = _grid(scan.field_of_view_nm + 2 * margin_nm, scan.height_nm + 2 * margin_nm, scan.pixel_size_nm)
        lens = ObjectiveLens(view.optics, aperture_mrad, view.focal_spread_nm)
        image = lens.image(self._waves(grid, view, margin_nm=0.0), grid)
        ky, kx = grid.frequencies_per_angstrom()
        smear = np.sinc((kx * view.way_nm[0] + ky * view.way_nm[1]) * 10)
        image = np.fft.ifft2(np.fft.fft2(image) * smear).real
        step_y_nm, step_x_nm = (sampling / 10 for sampling in grid.sampling_angstrom)
        camera_px = (scan.pixel_size_nm / step_y_nm, scan.pixel_size_nm / step_x_nm)
        return on_camera(image, _middle(grid), scan.shape_px, camera_px) / (camera_px[0] * camera_px[1])

    def _pattern(self, scan: ScanPattern, view: View, descan_mrad: tuple[float, float]) -> NDArray[np.float64]:
        """Adds up to what the camera sees of the electrons within a round selected area of the field's width.

        A tilt of the beam takes it off the middle of the camera, descan (x, y) as well.
        """
        width_nm = scan.field_of_view_nm
        grid = _grid(2 * width_nm, 2 * width_nm, _SAMPLING_NM)  # an intensity has twice the band of its wave
        row, column = _middle(grid)
        pixel_nm = grid.sampling_angstrom[0] / 10
        distance = np.hypot(np.arange(grid.shape_px[0])[:, None] - row, np.arange(grid.shape_px[1])[None, :] - column)
        selected = np.clip((width_nm / 2 - distance * pixel_nm) / pixel_nm + 0.5, 0.0, 1.0)
        waves = self._waves(grid, view, margin_nm=max(0.0, width_nm / 2 - _MARGIN_NM))
        pattern = np.fft.fftshift(diffraction(waves, selected))
        step_mrad = wavelength_angstrom(view.optics.beam_energy_ev) / grid.extent_angstrom[0] * 1e3
        aside_x, aside_y = view.optics.tilt_x_mrad + descan_mrad[0], view.optics.tilt_y_mrad + descan_mrad[1]
        axis = (grid.shape_px[0] // 2 - aside_y / step_mrad, grid.shape_px[1] // 2 - aside_x / step_mrad)
        return on_camera(pattern, axis, scan.shape_px, (MRAD_PER_PX / step_mrad, MRAD_PER_PX / step_mrad))

    def _waves(self, grid: WaveGrid, view: View, margin_nm: float) -> Iterator[Waves]:
        """Exit waves of every thermal configuration; nothing stands within `margin_nm` of the border."""
        config = self.world.config
        numbers, positions = self._atoms(grid, view, margin_nm)
        film = np.exp(1j * self._film_phase(grid, view))
        sigma_angstrom = config.rms_displacement_nm * 10
        height_angstrom, back = self._lattice.specimen.cell_angstrom[2], None
        if not view.tilt.is_upright:
            positions, height_angstrom, back = self._leaning(positions, view.optics, grid)
        cell = (grid.extent_angstrom[1], grid.extent_angstrom[0], height_angstrom)
        for index in range(config.phonon_count):
            rng = generator(config.seed, Purpose.PARALLEL_PHONONS, *view.keys, index)
            moved = positions + rng.standard_normal(positions.shape) * sigma_angstrom
            moved[:, 2] = np.clip(moved[:, 2], 0.0, height_angstrom * (1 - 1e-9))
            specimen = Specimen.of(Atoms(numbers, positions=moved, cell=cell))
            tilt_mrad = (view.optics.tilt_x_mrad, view.optics.tilt_y_mrad)
            wave = exit_wave(specimen, grid, config.beam_energy_ev, backend("cpu"), tilt_mrad=tilt_mrad)
            wave = wave if back is None else wave * back
            yield np.fft.fft2(np.fft.ifft2(wave, norm="forward") * film, norm="forward")

    def _leaning(self, positions: Places, optics: Optics, grid: WaveGrid) -> tuple[Places, float, Waves]:
        """Positions from the first atom down, the depth of the cell that holds them, and what takes waves back.

        They leave below the lowest atom, and are taken to the plane where those of an upright specimen leave, so far
        below the sheet in the middle of the field.
        """
        specimen, depths = self._lattice.specimen, positions[:, 2]
        first, last = depths.min(initial=0.0) - _GAP_ANGSTROM, depths.max(initial=0.0) + _GAP_ANGSTROM
        beyond_angstrom = last - (specimen.cell_angstrom[2] - sheet_angstrom(specimen))
        ky, kx = from_axis(optics, grid)
        back = np.exp(1j * pi * wavelength_angstrom(optics.beam_energy_ev) * beyond_angstrom * (ky**2 + kx**2))
        return positions - np.array([0.0, 0.0, first]), float(last - first), back

    @cached_property
    def _lattice(self) -> ColumnLattice:
        return ColumnLattice.of(Specimen.of(cast("Any", self.world.atoms)))

    def _atoms(self, grid: WaveGrid, view: View, margin_nm: float) -> tuple[NDArray[np.int64], Places]:
        """Numbers and positions in angstrom from the lower corner of the grid, defects and losses in.

        Depths are those in the specimen's cell; where it leans, from its sheet in the middle of the field.
        """
        crystal, specimen = self.world.crystal, self._lattice.specimen
        room_nm = [extent / 10 for extent in reversed(grid.extent_angstrom)]
        room, depth_nm = np.array(room_nm) * 10, specimen.cell_angstrom[2] / 10
        width_nm, height_nm = view.on_sheet(room_nm[0], room_nm[1], depth_nm)
        left_nm, low_nm = view.x_nm - width_nm / 2, view.y_nm - height_nm / 2
        first_i, last_i = _cells(left_nm, width_nm, crystal.origin_x_nm, crystal.cell_width_nm)
        first_j, last_j = _cells(low_nm, height_nm, crystal.origin_y_nm, crystal.cell_height_nm)
        numbers: list[NDArray[np.int64]] = []
        positions: list[Places] = []
        for i in range(first_i, last_i + 1):
            for j in range(first_j, last_j + 1):
                corner_nm = np.array([crystal.origin_x_nm + i * crystal.cell_width_nm - left_nm,
                                      crystal.origin_y_nm + j * crystal.cell_height_nm - low_nm, 0.0])  # fmt: skip
                numbers.append(self._cell_numbers(i, j, view.contents))
                positions.append(specimen.positions_angstrom + corner_nm * 10)
        found, places = np.concatenate(numbers), np.concatenate(positions)
        if not view.tilt.is_upright:
            centre = np.array([width_nm * 5, height_nm * 5, 0.0])
            places = view.tilt.turned(places - centre, sheet_angstrom(specimen)) + np.array([*(room / 2), 0.0])
        kept = (found > 0) & np.all((places[:, :2] >= margin_nm * 10) & (places[:, :2] < room - margin_nm * 10), axis=1)
        return found[kept], places[kept]

    def _cell_numbers(self, i: int, j: int, contents: Mapping[Site, str]) -> NDArray[np.int64]:
        numbers = self._lattice.specimen.numbers.copy()
        for column, members in enumerate(self._lattice.members):
            species = contents.get(Site(column, i, j))
            if species is not None:
                left = self.world.config.defects[species].becomes
                numbers[list(members)] = placed(self._lattice.columns[column].symbols, left)
        return numbers

    def _film_phase(self, grid: WaveGrid, view: View) -> NDArray[np.float64]:
        """Phase in rad of the carbon atoms of the contamination, each at the nearest pixel; all at one height."""
        middle_nm = tuple(extent / 20 for extent in grid.extent_angstrom)
        width_nm, height_nm = view.on_sheet(2 * middle_nm[1], 2 * middle_nm[0])
        left_nm, low_nm = view.x_nm - width_nm / 2, view.y_nm - height_nm / 2
        dy_nm, dx_nm = (sampling / 10 for sampling in grid.sampling_angstrom)
        counts = np.zeros(grid.shape_px)
        for row in range(floor(low_nm), ceil(low_nm + height_nm)):
            for column in range(floor(left_nm), ceil(left_nm + width_nm)):
                x_nm, y_nm = self.film_atoms(column, row)
                x_nm, y_nm = x_nm - left_nm, y_nm - low_nm
                if not view.tilt.is_upright:
                    x_nm, y_nm = view.tilt.seen(x_nm - width_nm / 2, y_nm - height_nm / 2)
                    x_nm, y_nm = x_nm + middle_nm[1], y_nm + middle_nm[0]
                c, r = np.rint(x_nm / dx_nm).astype(int), np.rint(y_nm / dy_nm).astype(int)
                inside = (c >= 0) & (c < counts.shape[1]) & (r >= 0) & (r < counts.shape[0])
                np.add.at(counts, (r[inside], c[inside]), 1)
        if not counts.any():
            return counts
        factor = projected_scattering_factor("C", np.sqrt(grid.squared_frequencies())) / (dx_nm * dy_nm * 100)
        potential = np.fft.ifft2(np.fft.fft2(counts) * factor).real
        return interaction_parameter(self.world.config.beam_energy_ev) * potential

    def film_atoms(self, column: int, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(x, y) of the film's atoms on one square nanometre: the same whenever it is looked at."""
        middle = np.array([column + 0.5]), np.array([row + 0.5])
        thickness_nm = float(self.world.landscape.thickness_on_lines(*middle)[0, 0])
        if thickness_nm <= 0:
            return np.empty(0), np.empty(0)
        rng = generator(self.world.config.hidden_seed, Purpose.FILM_ATOMS, column + _KEY_ORIGIN, row + _KEY_ORIGIN)
        x, y = rng.uniform(0, 1, (2, rng.poisson(_CARBON_PER_NM3 * thickness_nm)))
        return column + x, row + y


def _grid(width_nm: float, height_nm: float, pixel_nm: float) -> WaveGrid:
    return WaveGrid.for_cell(width_nm * 10, height_nm * 10, min(_SAMPLING_NM, pixel_nm), None)


def _middle(grid: WaveGrid) -> tuple[float, float]:
    """Row and column at which the middle of the cell lies; pixel (0, 0) stands at its corner."""
    return grid.shape_px[0] / 2, grid.shape_px[1] / 2


def _cells(low_nm: float, length_nm: float, origin_nm: float, cell_nm: float) -> tuple[int, int]:
    """First and last index of the cells that reach into a stretch."""
    return floor((low_nm - origin_nm) / cell_nm) - 1, ceil((low_nm + length_nm - origin_nm) / cell_nm)
