"""Log-likelihood ratios of species against host at every site: templates times counts, then the neighbours' turn.

First pass: every site against an undisturbed surrounding, by matrix products. Second pass: sites near strong
evidence are judged again, pixel by pixel, with the neighbours' most likely content in the expected image.
Neighbour: `templates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.features.templates import OFFSET_COUNT, ColumnTemplates, PatchGrid

_MIN_SPREAD_SITES = 200


@dataclass(frozen=True, slots=True)
class Exposure:
    """Counts (D, rows, columns) that share one lattice position; `share` of the frame's dose, `shift_nm` (x, y)."""

    counts: np.ndarray
    share: float
    shift_nm: np.ndarray


@dataclass(frozen=True, slots=True)
class Sites:
    """Predicted sites: position in scan coordinates (n, 2) nm, column number, and local brightness (n, D) over host."""

    xy_nm: np.ndarray
    column: np.ndarray
    brightness: np.ndarray


@dataclass(frozen=True, slots=True)
class Placed:
    """Where sites fall on the pixel grid: nearest pixel (row, column) and number of the sub-pixel offset."""

    row: np.ndarray
    column: np.ndarray
    offset: np.ndarray


def place(xy_nm: np.ndarray, shift_nm: np.ndarray, shape_px: tuple[int, int], pixel_size_nm: float) -> Placed:
    """Put sites on the grid."""
    column = (xy_nm[:, 0] + shift_nm[0]) / pixel_size_nm + (shape_px[1] - 1) / 2
    row = (xy_nm[:, 1] + shift_nm[1]) / pixel_size_nm + (shape_px[0] - 1) / 2
    near_column, near_row = np.floor(column + 0.5).astype(np.int64), np.floor(row + 0.5).astype(np.int64)
    sub_column = np.clip(((column - near_column + 0.5) * OFFSET_COUNT).astype(np.int64), 0, OFFSET_COUNT - 1)
    sub_row = np.clip(((row - near_row + 0.5) * OFFSET_COUNT).astype(np.int64), 0, OFFSET_COUNT - 1)
    return Placed(near_row, near_column, sub_row * OFFSET_COUNT + sub_column)


