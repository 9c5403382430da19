"""The blur of an image by the finite size of the electron source: which probes it takes, and how they add up.

The image is averaged over a Gaussian around every pixel, whatever the distance of pixels: where steps are too wide for
what the image holds, probes between the pixels are computed too, on a scan refined along each axis, or around each
pixel alone, whichever takes fewer. They are added up as they come, so that only the scan's own pixels are kept.
Neighbours: `source_stencils` fits the weights, `exposure` asks for the probes. Methods that have an image as a Fourier
series, or as a convolution with the probe, need none of this: they take the source in there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray
from scipy.sparse import csc_array

from instruments.optics import Optics
from simulation.coherence import FWHM_PER_SIGMA, is_period
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, SourceUnresolved
from simulation.progress import steps
from simulation.scans import GridScan, PointScan, Scan
from simulation.source_stencils import Stencil, fitted, sampled, sparsest
from simulation.specimens import Specimen

_REFINED_STEPS = (0.95, 0.85)
"""Of the widest that hold an image's frequencies: narrower ones have shorter stencils, which matters at a border."""
_PROBES_PER_STRIP = 2**16
_LEAST_SHARE = 3e-6
"""Of the weights around a point, that is left out at the corners."""
_STEPS_BORNE = 1.3
_MOST_PROBES = 50_000_000
"""An hour, at the tenth of a millisecond that a probe takes in a small window."""
_DECIMALS = 13
"""Of weights: libraries of linear algebra add up in another order on other processors, and bits are to be the same."""

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Where probes stand along one axis, and which of them make up each pixel, (pixels, offsets of the stencil)."""

    places_nm: NDArray[np.float64]
    members: NDArray[np.int64]
    stencil: Stencil


@dataclass(frozen=True, slots=True)
class Raster:
    """Probes on lines along y and x; those of a row follow one another."""

    rows: Lines
    columns: Lines

    @property
    def probe_count(self) -> int:
        """Of all probes."""
        return len(self.rows.places_nm) * len(self.columns.places_nm)

    def places_nm(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 2) of (x, y)."""
        row, column = np.divmod(numbers, len(self.columns.places_nm))
        return np.column_stack([self.columns.places_nm[column], self.rows.places_nm[row]])

    def sums(self, sigma_nm: float, channels: tuple[int, ...]) -> _RasterSums:
        """Nothing yet."""
        return _RasterSums(_matrix(self.rows, sigma_nm), _matrix(self.columns, sigma_nm), channels)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Probes around each of some points, all at the same offsets (n, 2) of (x, y); `pairs`: of stencil's, (y, x)."""

    points_nm: NDArray[np.float64]
    offsets_nm: NDArray[np.float64]
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
    stencil: Stencil

    @property
    def probe_count(self) -> int:
        """Of all probes."""
        return len(self.points_nm) * len(self.offsets_nm)

    def places_nm(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 2) of (x, y)."""
        point, offset = np.divmod(numbers, len(self.offsets_nm))
        return self.points_nm[point] + self.offsets_nm[offset]

    def weights(self, sigma_nm: Any) -> Any:
        """Of the offsets, summing to 1."""
        along = self.stencil.weights(sigma_nm)
        found = along[self.pairs[0]] * along[self.pairs[1]]
        return found / array_namespace(found).sum(found)

    def sums(self, sigma_nm: float, channels: tuple[int, ...]) -> _ClusterSums:
        """Nothing yet."""
        weights = np.round(self.weights(np.asarray(sigma_nm)), _DECIMALS)
        return _ClusterSums(weights, np.zeros((len(self.points_nm), *channels)))


class _RasterSums:
    """Pixels of a raster, to which the probes of its lines are added in their order."""

    def __init__(self, rows: csc_array, columns: csc_array, channels: tuple[int, ...]) -> None:
        self._rows, self._columns, self._channels = rows, columns, channels
        self._found = np.zeros((rows.shape[0], columns.shape[0], prod(channels)))
        self._line = np.zeros(self._found.shape[1:])

    def add(self, start: int, values: Values) -> None:
        """Values (n, *channels) of the probes from number `start` on."""
        flat, count, done = values.reshape(len(values), -1), self._columns.shape[1], 0
        while done < len(flat):
            row, column = divmod(start + done, count)
            stop = min(count, column + len(flat) - done)
            own = self._columns if stop - column == count else self._columns[:, column:stop]
            self._line += own @ flat[done : done + stop - column]
            done += stop - column
            if stop == count:
                self._finish(row)

    def _finish(self, row: int) -> None:
        """What a line holds goes to the pixels that it is a part of."""
        own = slice(self._rows.indptr[row], self._rows.indptr[row + 1])
        for pixel, weight in zip(self._rows.indices[own], self._rows.data[own], strict=True):
            self._found[pixel] += weight * self._line
        self._line[:] = 0.0

    def image(self) -> NDArray[np.float64]:
        """(rows, columns, *channels), never below 0: weights have both signs, an image has not."""
        np.maximum(self._found, 0.0, out=self._found)
        return self._found.reshape(*self._found.shape[:2], *self._channels)


class _ClusterSums:
    """Signals of points, to which the probes around them are added."""

    def __init__(self, weights: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        self._weights, self._found = weights, found

    def add(self, start: int, values: Values) -> None:
        """Values (n, *channels) of the probes from number `start` on."""
        point, offset = np.divmod(np.arange(start, start + len(values)), len(self._weights))
        shares = self._weights[offset].reshape(-1, *(1 for _ in values.shape[1:])) * values
        first = np.flatnonzero(np.diff(point, prepend=-1))
        self._found[point[first]] += np.add.reduceat(shares, first, axis=0)

    def image(self) -> NDArray[np.float64]:
        """(points, *channels), never below 0: weights have both signs, an image has not."""
        return np.maximum(self._found, 0.0, out=self._found)


class SourceBlur:
    """A scan by a source of some size: its probes, and its pixels from them.

    Along an axis where the scan spans a period of the specimen it wraps round.
    """

    def __init__(
        self, scan: Scan, source_size_nm: float, optics: Optics, specimen: Specimen, *, of_pixels: bool = False
    ) -> None:
        """`source_size_nm` is a full width at half maximum at the specimen.

        `of_pixels`: a blur of the finished image, as other programs have it; with a warning where steps are too wide.
        """
        self.scan, self.of_pixels = scan, of_pixels
        self.sigma_nm = source_size_nm / FWHM_PER_SIGMA
        band_per_nm = _band_per_nm(optics, specimen)
        self.layout: Raster | Clusters
        if isinstance(scan, GridScan):
            if of_pixels:
                _warn_of_wide_steps(scan, source_size_nm, optics)
            self.layout = _raster(scan, self.sigma_nm, None if of_pixels else band_per_nm, specimen)
        elif of_pixels:
            raise InvalidParameter(
                f"a source size of {source_size_nm:g} nm needs a GridScan where placement='bilinear', which blurs the"
                " finished image as other programs do: points have no neighbours; use placement='exact'"
            )
        else:
            self.layout = _clusters(scan, self.sigma_nm, band_per_nm)

    @property
    def probe_count(self) -> int:
        """Of all probes."""
        return self.layout.probe_count

    def check_probes(self) -> None:
        """Refuse more probes than anybody waits for."""
        if self.probe_count > _MOST_PROBES:
            size_nm, pixels = self.sigma_nm * FWHM_PER_SIGMA, prod(self.scan.shape)
            raise InvalidParameter(
                f"a source of {size_nm:g} nm over {pixels} pixels takes {self.probe_count:.3g} probes, more than"
                f" {_MOST_PROBES:.0e}; scan fewer pixels at a time, give a smaller source_size_nm, or use"
                " method='incoherent', or 'periodic' for a perfect crystal, which take none between the pixels"
            )

    def places_nm(self, most: int | None = None) -> NDArray[np.float64]:
        """Where probes stand, (n, 2) of (x, y); `most`: at most so many of them, spread evenly."""
        count = self.probe_count
        if most is None or count <= most:
            return self.layout.places_nm(np.arange(count))
        return self.layout.places_nm(np.linspace(0, count - 1, most).astype(np.int64))

    def strips(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """All probes some at a time: the number of the first, and places (n, 2) of (x, y) in angstrom."""
        count = self.probe_count
        starts = range(0, count, _PROBES_PER_STRIP)
        for start in steps(starts, "strips of the scan"):
            numbers = np.arange(start, min(start + _PROBES_PER_STRIP, count))
            yield start, self.layout.places_nm(numbers) * 10

    def sums(self, channels: tuple[int, ...]) -> _RasterSums | _ClusterSums:
        """What probes' values of so many channels are added to."""
        return self.layout.sums(self.sigma_nm, channels)


