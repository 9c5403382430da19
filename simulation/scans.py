"""Where the probe stands: a grid of pixels or a list of points, in the frame of the specimen's cell."""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import repr as short

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.arguments import finite, positive, whole_pair
from simulation.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class GridScan:
    """Pixel (r, c) sits at (x_nm + c * width_nm / columns, y_nm + r * height_nm / rows); the end is not included.

    Positions outside the specimen's cell are those of its periodic copies.
    """

    x_nm: float
    y_nm: float
    width_nm: float
    height_nm: float
    shape_px: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse empty or infinite scans."""
        for name in ("x_nm", "y_nm"):
            object.__setattr__(self, name, finite(name, getattr(self, name), "nm"))
        for name in ("width_nm", "height_nm"):
            object.__setattr__(self, name, positive(name, getattr(self, name), "nm"))
        object.__setattr__(self, "shape_px", whole_pair("shape_px", self.shape_px))

    @property
    def pixel_nm(self) -> tuple[float, float]:
        """Distance between pixels (y, x)."""
        return self.height_nm / self.shape_px[0], self.width_nm / self.shape_px[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading shape of an image: (rows, columns)."""
        return self.shape_px

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the leading dimensions."""
        return ("y", "x")

    def coordinates(self) -> dict[str, tuple[str, NDArray[np.float64]]]:
        """Coordinates in nm by name, each with its dimension."""
        dy, dx = self.pixel_nm
        y = self.y_nm + np.arange(self.shape_px[0], dtype=np.float64) * dy
        x = self.x_nm + np.arange(self.shape_px[1], dtype=np.float64) * dx
        return {"y": ("y", y), "x": ("x", x)}

    def points_angstrom(self) -> NDArray[np.float64]:
        """(rows * columns, 2) of (x, y), columns fastest."""
        coordinates = self.coordinates()
        y, x = np.meshgrid(coordinates["y"][1], coordinates["x"][1], indexing="ij")
        return np.column_stack([x.ravel(), y.ravel()]) * 10

    def widened(self, margin_px: tuple[int, int]) -> GridScan:
        """The same pixels with (rows, columns) more of them on every side."""
        dy, dx = self.pixel_nm
        rows, columns = self.shape_px[0] + 2 * margin_px[0], self.shape_px[1] + 2 * margin_px[1]
        corner_x, corner_y = self.x_nm - margin_px[1] * dx, self.y_nm - margin_px[0] * dy
        return GridScan(corner_x, corner_y, columns * dx, rows * dy, (rows, columns))


class PointScan:
    """Single probe positions: `points_nm` is (n, 2) of (x, y); outside the cell they are those of periodic copies."""

    __slots__ = ("points_nm",)

    def __init__(self, points_nm: ArrayLike) -> None:
        """Refuse lists that are empty, of another shape, or not finite."""
        points = _numbers(points_nm)
        if points.shape == (2,):
            points = points[None, :]
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise InvalidParameter(f"points_nm has shape {points.shape}; it must be (n, 2) of (x, y), n at least 1")
        if not np.isfinite(points).all():
            raise InvalidParameter("points_nm holds a position that is not finite")
        points.setflags(write=False)
        self.points_nm = points

    def __eq__(self, other: object) -> bool:
        """Whether the other is a list of the same points in the same order."""
        return isinstance(other, PointScan) and np.array_equal(self.points_nm, other.points_nm)

    def __hash__(self) -> int:
        """Equal for equal points."""
        return hash((self.points_nm.shape, (self.points_nm + 0.0).tobytes()))

    def __repr__(self) -> str:
        """Short: the number of points."""
        return f"PointScan({len(self.points_nm)} points)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading shape of a result: (n,)."""
        return (len(self.points_nm),)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the leading dimensions."""
        return ("point",)

    def coordinates(self) -> dict[str, tuple[str, NDArray[np.float64]]]:
        """x and y of each point in nm."""
        return {"x": ("point", self.points_nm[:, 0]), "y": ("point", self.points_nm[:, 1])}

    def points_angstrom(self) -> NDArray[np.float64]:
        """(n, 2) of (x, y)."""
        return self.points_nm * 10


def _numbers(points_nm: ArrayLike) -> NDArray[np.float64]:
    try:
        given = np.asarray(points_nm)
    except ValueError as error:  # rows of unlike length
        raise InvalidParameter(f"points_nm is no table ({error}); give (n, 2) of (x, y) in nm") from error
    if given.dtype.kind not in "iuf":
        raise InvalidParameter(f"points_nm holds no real numbers: {short(points_nm)}; give (n, 2) of (x, y) in nm")
    return np.array(given, dtype=np.float64)


Scan = GridScan | PointScan
