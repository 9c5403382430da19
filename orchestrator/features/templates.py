"""What a site should look like on the pixel grid: host and species, at every sub-pixel offset, and what to weigh with.

A template is a patch of pixels about a site, at one of 8 x 8 offsets of the site from a pixel centre. Neighbours:
`cell_fit` says how the lattice lies, `evidence` compares templates with counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from orchestrator.features.lattice_model import ModelDifference

OFFSET_COUNT = 8
_LEAST_RATIO = 0.05  # a species keeps at least this share of the host's counts in any pixel
_FALLBACK_SIGMA_NM = 0.06


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Patches of (size, size) pixels; at the finest scale OFFSET_COUNT points to a pixel."""

    half_px: int
    pixel_size_nm: float
    radius_nm: float

    @classmethod
    def of(cls, radius_nm: float, pixel_size_nm: float) -> PatchGrid:
        """The grid that holds a disc of that radius."""
        return cls(max(1, int(np.ceil(radius_nm / pixel_size_nm))), pixel_size_nm, radius_nm)

    @property
    def size_px(self) -> int:
        """Pixels a side."""
        return 2 * self.half_px + 1

    @property
    def offsets_px(self) -> np.ndarray:
        """(OFFSET_COUNT,) offsets of a site from its nearest pixel."""
        return (np.arange(OFFSET_COUNT) + 0.5) / OFFSET_COUNT - 0.5

    @property
    def axis_nm(self) -> np.ndarray:
        """(OFFSET_COUNT, size) place of every pixel about the site."""
        return (np.arange(-self.half_px, self.half_px + 1) - self.offsets_px[:, None]) * self.pixel_size_nm

    @property
    def inside(self) -> np.ndarray:
        """(64, pixels) whether a pixel lies within the radius."""
        squared = self.axis_nm**2
        distance2 = squared[:, None, :, None] + squared[None, :, None, :]
        return (distance2 < self.radius_nm**2).reshape(OFFSET_COUNT**2, -1)


@dataclass(frozen=True, slots=True)
class ColumnTemplates:
    """All templates of one kind of column, D detectors, S species that live in it, K = 64 offsets, P pixels.

    `host` (D, K, P) counts of the whole frame; `change` (D, S, K, P) counts a species adds; `log_ratio` (D, S, K, P)
    log(1 + change / host); `change_total` (D, S, K); `estimator` (D, K, P) weights of the unbiased minimum-variance
    estimate of the column's intensity in electrons, `estimator_std` (D, K) its Poisson error.
    """

    species: np.ndarray
    host: np.ndarray
    change: np.ndarray
    log_ratio: np.ndarray
    change_total: np.ndarray
    estimator: np.ndarray
    estimator_std: np.ndarray

    def information(self, first: int, second: int | None) -> float:
        """Expected log-likelihood ratio, per frame, of the true `first` against `second` (None: the host)."""
        one = self.host + self.change[:, first]
        other = self.host if second is None else self.host + self.change[:, second]
        return float((one * np.log(one / other) - (one - other)).sum(axis=(0, 2)).mean())

    def null_mean(self) -> np.ndarray:
        """(S, K) mean of the log-likelihood ratio on a host column."""
        return (np.einsum("dkp,dskp->sk", self.host, self.log_ratio) - self.change_total.sum(axis=0)).astype(float)

    def null_std(self) -> np.ndarray:
        """(S, K) Poisson standard deviation of the log-likelihood ratio on a host column."""
        return np.sqrt(np.einsum("dkp,dskp->sk", self.host, self.log_ratio**2)).astype(float)


