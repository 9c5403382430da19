"""The box on measured images: what the census's own extractor says of a real file, and what it refuses to say."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

import numpy as np
import scipy

from orchestrator.report.limits import Limit
from orchestrator.report.measured_image import Measured, MeasuredImage
from orchestrator.report.pictures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    SKY,
    WIDTH_INCHES,
    Picture,
    as_png,
    bare,
    canvas,
    scale_bar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOLD_APART_MARGIN = 3.0  # odds of 20 to 1
_ONE_BY_ONE_STD = 0.25
_ZOOM_NM = 3.0
_SURROUNDINGS_NM = 0.42
_COLOURS = (ORANGE, SKY, BLUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredView:
    """One measured image on the page."""

    title: str
    picture: Picture
    said: tuple[Limit, ...]
    refused: tuple[Limit, ...]


def measured_views(measured: Measured | None) -> list[MeasuredView]:
    """One for every image; none where there are none."""
    return [_view(image) for image in measured.images] if measured is not None else []


@dataclass(frozen=True, slots=True)
class _Kind:
    """Columns of one kind: brightness over the kind's median, its robust spread, the error of one column."""

    name: str
    here: np.ndarray
    brightness: np.ndarray
    spread: float
    error: float

    @property
    def is_told_one_by_one(self) -> bool:
        return self.error < _ONE_BY_ONE_STD

    @property
    def dim_below(self) -> float:
        """Darker than all but one column would be if the spread were Gaussian."""
        return 1.0 + self.spread * float(scipy.special.ndtri(1.0 / max(len(self.brightness), 2)))


def _kinds(image: MeasuredImage) -> list[_Kind]:
    arrays = image.features.arrays
    found: list[_Kind] = []
    for number, name in enumerate(image.column_names):
        here = arrays["site_column"] == number
        brightness = arrays["intensity"][here].astype(float)
        spread = 1.4826 * float(np.median(np.abs(brightness - 1.0)))
        found.append(_Kind(name, here, brightness, spread, float(np.median(arrays["intensity_std"][here]))))
    return found


def _view(image: MeasuredImage) -> MeasuredView:
    kinds = _kinds(image)
    odd = next(kind for kind in kinds if kind.name == image.substitute.column)
    dim = np.flatnonzero(odd.here)[odd.brightness < odd.dim_below] if odd.is_told_one_by_one else np.zeros(0, int)
    return MeasuredView(
        title=f"{image.material}: {image.name}",
        picture=_picture(image, kinds, odd, dim),
        said=tuple(_said(image, kinds)),
        refused=tuple(_refused(image, kinds, odd, len(dim))),
    )


def _said(image: MeasuredImage, kinds: list[_Kind]) -> list[Limit]:
    values = {name: feature.value for name, feature in image.features.values.items()}
    margin = values["orientation_log_likelihood_margin"]
    names = " and ".join(kind.name for kind in kinds)
    if margin >= _TOLD_APART_MARGIN:
        which = f"{names} are told apart by the forward model with odds of {exp(min(margin, 20.0)):,.0f} to 1"
    else:
        which = f"open: the better of the two assignments of {names} has odds of {exp(margin):.1f} to 1 only"
    found = [
        Limit(
            what="The lattice",
            why=f"its peaks are {values['lattice_power_ratio']:,.0f} times the noise; spacing "
            f"{100 * (values['scale_ratio'] - 1):+.1f} % from the model's; the scan bends it by up to "
            f"{1000 * values['bending_max_nm']:.0f} pm, which is followed; columns then stray by "
            f"{1000 * values['lattice_rms_nm']:.0f} pm",
        ),
        Limit(what="Which sub-lattice is which", why=f"{which}; never by which is brighter"),
    ]
    for kind in kinds:
        text = f"spread of brightness {100 * kind.spread:.0f} %, error of one column by noise {100 * kind.error:.0f} %"
        if not kind.is_told_one_by_one:
            text = (
                f"error of one column {100 * kind.error:.0f} % of their median: seen in the mean cell, not one by one"
            )
        found.append(Limit(what=f"{len(kind.brightness)} {kind.name} columns", why=text))
    return found


def _refused(image: MeasuredImage, kinds: list[_Kind], odd: _Kind, dim_count: int) -> list[Limit]:
    low, high = float(image.image.min()), float(image.image.max())
    whole = int((image.image == np.round(image.image)).sum())
    substitute = image.substitute
    found = [
        Limit(
            what="Probabilities, species, a false discovery rate, a density",
            why=f"the {image.image.size:,} values lie between {low:.3f} and {high:.3f}, {whole or 'none'} of them "
            f"whole: no counts, so no Poisson statistics. Asked all the same, the extractor answers: “{image.refusal}”",
        ),
    ]
    if dim_count or odd.is_told_one_by_one:
        found.append(
            Limit(
                what=f"Whether {dim_count} dim {odd.name} columns hold {substitute.name}",
                why=f"they are darker than {odd.dim_below:.2f} of the median, where one of {len(odd.brightness)} would "
                f"be if perfect columns spread like a Gaussian; {substitute.name} is predicted at "
                f"{substitute.brightness_ratio:.2f} in best focus. Holes and missing atoms are dark too: places to "
                "look at, not calls",
            )
        )
    found += [
        Limit(what=f"Single vacancies in {kind.name} columns", why="one column is not measured well enough, see above")
        for kind in kinds
        if not kind.is_told_one_by_one
    ]
    found.append(Limit(what="The dose", why=f"the file gives no dwell time and no gain; assumed: {image.assumed}"))
    return found


