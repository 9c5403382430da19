"""How results are drawn: images and patterns in grey with a scale bar, signals at points where they were taken.

x runs to the right and y upwards, so row 0 is at the bottom, as in every picture of this program (docs/units.md).
matplotlib is loaded when something is drawn. Neighbours: `images` (the data), `instruments.plotting` (scale bars).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from instruments.plotting import BLUE, new_axes, plain_frame, scale_bar
from simulation.errors import InvalidParameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETTINGS: Final = frozenset({"cmap", "vmin", "vmax", "norm"})
"""What is handed on to matplotlib."""
_UNEVEN = 1e-3
"""Of a pixel: steps that differ by more are not drawn as an image."""


def can_draw(array: xr.DataArray) -> bool:
    """Whether `draw` knows it: real numbers over an even raster, over diffraction angles, or at points."""
    if array.dtype.kind not in "fiu":
        return False
    pattern = _pattern_dims(array)
    if pattern:
        return _is_even(array, pattern)
    return _is_even(array, ("y", "x")) or (_over(array, ("point",)) and {"x", "y"} <= set(array.coords))


def draw(array: xr.DataArray, axes: Axes | None = None, *, origin: str = "lower", **settings: Any) -> Axes:
    """Draw what `can_draw` knows; `settings` are those of matplotlib in `SETTINGS`. Origin `upper`: y downwards."""
    if origin not in ("lower", "upper"):
        raise InvalidParameter(
            f"origin = {origin!r}: give 'lower' (row 0 at the bottom, y upwards) or 'upper' (row 0 on top)"
        )
    axes = new_axes() if axes is None else axes
    pattern = _pattern_dims(array)
    if pattern:
        return _draw_pattern(array, pattern, axes, origin, settings)
    dims = ("y", "x") if _over(array, ("y", "x")) else ("point",)
    title = _title(array)
    segments = int(np.prod([array.sizes[dim] for dim in array.dims if dim not in dims]))
    if segments > 1:
        title += f"\nsum of {segments} segments"
    whole = _alone(array, dims, "sum")
    if dims == ("point",):
        _draw_points(whole, axes, origin, settings)
    else:
        _draw_raster(whole, axes, origin, "nm", settings)
    axes.set_title(title, loc="left", fontsize=9)
    return axes


def _draw_raster(array: xr.DataArray, axes: Axes, origin: str, unit: str, settings: dict[str, Any]) -> None:
    """Square pixels, each around its coordinates."""
    y, x = (np.asarray(array[dim], dtype=np.float64) for dim in array.dims)
    (bottom, top), (left, right) = _edges(y), _edges(x)
    extent = (left, right, top, bottom) if origin == "upper" else (left, right, bottom, top)
    shown = axes.imshow(
        np.asarray(array), origin="upper" if origin == "upper" else "lower", extent=extent, aspect="equal",
        interpolation="nearest", **_coloured("gray", settings),
    )  # fmt: skip
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(_y_label(unit, origin))
    _colour_bar(axes, shown, _quantity(array))
    scale_bar(axes, right - left, unit=unit)


def _draw_pattern(
    array: xr.DataArray, dims: tuple[str, str], axes: Axes, origin: str, settings: dict[str, Any]
) -> Axes:
    from matplotlib.colors import PowerNorm

    count = array.size // (array.sizes[dims[0]] * array.sizes[dims[1]])
    mean = _alone(array, dims, "mean")
    if not settings.keys() & {"norm", "vmin", "vmax"}:
        settings = settings | {"norm": PowerNorm(0.5, 0.0, float(mean.max()))}
    _draw_raster(mean, axes, origin, "mrad", settings)
    mean_of = f"mean of {count} patterns, " if count > 1 else ""
    axes.set_title(f"{_title(array)}\n{mean_of}grey by square root", loc="left", fontsize=9)
    return axes


def _draw_points(array: xr.DataArray, axes: Axes, origin: str, settings: dict[str, Any]) -> None:
    """Along a line as a profile, else at their places."""
    points = np.column_stack([array["x"], array["y"]]).astype(np.float64)
    along_nm = _along_a_line(points)
    if along_nm is not None:
        axes.plot(along_nm, np.asarray(array), "o-", color=BLUE, markersize=3, linewidth=1)
        axes.set_xlabel("distance along the line (nm)")
        axes.set_ylabel(_quantity(array))
        plain_frame(axes)
        return
    shown = axes.scatter(points[:, 0], points[:, 1], c=np.asarray(array), **_coloured("cividis", settings))
    axes.set_aspect("equal")
    if origin == "upper":
        axes.invert_yaxis()
    axes.set_xlabel("x (nm)")
    axes.set_ylabel(_y_label("nm", origin))
    _colour_bar(axes, shown, _quantity(array))


def _y_label(unit: str, origin: str) -> str:
    return f"y ({unit}), downwards" if origin == "upper" else f"y ({unit})"


def _along_a_line(points: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Distances from the first point, where at least three lie on a line in their order."""
    if len(points) < 3:
        return None
    steps = points - points[0]
    reach = np.linalg.norm(steps[-1])
    if reach == 0:
        return None
    along = steps @ (steps[-1] / reach)
    away = np.linalg.norm(steps - along[:, None] * steps[-1] / reach, axis=1)
    return along if away.max() < 1e-6 * reach and np.all(np.diff(along) > 0) else None


def _coloured(cmap: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"cmap": cmap, **settings}


def _colour_bar(axes: Axes, shown: Any, label: str) -> None:
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=axes, label=label, shrink=0.85)


def _edges(centres: NDArray[np.float64]) -> tuple[float, float]:
    """Outer edges of the first and the last pixel."""
    half = (centres[-1] - centres[0]) / (len(centres) - 1) / 2
    return float(centres[0] - half), float(centres[-1] + half)


def _pattern_dims(array: xr.DataArray) -> tuple[str, str] | None:
    """The two diffraction dimensions; their names may end in the detector's."""
    y, x = ([str(dim) for dim in array.dims if str(dim).startswith(f"detector_{axis}")] for axis in "yx")
    return (y[0], x[0]) if len(y) == len(x) == 1 else None


def _over(array: xr.DataArray, dims: tuple[str, ...]) -> bool:
    """Whether it has these dimensions, and besides only those of segments."""
    others = [str(dim) for dim in array.dims if dim not in dims]
    return set(dims) <= set(array.dims) and all(dim.startswith(("ring", "segment")) for dim in others)


def _is_even(array: xr.DataArray, dims: tuple[str, str]) -> bool:
    if "detector" not in dims[0] and not _over(array, dims):
        return False
    for dim in dims:
        if dim not in array.coords or array.sizes[dim] < 2:
            return False
        steps = np.diff(np.asarray(array[dim], dtype=np.float64))
        if steps.min() <= 0 or np.ptp(steps) > _UNEVEN * steps.mean():
            return False
    return True


def _alone(array: xr.DataArray, dims: tuple[str, ...], how: str) -> xr.DataArray:
    """Over these dimensions alone, in this order; the sum or the mean over the others."""
    others = [dim for dim in array.dims if dim not in dims]
    reduced = array.mean(others, keep_attrs=True) if how == "mean" else array.sum(others, keep_attrs=True)
    return reduced.transpose(*dims)


def _quantity(array: xr.DataArray) -> str:
    return str(array.attrs.get("units", "signal"))


def _title(array: xr.DataArray) -> str:
    lines = [str(array.attrs.get("long_name") or array.name or ""), str(array.attrs.get("conditions", ""))]
    return "\n".join(text for text in lines if text)