def _band_per_nm(optics: Optics, specimen: Specimen) -> float:
    """Highest spatial frequency of an image: two radii of the aperture, whose soft edge is a pixel wide."""
    radius = optics.semi_convergence_angle_mrad * 1e-3 / wavelength_angstrom(optics.beam_energy_ev)
    return 10 * (2 * radius + 1 / min(specimen.cell_angstrom[:2]))


def _raster(scan: GridScan, sigma_nm: float, band_per_nm: float | None, specimen: Specimen) -> Raster:
    """Without a band its own pixels are blurred."""
    found: list[Lines] = []
    for axis, (start_nm, length_nm, count) in enumerate(
        zip((scan.y_nm, scan.x_nm), (scan.height_nm, scan.width_nm), scan.shape_px, strict=True)
    ):
        is_periodic = is_period(specimen, 1 - axis, length_nm * 10)
        step_nm = length_nm / count
        if band_per_nm is None:
            found.append(_shared(start_nm, step_nm, count, 1, sampled(sigma_nm, step_nm), is_periodic))
            continue
        found.append(_fewest(start_nm, step_nm, count, sigma_nm, band_per_nm, is_periodic))
    return Raster(found[0], found[1])


def _fewest(
    start_nm: float, step_nm: float, count: int, sigma_nm: float, band_per_nm: float, is_periodic: bool
) -> Lines:
    """Of lines that pixels share, and lines around each pixel, those that are fewer."""
    own = sparsest(sigma_nm, band_per_nm)
    alone = len(own.offsets_nm) * count
    shared: list[Lines] = []
    for refined in sorted({max(1, ceil(step_nm * 2 * band_per_nm / share)) for share in _REFINED_STEPS}):
        stencil = fitted(sigma_nm, step_nm / refined, band_per_nm)
        if stencil is not None:
            shared.append(_shared(start_nm, step_nm, count, refined, stencil, is_periodic))
    best = min(shared, key=lambda lines: len(lines.places_nm), default=None)
    if best is not None and len(best.places_nm) <= alone:
        return best
    places = (start_nm + step_nm * np.arange(count))[:, None] + own.offsets_nm
    return Lines(places.ravel(), np.arange(alone).reshape(count, -1), own)