def host_patches(terms: np.ndarray, g_per_nm: np.ndarray, place_nm: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """(K, P) counts per pixel of the lattice about a column at `place_nm` from the origin; terms (G,) half plane."""
    doubled = terms * np.where(np.arange(len(terms)) == 0, 1.0, 2.0) * np.exp(2j * np.pi * (g_per_nm @ place_nm))
    axis = grid.axis_nm.ravel()
    along_x = np.exp(2j * np.pi * np.outer(g_per_nm[:, 0], axis))
    along_y = np.exp(2j * np.pi * np.outer(axis, g_per_nm[:, 1])) * doubled
    return _by_offset(np.real(along_y @ along_x), grid)


def change_patches(
    difference: ModelDifference, scan_to_crystal: np.ndarray, blur_nm: float, grid: PatchGrid
) -> np.ndarray:
    """(K, P) fraction of the beam that a species adds about its site, turned into the scan's axes and blurred."""
    values = np.asarray(difference.values, dtype=float)
    if blur_nm > 0.05 * difference.step_nm:
        values = scipy.ndimage.gaussian_filter(values, blur_nm / difference.step_nm, mode="constant")
    axis = grid.axis_nm.ravel()
    x, y = axis[None, :], axis[:, None]
    u = scan_to_crystal[0, 0] * x + scan_to_crystal[0, 1] * y
    v = scan_to_crystal[1, 0] * x + scan_to_crystal[1, 1] * y
    centre = values.shape[0] // 2
    # Steps of 0.01 nm on a 0.06 nm feature: linear interpolation is good to 0.5 %.
    places = np.stack([v / difference.step_nm + centre, u / difference.step_nm + centre])
    return _by_offset(scipy.ndimage.map_coordinates(values, places, order=1, mode="constant"), grid)


def _by_offset(fine: np.ndarray, grid: PatchGrid) -> np.ndarray:
    shape = (OFFSET_COUNT, grid.size_px, OFFSET_COUNT, grid.size_px)
    return fine.reshape(shape).transpose(0, 2, 1, 3).reshape(OFFSET_COUNT**2, -1)


def column_templates(species: Sequence[int], host: np.ndarray, change: np.ndarray, grid: PatchGrid) -> ColumnTemplates:
    """Templates from `host` (D, K, P) and `change` (D, S, K, P) counts; beyond the radius nothing changes."""
    host = np.maximum(host, 1e-3 * host.mean(axis=(1, 2), keepdims=True))
    inside = grid.inside
    change = np.where(inside, np.maximum(change, (_LEAST_RATIO - 1) * host[:, None]), 0.0)
    estimator, estimator_std = _estimator(host, change, inside, grid)
    single = np.float32
    return ColumnTemplates(
        species=np.asarray(species, dtype=int),
        host=host.astype(single),
        change=change.astype(single),
        log_ratio=np.log1p(change / host[:, None]).astype(single),
        change_total=change.sum(axis=-1),
        estimator=estimator.astype(single),
        estimator_std=estimator_std.astype(single),
    )


def _estimator(
    host: np.ndarray, change: np.ndarray, inside: np.ndarray, grid: PatchGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, K, P) whose product with counts - host is the column's intensity above the host's, in electrons.

    The profile e of a column is the change of its best visible species, scaled to sum |e| = 1 and to the sign of its
    sum; weights e/host / sum(e^2/host) are the least-squares estimate at Poisson noise.
    """
    if change.shape[1]:
        visible = np.argmax((change**2 / host[:, None]).sum(axis=(0, 2, 3)))
        profile = change[:, visible]
        total = np.abs(profile).sum(axis=-1, keepdims=True)
        sign = np.sign(profile.sum(axis=-1, keepdims=True).mean(axis=1, keepdims=True))
        profile = profile / np.where(total > 0, total, 1.0) * np.where(sign == 0, 1.0, sign)
    else:
        squared = grid.axis_nm**2
        distance2 = (squared[:, None, :, None] + squared[None, :, None, :]).reshape(OFFSET_COUNT**2, -1)
        shape = np.where(inside, np.exp(-distance2 / (2 * _FALLBACK_SIGMA_NM**2)), 0.0)
        profile = np.broadcast_to(shape / shape.sum(axis=-1, keepdims=True), host.shape)
    weight = profile / host
    norm = np.maximum((weight * profile).sum(axis=-1, keepdims=True), 1e-30)
    return weight / norm, np.sqrt(1 / norm[..., 0])