def _picture(image: MeasuredImage, kinds: list[_Kind], odd: _Kind, dim: np.ndarray) -> Picture:
    with canvas(WIDTH_INCHES, 3.5) as figure:
        whole, zoom, mean, spread = figure.subplots(1, 4, width_ratios=(1.0, 1.0, 0.85, 0.95))
        _draw_whole(whole, image, odd, dim)
        _draw_zoom(zoom, image, kinds)
        _draw_mean(mean, image, kinds)
        _draw_spread(spread, image, kinds)
        markup = as_png(figure, f"{image.material}, {image.name}: image, columns found, mean surroundings, brightness.")
    caption = (
        f"Measured, not simulated: {image.told}. Left: the whole image, dim {odd.name} columns ringed ({len(dim)}). "
        f"Then {_ZOOM_NM:g} nm of it with every column found, the mean surroundings of all {kinds[0].name} columns, "
        f"and brightness over the median of the kind. Assumed: {image.assumed}. {image.processor_s:.0f} s of processor "
        "time, once; kept in the data folder's cache."
    )
    return Picture(markup=markup, caption=caption)


def _show(axes: Axes, image: MeasuredImage) -> None:
    half_y, half_x = (length * image.pixel_size_nm / 2 for length in image.image.shape)
    low, high = np.percentile(image.image, [0.5, 99.8])
    axes.imshow(image.image, extent=(-half_x, half_x, -half_y, half_y), cmap="gray", vmin=low, vmax=high)
    bare(axes)


def _draw_whole(axes: Axes, image: MeasuredImage, odd: _Kind, dim: np.ndarray) -> None:
    _show(axes, image)
    x_nm, y_nm = image.features.arrays["site_x_nm"], image.features.arrays["site_y_nm"]
    axes.plot(x_nm[dim], y_nm[dim], "o", markersize=6, markerfacecolor="none", markeredgecolor=ORANGE)
    scale_bar(axes, image.image.shape[1] * image.pixel_size_nm)
    axes.set_title(f"dim {odd.name} columns" if len(dim) else "the image")


def _draw_zoom(axes: Axes, image: MeasuredImage, kinds: list[_Kind]) -> None:
    _show(axes, image)
    arrays = image.features.arrays
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        axes.plot(arrays["site_x_nm"][kind.here], arrays["site_y_nm"][kind.here], ".", color=colour, markersize=3.5)
    axes.set_xlim(-_ZOOM_NM / 2, _ZOOM_NM / 2)
    axes.set_ylim(-_ZOOM_NM / 2, _ZOOM_NM / 2)
    scale_bar(axes, _ZOOM_NM)
    axes.set_title("columns found")


def _draw_mean(axes: Axes, image: MeasuredImage, kinds: list[_Kind]) -> None:
    """Averaged about each column of the first kind, so distortions of the scan do not smear it."""
    arrays, reach = image.features.arrays, _SURROUNDINGS_NM
    x_nm, y_nm = arrays["site_x_nm"][kinds[0].here], arrays["site_y_nm"][kinds[0].here]
    axis = np.linspace(-reach, reach, 49)
    centre = (np.array(image.image.shape) - 1) / 2
    rows = (y_nm[:, None, None] + axis[:, None]) / image.pixel_size_nm + centre[0] + 0 * axis
    columns = (x_nm[:, None, None] + axis) / image.pixel_size_nm + centre[1] + 0 * axis[:, None]
    values = scipy.ndimage.map_coordinates(image.image, [rows, columns], order=1, mode="constant", cval=np.nan)
    axes.imshow(np.nanmean(values, axis=0), extent=(-reach, reach, -reach, reach), cmap="gray")
    basis = arrays["lattice_basis_nm"]
    steps = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2) @ basis.T
    origin = np.stack([x_nm, y_nm], axis=1)
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        away = _offset(
            origin, np.stack([arrays["site_x_nm"][kind.here], arrays["site_y_nm"][kind.here]], axis=1), basis
        )
        at = steps + away
        inside = (np.abs(at) < 0.95 * reach).all(axis=1)
        axes.plot(
            at[inside, 0],
            at[inside, 1],
            "o",
            markersize=7,
            markerfacecolor="none",
            markeredgecolor=colour,
            label=kind.name,
        )
    bare(axes)
    scale_bar(axes, 2 * reach)
    axes.set_title(f"mean about {len(x_nm)} {kinds[0].name}")


def _offset(first: np.ndarray, other: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Where columns (m, 2) lie about the nearest of others (n, 2), modulo the lattice: (x, y) in nm."""
    away = other[scipy.spatial.cKDTree(other).query(first)[1]] - first
    phase = np.exp(2j * np.pi * np.linalg.solve(basis, away.T)).mean(axis=1)
    return basis @ (np.angle(phase) / (2 * np.pi))


def _draw_spread(axes: Axes, image: MeasuredImage, kinds: list[_Kind]) -> None:
    edges = np.linspace(0.0, 2.0, 49)
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        if not kind.is_told_one_by_one:
            axes.plot([], [], color=colour, label=f"{kind.name}: not one by one")
            continue
        density, _ = np.histogram(kind.brightness, edges, density=True)
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.55, label=kind.name)
        axes.plot(
            edges,
            np.exp(-(((edges - 1.0) / kind.error) ** 2) / 2) / (kind.error * np.sqrt(2 * np.pi)),
            color=MUTED,
            linewidth=1.0,
            label=f"{kind.name}, noise alone",
        )
    substitute = image.substitute
    axes.axvline(
        substitute.brightness_ratio, color=INK, linestyle="--", linewidth=1.1, label=f"{substitute.name} predicted"
    )
    axes.set_xlabel("brightness over the median of its kind")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=7.5)
