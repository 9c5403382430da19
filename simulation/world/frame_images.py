"""The noiseless image of a sub-frame: periodic image, difference patches, contamination; in fractions of the beam.

The periodic image is summed from its own few Fourier terms (it is band-limited at twice the aperture), so it is exact
at any point; patches are interpolated with cubic splines and added, so defects superpose (their interaction is
neglected; `simulation.lattice_images` states the error against multislice).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import cos, pi, radians, sin
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from instruments.optics import Coherence, Optics
from instruments.scans import ScanPattern
from simulation.world.landscape import Landscape
from simulation.world.tilt import UPRIGHT, Tilt

_SMALLEST_TERM = 1e-6  # of the mean; what is dropped of the periodic image
_KEPT_IMAGES = 64


class PatchImages(Protocol):
    """What is needed of `simulation.lattice_images.LatticeImages`."""

    cell_width_nm: float
    cell_height_nm: float

    def cell_image(self, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence) -> np.ndarray:
        """Periodic image, fraction of the beam."""
        ...

    def difference_image(
        self, species: str, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence
    ) -> Any:
        """Defect minus perfect: `values` (n, n), `step_nm`."""
        ...


@dataclass(frozen=True)
class Imaging:
    """What a detector's image depends on besides the specimen."""

    inner_mrad: float
    outer_mrad: float
    optics: Optics
    coherence: Coherence

    @property
    def key(self) -> tuple[float, float, str, str]:
        """Hashable identity."""
        return self.inner_mrad, self.outer_mrad, self.optics.model_dump_json(), self.coherence.model_dump_json()


