"""Sums of the probe's intensity over scattering atoms, at many places of the probe.

E(r) = sum over atoms of w P(r_atom - r) is a convolution, and P holds no spatial frequency above twice the aperture's
radius. Where many places lie near one another, atoms are therefore spread onto a grid, convolved by Fourier transforms
and read off between its pixels; with the smooth kernel that does both (exp(beta (sqrt(1 - x^2) - 1)), Barnett and
others 2019) known in both spaces, that is exact to 1e-6. Few places are summed atom by atom. Everything is
computed in one order, so that results have the same bits in every process. Neighbour: `incoherent`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial import KDTree

from simulation.progress import batches, steps
from simulation.wave_grid import fft_friendly

_WIDTH_PX = 7
_BETA = 2.30 * _WIDTH_PX
"""Of the spreading kernel."""
_PIXELS_PER_PERIOD = 4.0
"""Of the finest frequency, on grids; tables between whose pixels splines interpolate have four times as many."""
_LARGEST_SIDE_PX = 1024
_TABLE_FINER, _LARGEST_TABLE_PX = 4, 4096
_PLACES_PER_BLOCK = 8192
_GRID_COST, _SPREAD_COST, _PAIR_COST = 30.0, 1500.0, 400.0
"""Predicted nanoseconds: of a pixel of a grid, of a place or an atom on it, of an atom within reach of a place."""

Places = NDArray[np.float64]
"""(n, 2) of (x, y) in angstrom."""


@dataclass(frozen=True, slots=True)
class ProbeIntensity:
    """The intensity of a probe in a square box that repeats, per square angstrom, as a Fourier series.

    `harmonics` (y, x): those up to the highest frequency, zero in the middle. Beyond `reach_angstrom` it counts as 0.
    """

    harmonics: NDArray[np.complex128]
    side_angstrom: float
    reach_angstrom: float

    @classmethod
    def of(cls, power: NDArray[np.float64], side_angstrom: float, reach_angstrom: float, orders: int) -> ProbeIntensity:
        """From its values on the box's pixels, the middle at index 0; of so many orders on each side of zero."""
        count = len(power)
        spectrum = np.fft.fftshift(np.asarray(scipy.fft.fft2(power), dtype=np.complex128)) / count**2
        orders = min(orders, (count - 1) // 2)
        kept = slice(count // 2 - orders, count // 2 + orders + 1)
        return cls(spectrum[kept, kept], side_angstrom, reach_angstrom)

    @property
    def pixel_count(self) -> int:
        """Of a grid on the box that is fine enough to be spread on and read from."""
        return fft_friendly(int(np.ceil(_PIXELS_PER_PERIOD * (len(self.harmonics) // 2))))

    def blurred(self, sigma_angstrom: float) -> ProbeIntensity:
        """By a Gaussian source."""
        q = self._frequencies()
        factor = np.exp(-2 * (np.pi * sigma_angstrom * q) ** 2)
        return ProbeIntensity(self.harmonics * factor[:, None] * factor, self.side_angstrom, self.reach_angstrom)

    def on_pixels(self, count: int) -> NDArray[np.float64]:
        """Values on so many pixels a side, the middle at index 0."""
        orders = len(self.harmonics) // 2
        places = np.arange(-orders, orders + 1) % count
        spectrum = np.zeros((count, count), dtype=np.complex128)
        spectrum[np.ix_(places, places)] = self.harmonics
        values = np.asarray(scipy.fft.ifft2(spectrum, overwrite_x=True), dtype=np.complex128)
        return values.real * count**2

    def _frequencies(self) -> NDArray[np.float64]:
        orders = len(self.harmonics) // 2
        return np.arange(-orders, orders + 1) / self.side_angstrom


@dataclass(frozen=True, slots=True)
class Layer:
    """Like atoms at about one depth, what one of them weighs in each channel, and the probe's intensity there."""

    atoms: Places
    weights: NDArray[np.float64]
    probe: ProbeIntensity


def probe_sums(layers: list[Layer], cell_angstrom: NDArray[np.float64], places: Places) -> NDArray[np.float64]:
    """(places, channels): over atoms and their periodic copies, weight times the probe's intensity at them.

    All layers' probes are in boxes of one size.
    """
    wrapped = np.mod(places, cell_angstrom)
    found = np.zeros((len(places), len(layers[0].weights)))
    probe = layers[0].probe
    reach, pixel = probe.reach_angstrom, probe.side_angstrom / probe.pixel_count
    copied = [
        replace(layer, atoms=_repeated(np.mod(layer.atoms, cell_angstrom), cell_angstrom, reach)) for layer in layers
    ]
    sparse: list[NDArray[np.int64]] = []
    for own in steps(_tiles(wrapped, max(_LARGEST_SIDE_PX * pixel - 2 * reach, reach)), "tiles"):
        here = wrapped[own]
        near = [replace(layer, atoms=_around(layer.atoms, here, reach)) for layer in copied]
        grid = _Grid.around(here, reach, pixel)
        if _is_grid_cheaper(near, here, grid):
            found[own] = _by_grid(near, here, grid)
        else:
            sparse.append(own)
    if sparse:
        rest = np.concatenate(sparse)
        found[rest] = _one_by_one(copied, wrapped[rest])
    return np.maximum(found, 0.0)


def _tiles(places: Places, side_angstrom: float) -> list[NDArray[np.int64]]:
    """Numbers of the places in each square."""
    tiles = np.floor(places / side_angstrom).astype(np.int64)
    order = np.lexsort((tiles[:, 0], tiles[:, 1]))
    ends = np.flatnonzero(np.any(np.diff(tiles[order], axis=0), axis=1)) + 1
    return np.split(order, ends)


def _around(atoms: Places, places: Places, reach: float) -> Places:
    """Of atoms in ascending y, those within reach of the places' bounding box."""
    low, high = places.min(axis=0) - reach, places.max(axis=0) + reach
    start, stop = np.searchsorted(atoms[:, 1], (low[1], high[1]))
    rows = atoms[start:stop]
    return rows[(rows[:, 0] >= low[0]) & (rows[:, 0] <= high[0])]


@dataclass(frozen=True, slots=True)
class _Grid:
    """Pixels around some places, with room for what is within reach of them on every side."""

    corner: NDArray[np.float64]
    shape_px: tuple[int, int]
    pixel_angstrom: float

    @classmethod
    def around(cls, places: Places, reach: float, pixel_angstrom: float) -> _Grid:
        """FFT-friendly."""
        margin = reach + (_WIDTH_PX + 2) * pixel_angstrom
        low, high = places.min(axis=0) - margin, places.max(axis=0) + margin
        columns, rows = (fft_friendly(int(np.ceil(side / pixel_angstrom))) for side in high - low)
        return cls(low, (rows, columns), pixel_angstrom)

    def weights(self, places: Places) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Flat pixels around each place and the kernel there, (n, pixels of the kernel)."""
        at = (places - self.corner) / self.pixel_angstrom
        first = np.ceil(at - _WIDTH_PX / 2).astype(np.int64)
        pixels = first[:, None, :] + np.arange(_WIDTH_PX)[:, None]
        kernel = _kernel(pixels - at[:, None, :])
        flat = pixels[:, :, None, 1] * self.shape_px[1] + pixels[:, None, :, 0]
        both = kernel[:, :, None, 1] * kernel[:, None, :, 0]
        return flat.reshape(len(places), -1), both.reshape(len(places), -1)


def _kernel(distance_px: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.exp(_BETA * (np.sqrt(np.maximum(1 - (2 * distance_px / _WIDTH_PX) ** 2, 0.0)) - 1))


def _kernel_factor(cycles_per_px: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The kernel's Fourier transform."""
    nodes, weights = np.polynomial.legendre.leggauss(8 * _WIDTH_PX)
    distance = nodes * _WIDTH_PX / 2
    waves = np.cos(2 * np.pi * cycles_per_px[..., None] * distance)
    return np.sum(waves * (weights * _WIDTH_PX / 2 * _kernel(distance)), axis=-1)


def _is_grid_cheaper(layers: list[Layer], places: Places, grid: _Grid) -> bool:
    """By counting alone: no clock decides."""
    atoms, pixels = sum(len(layer.atoms) for layer in layers), grid.shape_px[0] * grid.shape_px[1]
    reach = layers[0].probe.reach_angstrom
    in_reach = atoms * min(1.0, np.pi * reach**2 / (pixels * grid.pixel_angstrom**2))
    by_grid = _GRID_COST * pixels * (2 * len(layers) + len(layers[0].weights)) + _SPREAD_COST * (atoms + len(places))
    return by_grid < _PAIR_COST * in_reach * len(places)


def _by_grid(layers: list[Layer], places: Places, grid: _Grid) -> NDArray[np.float64]:
    """(places, channels)."""
    rows, columns = grid.shape_px
    frequencies = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    spectra = np.zeros((len(layers[0].weights), rows, columns // 2 + 1), dtype=np.complex128)
    for layer in layers:
        if len(layer.atoms):
            spectrum = scipy.fft.rfft2(_spread(layer.atoms, grid)) * scipy.fft.rfft2(_around_origin(layer.probe, grid))
            for own, weight in zip(spectra, layer.weights, strict=True):
                own += weight * spectrum
    for own in frequencies:
        within = np.abs(own) < 1.2 / _PIXELS_PER_PERIOD
        factor = _kernel_factor(own)
        spectra *= np.where(within, 1 / np.where(within, factor, 1.0) ** 2, 0.0)
    fields = [scipy.fft.irfft2(own, s=grid.shape_px).ravel() for own in spectra]
    found = np.empty((len(places), len(fields)))
    for start in batches(len(places), _PLACES_PER_BLOCK, "probes"):
        block = slice(start, start + _PLACES_PER_BLOCK)
        pixels, kernel = grid.weights(places[block])
        for channel, field in enumerate(fields):
            found[block, channel] = np.einsum("np,np->n", field[pixels], kernel)
    return found


def _spread(atoms: Places, grid: _Grid) -> NDArray[np.float64]:
    count = grid.shape_px[0] * grid.shape_px[1]
    total = np.zeros(count)
    for start in range(0, len(atoms), _PLACES_PER_BLOCK):
        pixels, kernel = grid.weights(atoms[start : start + _PLACES_PER_BLOCK])
        total += np.bincount(pixels.ravel(), kernel.ravel(), count)
    return total.reshape(grid.shape_px)


def _around_origin(probe: ProbeIntensity, grid: _Grid) -> NDArray[np.float64]:
    """What an atom at the origin gives to probes around it: the probe turned by 180 degrees."""
    count = probe.pixel_count
    offsets = np.rint(np.fft.fftfreq(count) * count).astype(np.int64)
    near = np.flatnonzero(np.abs(offsets) * grid.pixel_angstrom <= probe.reach_angstrom)
    rows, columns = offsets[near, None], offsets[near]
    beyond = np.hypot(rows, columns) * grid.pixel_angstrom > probe.reach_angstrom
    embedded = np.zeros(grid.shape_px)
    embedded[-rows, -columns] = np.where(beyond, 0.0, probe.on_pixels(count)[np.ix_(near, near)])
    return embedded


def _one_by_one(layers: list[Layer], places: Places) -> NDArray[np.float64]:
    """(places, channels)."""
    found = np.zeros((len(places), len(layers[0].weights)))
    for layer in (each for each in layers if len(each.atoms)):
        probe, tree = layer.probe, KDTree(layer.atoms)
        count = min(_TABLE_FINER * probe.pixel_count, max(_LARGEST_TABLE_PX, probe.pixel_count))
        table = spline_filter(np.fft.fftshift(probe.on_pixels(count)), order=3, mode="grid-wrap")
        for start in batches(len(places), _PLACES_PER_BLOCK // 4, "probes"):
            here = places[start : start + _PLACES_PER_BLOCK // 4]
            near = tree.query_ball_point(here, probe.reach_angstrom)
            owner = np.repeat(np.arange(len(here)), [len(each) for each in near])
            away = layer.atoms[np.concatenate(near).astype(int)] - here[owner]
            at = away[:, ::-1].T * (count / probe.side_angstrom) + count // 2
            values = map_coordinates(table, at, order=3, mode="grid-wrap", prefilter=False)
            found[start : start + len(here)] += np.bincount(owner, values, len(here))[:, None] * layer.weights
    return found


def _repeated(places: Places, cell: NDArray[np.float64], reach: float) -> Places:
    """Places in the cell, and their periodic images within `reach` of it; in ascending y."""
    for axis in (0, 1):
        turns = np.arange(-int(np.ceil(reach / cell[axis])), int(np.ceil(reach / cell[axis])) + 1)
        shift = np.zeros((len(turns), 2))
        shift[:, axis] = turns * cell[axis]
        places = (places[None, :, :] + shift[:, None, :]).reshape(-1, 2)
        places = places[(places[:, axis] >= -reach) & (places[:, axis] < cell[axis] + reach)]
    return places[np.argsort(places[:, 1], kind="stable")]