def _shared(start_nm: float, step_nm: float, count: int, refined: int, stencil: Stencil, is_periodic: bool) -> Lines:
    """Lines `refined` times as near as pixels; those that belong to no pixel are left out."""
    reach = len(stencil.offsets_nm) // 2
    numbers = refined * np.arange(count)[:, None] + np.arange(-reach, reach + 1)
    if is_periodic:
        numbers = np.mod(numbers, refined * count)
    used, members = np.unique(numbers, return_inverse=True)
    return Lines(start_nm + used.astype(np.float64) * (step_nm / refined), members.reshape(numbers.shape), stencil)


def _clusters(scan: PointScan, sigma_nm: float, band_per_nm: float) -> Clusters:
    """Corners of the square of offsets that weigh next to nothing are left out."""
    stencil = sparsest(sigma_nm, band_per_nm)
    along = stencil.weights(np.asarray(sigma_nm))
    shares = np.abs(along[:, None] * along).ravel()
    order = np.argsort(shares, kind="stable")
    kept = np.sort(order[np.cumsum(shares[order]) > _LEAST_SHARE])
    pairs = np.divmod(kept, len(along))
    offsets = np.column_stack([stencil.offsets_nm[pairs[1]], stencil.offsets_nm[pairs[0]]])
    return Clusters(scan.points_nm, offsets, pairs, stencil)


def _matrix(lines: Lines, sigma_nm: float) -> csc_array:
    """(pixels, lines)."""
    own = np.round(lines.stencil.weights(np.asarray(sigma_nm)), _DECIMALS)
    weights = np.broadcast_to(own, lines.members.shape)
    pixels = np.broadcast_to(np.arange(len(lines.members))[:, None], lines.members.shape)
    entries = weights.ravel(), (pixels.ravel(), lines.members.ravel())
    return csc_array(entries, shape=(len(lines.members), len(lines.places_nm)))


def _warn_of_wide_steps(scan: GridScan, source_size_nm: float, optics: Optics) -> None:
    """Images hold nothing finer than lambda / (4 alpha); on wider steps a blur of pixels is not that of the image."""
    if optics.semi_convergence_angle_mrad == 0:
        return
    finest_nm = wavelength_angstrom(optics.beam_energy_ev) / 10 / (4e-3 * optics.semi_convergence_angle_mrad)
    step_nm = max(scan.pixel_nm)
    if step_nm > _STEPS_BORNE * finest_nm:
        warnings.warn(
            f"placement='bilinear' blurs the finished image, as other programs do, and steps of {step_nm:.3g} nm are"
            f" too wide for that: a source of {source_size_nm:g} nm wants at most {finest_nm:.2g} nm, lambda / (4"
            " alpha), or the contrast can be tens of percent wrong; use placement='exact', which computes what lies"
            " between",
            SourceUnresolved,
            stacklevel=5,
        )