@dataclass(frozen=True)
class Terms:
    """Fourier terms of the periodic image: value = mean + Re sum a exp(2 pi i (h x / width + k y / height))."""

    mean: float
    h: np.ndarray
    k: np.ndarray
    amplitudes: NDArray[np.complex128]

    @classmethod
    def of(cls, image: np.ndarray) -> Terms:
        """All terms above 1e-6 of the mean, one of each conjugate pair."""
        rows, columns = image.shape
        spectrum = np.fft.rfft2(image) / image.size
        mean = float(spectrum[0, 0].real)
        weight = np.full(spectrum.shape, 2.0)
        weight[:, 0] = 1.0
        if columns % 2 == 0:
            weight[:, -1] = 1.0
        weight[0, 0] = 0.0
        spectrum = spectrum * weight
        row, column = np.nonzero(np.abs(spectrum) > _SMALLEST_TERM * abs(mean))
        k = np.where(row > rows // 2, row - rows, row)
        return cls(mean, column.astype(float), k.astype(float), spectrum[row, column])


@dataclass(frozen=True)
class Patch:
    """Spline coefficients of a difference image, centre on the site."""

    coefficients: np.ndarray
    step_nm: float

    @property
    def reach_nm(self) -> float:
        """Half its width."""
        return (self.coefficients.shape[0] - 1) / 2 * self.step_nm


@dataclass(frozen=True)
class Grid:
    """True specimen positions of a sub-frame's pixels: line start plus column times step (rows = lines).

    Of one that leans: places on its sheet, and how high each stands over that under the unshifted beam.
    """

    x_nm: np.ndarray  # (rows,) position of each line's first pixel
    y_nm: np.ndarray
    step_x_nm: float
    step_y_nm: float
    columns: int
    tilt: Tilt = UPRIGHT
    raised_nm: float | np.ndarray = 0.0  # (rows,) of the first pixels
    raised_step_nm: float = 0.0

    @classmethod
    def of(cls, scan: ScanPattern, centre_x_nm: np.ndarray, centre_y_nm: np.ndarray) -> Grid:
        """From the true centre of the raster at each line's time, (rows,) each."""
        rows, columns = scan.shape_px
        c, s = cos(radians(scan.rotation_deg)), sin(radians(scan.rotation_deg))
        u = -(columns - 1) / 2 * scan.pixel_size_nm
        v = (np.arange(rows) - (rows - 1) / 2) * scan.pixel_size_nm
        return cls(
            x_nm=centre_x_nm + c * u - s * v,
            y_nm=centre_y_nm + s * u + c * v,
            step_x_nm=c * scan.pixel_size_nm,
            step_y_nm=s * scan.pixel_size_nm,
            columns=columns,
        )

    def leaning(self, tilt: Tilt, height_nm: float, x_nm: np.ndarray, y_nm: np.ndarray) -> Grid:
        """On the sheet of a tilted specimen, from places across the beam that are counted from the tilt axis.

        `height_nm` is that of the sheet over the axis, (x, y) the point of it at the axis at each line's time, (rows,).
        """
        u_nm, v_nm = tilt.on_sheet(self.x_nm, self.y_nm, height_nm)
        step_nm = tilt.on_sheet(self.step_x_nm, self.step_y_nm)
        raised_nm = tilt.raised_nm(u_nm, v_nm, height_nm)
        return Grid(x_nm + u_nm, y_nm + v_nm, *step_nm, self.columns, tilt, raised_nm, tilt.raised_nm(*step_nm))

    def part(self, rows: slice, columns: slice) -> Grid:
        """Some of the pixels."""
        first = columns.start
        return replace(
            self,
            x_nm=self.x_nm[rows] + first * self.step_x_nm,
            y_nm=self.y_nm[rows] + first * self.step_y_nm,
            raised_nm=(self.raised_nm + np.zeros_like(self.x_nm))[rows] + first * self.raised_step_nm,
            columns=columns.stop - first,
        )

    def heights_nm(self) -> np.ndarray:
        """Of all pixels, (rows, columns)."""
        return (self.raised_nm + np.zeros_like(self.x_nm))[:, None] + np.arange(self.columns) * self.raised_step_nm

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) of all pixels, (rows, columns)."""
        column = np.arange(self.columns)
        return self.x_nm[:, None] + column * self.step_x_nm, self.y_nm[:, None] + column * self.step_y_nm

    def bounds(self, margin_nm: float) -> tuple[float, float, float, float]:
        """(x low, x high, y low, y high) around all pixels."""
        end_x = self.x_nm + (self.columns - 1) * self.step_x_nm
        end_y = self.y_nm + (self.columns - 1) * self.step_y_nm
        return (
            float(min(self.x_nm.min(), end_x.min())) - margin_nm,
            float(max(self.x_nm.max(), end_x.max())) + margin_nm,
            float(min(self.y_nm.min(), end_y.min())) - margin_nm,
            float(max(self.y_nm.max(), end_y.max())) + margin_nm,
        )

    def window(self, x_nm: float, y_nm: float, reach_nm: float) -> tuple[slice, slice] | None:
        """Rows and columns that can lie within reach (a square) of a point; None if there are none."""
        pixel = float(np.hypot(self.step_x_nm, self.step_y_nm))
        along_x, along_y = self.step_x_nm / pixel, self.step_y_nm / pixel
        dx, dy = x_nm - self.x_nm, y_nm - self.y_nm
        reach = reach_nm * (abs(along_x) + abs(along_y))
        rows = np.flatnonzero(np.abs(along_x * dy - along_y * dx) <= reach)
        if not len(rows):
            return None
        along = (along_x * dx + along_y * dy)[rows]
        first = max(0, int(np.ceil((along.min() - reach) / pixel)))
        last = min(self.columns - 1, int(np.floor((along.max() + reach) / pixel)))
        return (slice(int(rows[0]), int(rows[-1]) + 1), slice(first, last + 1)) if last >= first else None


@dataclass
class ImageMaker:
    """Noiseless images; keeps Fourier terms and patches of the last few imaging conditions."""

    images: PatchImages
    landscape: Landscape
    origin_nm: tuple[float, float]
    contrast_nm: float
    cell_nm: tuple[float, float]  # on the sheet; that of the images is shorter where it leans
    _terms: OrderedDict[Any, Terms] = field(default_factory=OrderedDict[Any, Terms])
    _patches: OrderedDict[Any, Patch] = field(default_factory=OrderedDict[Any, Patch])

    def image(
        self,
        imaging: Imaging,
        grid: Grid,
        defects: Iterable[tuple[str, float, float]],
        film: np.ndarray | None,
        film_fraction_per_nm: float,
        *,
        is_blurred: bool = False,
    ) -> np.ndarray:
        """(rows, columns) float32 fraction of the beam; `defects` are (species, x_nm, y_nm), `film` thickness in nm.

        A film of thickness t damps what varies with the lattice by exp(-t / contrast_nm) (assumption) and adds its own
        scattering. Blurred, nothing of the lattice is seen but its mean.
        """
        terms = self._terms_of(imaging)
        image = np.zeros((len(grid.x_nm), grid.columns), np.float32) if is_blurred else self._lattice(terms, grid)
        for species, x_nm, y_nm in () if is_blurred else defects:
            self._add(self._patch_of(imaging, species), grid, x_nm, y_nm, image)
        if film is not None:
            image *= np.exp(-film / np.float32(self.contrast_nm))
            image += np.float32(film_fraction_per_nm) * film
        image += np.float32(terms.mean)
        return np.maximum(image, 0, out=image)

    def film_nm(self, grid: Grid) -> np.ndarray | None:
        """Thickness on the pixels, or None where there is none at all."""
        if grid.step_y_nm == 0:  # jitter and drift within a sub-frame are small beside the film's 0.5 nm grid
            x_nm = float(grid.x_nm.mean()) + np.arange(grid.columns) * grid.step_x_nm
            film = self.landscape.thickness_on_lines(x_nm, grid.y_nm)
        else:
            film = self.landscape.thickness_at(*grid.points())
        if not grid.tilt.is_upright:
            film = film / np.float32(grid.tilt.foreshortening)
        return film if film.any() else None

    def _lattice(self, terms: Terms, grid: Grid) -> np.ndarray:
        u, v = (
            (grid.x_nm - self.origin_nm[0]) / self.cell_nm[0],
            (grid.y_nm - self.origin_nm[1]) / self.cell_nm[1],
        )
        lines = terms.amplitudes * np.exp(2j * pi * (np.outer(u, terms.h) + np.outer(v, terms.k)))
        turn = terms.h * grid.step_x_nm / self.cell_nm[0] + terms.k * grid.step_y_nm / self.cell_nm[1]
        along = 2 * pi * np.outer(turn, np.arange(grid.columns))
        left = np.hstack([lines.real, -lines.imag]).astype(np.float32)
        return left @ np.vstack([np.cos(along), np.sin(along)]).astype(np.float32)

    @staticmethod
    def _add(patch: Patch, grid: Grid, x_nm: float, y_nm: float, image: np.ndarray) -> None:
        window = grid.window(x_nm, y_nm, patch.reach_nm / min(grid.tilt.shares))
        if window is None:
            return
        rows, columns = window
        column = np.arange(columns.start, columns.stop)
        middle = (patch.coefficients.shape[0] - 1) / 2
        dx = grid.x_nm[rows, None] + column * grid.step_x_nm - x_nm
        dy = grid.y_nm[rows, None] + column * grid.step_y_nm - y_nm
        if not grid.tilt.is_upright:
            dx, dy = dx * grid.tilt.shares[0], dy * grid.tilt.shares[1]
        coordinates = np.stack([dy, dx]) / patch.step_nm + middle
        image[rows, columns] += map_coordinates(
            patch.coefficients, coordinates, order=3, prefilter=False, mode="constant", output=np.float32
        )

    def _terms_of(self, imaging: Imaging) -> Terms:
        return _kept(
            self._terms,
            imaging.key,
            lambda: Terms.of(
                self.images.cell_image(imaging.inner_mrad, imaging.outer_mrad, imaging.optics, imaging.coherence)
            ),
        )

    def _patch_of(self, imaging: Imaging, species: str) -> Patch:
        def compute() -> Patch:
            difference = self.images.difference_image(
                species, imaging.inner_mrad, imaging.outer_mrad, imaging.optics, imaging.coherence
            )
            return Patch(spline_filter(difference.values, order=3, mode="constant"), difference.step_nm)

        return _kept(self._patches, (*imaging.key, species), compute)


def _kept(cache: OrderedDict[Any, Any], key: Any, compute: Any) -> Any:
    if key not in cache:
        cache[key] = compute()
        while len(cache) > _KEPT_IMAGES:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def with_afterglow(image: np.ndarray, dwell_time_us: float, afterglow_us: float) -> np.ndarray:
    """Image with the detector's decay: exp(-dwell / decay) of a pixel's signal comes in the next of its line.

    Applied to the mean (each line starts dark), so counts stay Poisson; for a decay of 0.2 us it is
    0.7 % at 1 us, 8 % at 0.5 us.
    """
    carried = float(np.exp(-dwell_time_us / afterglow_us)) if afterglow_us > 0 else 0.0
    if carried < 1e-6:
        return image
    kept = min(image.shape[1] - 1, int(np.ceil(np.log(1e-6) / np.log(carried))))
    result = np.float32(1 - carried) * image
    for lag in range(1, kept + 1):
        result[:, lag:] += np.float32((1 - carried) * carried**lag) * image[:, :-lag]
    return result