class Patches:
    """Patches of padded images about pixels; outside the frame counts are 0 and `inside` is 0."""

    def __init__(self, counts: np.ndarray, grid: PatchGrid) -> None:
        """`counts` (D, rows, columns)."""
        self.grid = grid
        pad = grid.half_px + 1
        self._pad = pad
        self._padded = np.pad(np.asarray(counts, dtype=np.float32), ((0, 0), (pad, pad), (pad, pad)))
        inside = np.pad(np.ones(counts.shape[1:], dtype=np.float32), pad)
        window = (grid.size_px, grid.size_px)
        self._views = [np.lib.stride_tricks.sliding_window_view(image, window) for image in self._padded]
        self._inside = np.lib.stride_tricks.sliding_window_view(inside, window)
        self.shape_px = (counts.shape[1], counts.shape[2])

    def of(self, detector: int, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(sites, P) counts."""
        start = self._pad - self.grid.half_px
        return self._views[detector][row + start, column + start].reshape(len(row), -1)

    def inside(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(sites, P) 1 in the frame, 0 outside."""
        start = self._pad - self.grid.half_px
        return self._inside[row + start, column + start].reshape(len(row), -1)

    def cut(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(sites,) whether a patch reaches beyond the frame."""
        half = self.grid.half_px
        rows, columns = self.shape_px
        return (row < half) | (column < half) | (row >= rows - half) | (column >= columns - half)


def groups(key: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each distinct key with the indices that have it."""
    order = np.argsort(key, kind="stable")
    keys, starts = np.unique(key[order], return_index=True)
    for number, members in zip(keys, np.split(order, starts[1:]), strict=True):
        yield int(number), members


@dataclass(frozen=True, slots=True)
class Evidence:
    """`llr` (n, S), NaN where a species does not belong; `amplitude` and its std (n, D), electrons above the host."""

    llr: np.ndarray
    amplitude: np.ndarray
    amplitude_std: np.ndarray


def score_sites(
    exposures: Sequence[Exposure],
    sites: Sites,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    species_count: int,
) -> Evidence:
    """First pass over all sites, in groups of one column and sub-pixel offset: counts @ [log ratios, estimator]."""
    detector_count = len(exposures[0].counts)
    llr = np.full((len(sites.column), species_count), np.nan)
    for number, kind in enumerate(templates):
        llr[np.ix_(sites.column == number, kind.species)] = 0.0
    amplitude = np.zeros((len(sites.column), detector_count))
    variance = np.zeros((len(sites.column), detector_count))
    for exposure in exposures:
        patches = Patches(exposure.counts, grid)
        where = place(sites.xy_nm, exposure.shift_nm, patches.shape_px, grid.pixel_size_nm)
        is_cut = patches.cut(where.row, where.column)
        for key, members in groups(sites.column * OFFSET_COUNT**2 + where.offset):
            kind, offset = templates[key // OFFSET_COUNT**2], key % OFFSET_COUNT**2
            rows, columns = where.row[members], where.column[members]
            cut = is_cut[members]
            inside = patches.inside(rows[cut], columns[cut]) if cut.any() else np.zeros((0, grid.size_px**2))
            for detector in range(detector_count):
                counts = patches.of(detector, rows, columns)
                bright = sites.brightness[members, detector] * exposure.share
                change = np.repeat(kind.change_total[detector, :, offset][None], len(members), axis=0)
                weights = np.concatenate([kind.log_ratio[detector, :, offset], kind.estimator[detector, None, offset]])
                found = counts @ weights.T
                expected = np.full(len(members), float(kind.host[detector, offset] @ kind.estimator[detector, offset]))
                if cut.any():
                    change[cut] = inside @ kind.change[detector, :, offset].T
                    expected[cut] = inside @ (kind.host[detector, offset] * kind.estimator[detector, offset])
                llr[np.ix_(members, kind.species)] += found[:, :-1] - bright[:, None] * change
                # The share of the dose weighs each exposure, so shares of one estimate add up to the whole.
                amplitude[members, detector] += found[:, -1] - bright * expected
                variance[members, detector] += kind.estimator_std[detector, offset] ** 2 * bright
    return Evidence(llr, amplitude, np.sqrt(variance))


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Sites whose content is taken as settled: their number and their species, by which neighbours are judged."""

    site: np.ndarray
    species: np.ndarray


def settled(llr: np.ndarray, least_llr: float) -> Neighbourhood:
    """Sites with strong evidence, each with its best species."""
    best = np.where(np.isnan(llr), -np.inf, llr)
    strong = np.flatnonzero(best.max(axis=1) > least_llr)
    return Neighbourhood(strong, np.argmax(best[strong], axis=1))


def near_settled(xy_nm: np.ndarray, neighbours: Neighbourhood, reach_nm: float) -> np.ndarray:
    """Indices of sites within reach of a settled site other than themselves."""
    if len(neighbours.site) == 0:
        return np.zeros(0, dtype=np.int64)
    from scipy.spatial import cKDTree

    tree = cKDTree(xy_nm)
    near = tree.query_ball_point(xy_nm[neighbours.site], reach_nm)
    found = [set(members) - {int(site)} for members, site in zip(near, neighbours.site, strict=True)]
    return np.array(sorted(set().union(*found)), dtype=np.int64)


def score_exactly(
    exposure: Exposure,
    sites: Sites,
    chosen: np.ndarray,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    species_count: int,
    neighbours: Neighbourhood,
) -> np.ndarray:
    """(len(chosen), S) ratios pixel by pixel, the expected image holding the settled neighbours; NaN as before."""
    detector_count = len(exposure.counts)
    patches = Patches(exposure.counts, grid)
    where = place(sites.xy_nm, exposure.shift_nm, patches.shape_px, grid.pixel_size_nm)
    extra = _settled_change(exposure.counts.shape, sites, where, templates, grid, neighbours)
    surroundings = Patches(extra, grid)
    own = dict(zip(neighbours.site.tolist(), neighbours.species.tolist(), strict=True))
    llr = np.full((len(chosen), species_count), np.nan)
    for key, members in groups(sites.column[chosen] * OFFSET_COUNT**2 + where.offset[chosen]):
        number, offset = divmod(key, OFFSET_COUNT**2)
        kind = templates[number]
        site = chosen[members]
        rows, columns = where.row[site], where.column[site]
        inside = patches.inside(rows, columns)
        total = np.zeros((len(members), len(kind.species)))
        for detector in range(detector_count):
            bright = sites.brightness[site, detector][:, None]
            around = surroundings.of(detector, rows, columns).astype(float)
            for place_in_list, member in enumerate(site.tolist()):
                if member in own:
                    local = int(np.flatnonzero(kind.species == own[member])[0])
                    around[place_in_list] -= bright[place_in_list] * kind.change[detector, local, offset]
            host = bright * kind.host[detector, offset]
            host = np.maximum(host + around, 0.02 * host) * exposure.share
            counts = patches.of(detector, rows, columns)
            for local in range(len(kind.species)):
                change = bright * kind.change[detector, local, offset] * exposure.share
                change = np.maximum(change, -0.95 * host)
                total[:, local] += ((counts * np.log1p(change / host) - change) * inside).sum(axis=1)
        llr[np.ix_(members, kind.species)] = total
    return llr


def _settled_change(
    shape: tuple[int, ...],
    sites: Sites,
    where: Placed,
    templates: Sequence[ColumnTemplates],
    grid: PatchGrid,
    neighbours: Neighbourhood,
) -> np.ndarray:
    """(D, rows, columns) counts of the whole frame that settled sites add to the undisturbed lattice."""
    half = grid.half_px
    extra = np.zeros((shape[0], shape[1] + 2 * half, shape[2] + 2 * half), dtype=np.float32)
    for site, species in zip(neighbours.site.tolist(), neighbours.species.tolist(), strict=True):
        kind = templates[int(sites.column[site])]
        local = int(np.flatnonzero(kind.species == species)[0])
        change = kind.change[:, local, where.offset[site]].reshape(shape[0], grid.size_px, grid.size_px)
        row, column = where.row[site], where.column[site]
        bright = sites.brightness[site].astype(np.float32)[:, None, None]
        extra[:, row : row + grid.size_px, column : column + grid.size_px] += bright * change
    return extra[:, half : half + shape[1], half : half + shape[2]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How host columns really scatter: `centre` (S,) and `spread` (S,) of the standardised ratio (0 and 1 expected)."""

    centre: np.ndarray
    spread: np.ndarray


def calibrate(
    llr: np.ndarray,
    sites: Sites,
    offset: np.ndarray,
    templates: Sequence[ColumnTemplates],
    usable: np.ndarray,
) -> tuple[np.ndarray, Calibration]:
    """Ratios as honest as the host columns of this very frame allow, and how far they were off.

    Under the host z = (llr - mean)/std has median 0 and spread 1 (median absolute deviation, so the few defects do not
    count). A centre other than 0 is removed; a spread above 1 (model error, distortions) means that evidence counts
    less: the ratio is divided by spread^2, as if the counts were that many times fewer. With fewer than 200 usable
    sites of a column nothing is corrected.
    """
    corrected = llr.copy()
    centre, spread = np.zeros(llr.shape[1]), np.ones(llr.shape[1])
    for number, kind in enumerate(templates):
        here = np.flatnonzero(sites.column == number)
        good = usable[here]
        if good.sum() < _MIN_SPREAD_SITES or len(kind.species) == 0:
            continue
        mean, std = kind.null_mean()[:, offset[here]].T, kind.null_std()[:, offset[here]].T
        z = (llr[np.ix_(here, kind.species)] - mean) / std
        middle = np.median(z[good], axis=0)
        width = 1.4826 * np.median(np.abs(z[good] - middle), axis=0)
        centre[kind.species], spread[kind.species] = middle, width
        factor = np.maximum(width, 1.0) ** 2
        corrected[np.ix_(here, kind.species)] = (llr[np.ix_(here, kind.species)] - middle * std) / factor
    return corrected, Calibration(centre, spread)
