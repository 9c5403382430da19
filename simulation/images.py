"""Results as xarray data that draw themselves as a microscopist wants them: `images["haadf"].plot()`.

`Images` and `Image` are xarray's `Dataset` and `DataArray` in everything else, also after selecting and arithmetic.
What is neither an image, a pattern nor a signal at points is drawn by xarray. Neighbour: `pictures`, which draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, overload

import xarray as xr
from xarray.plot.accessor import DataArrayPlotAccessor

from simulation import pictures
from simulation.errors import InvalidParameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ImagePlot(DataArrayPlotAccessor):
    """`image.plot()`; kinds of xarray's plots by name, such as `image.plot.hist()`."""

    __slots__ = ()

    def __call__(  # type: ignore[override]
        self, axes: Axes | None = None, *, origin: str = "lower", **settings: Any
    ) -> Any:
        """Draw it in grey with a scale bar and axes in nm or mrad, and return the matplotlib axes.

        y points up, so row 0 is at the bottom, as in `Frame.plot` and reports; `origin="upper"` puts it on top, as an
        array is printed. Patterns are drawn by the square root of their intensity, and of several the mean. `cmap`,
        `vmin`, `vmax` and `norm` are matplotlib's. With other arguments, and for other data, it is xarray's own plot.
        """
        axes = settings.pop("ax", axes)
        if settings.keys() <= pictures.SETTINGS and pictures.can_draw(self._da):
            return pictures.draw(self._da, axes, origin=origin, **settings)
        if self._da.size == 1:
            raise InvalidParameter(f"{self._da.name} is a single value, {self._da.item():g}; scan more pixels")
        return super().__call__(**({"ax": axes} if axes is not None else {}), **settings)


class Image(xr.DataArray):
    """A signal over the scan: xarray's `DataArray`, drawn by `plot()`."""

    __slots__ = ()

    @property
    def plot(self) -> ImagePlot:
        """Draw it; see `ImagePlot`."""
        return ImagePlot(self)


class Images(xr.Dataset):
    """Signals of one exposure by detector: xarray's `Dataset` of `Image`."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: str) -> Image: ...

    @overload
    def __getitem__(self, key: Mapping[Any, Any] | list[Any]) -> Images: ...

    @overload
    def __getitem__(self, key: Hashable) -> Image: ...

    def __getitem__(self, key: Any) -> Image | Images:  # type: ignore[override]
        """A signal by its name; a part of the data by a mapping or a list of names."""
        found = super().__getitem__(key)
        return Image(found) if isinstance(found, xr.DataArray) else found
