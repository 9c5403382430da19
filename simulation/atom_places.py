"""Where atoms of each kind are in a box that repeats: how specimens are compared with themselves, moved or turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

SAME_PLACE_ANGSTROM = 1e-3
"""Atoms no farther apart are at one place."""
_KIND_STEP_ANGSTROM = 10.0


@dataclass(frozen=True, slots=True)
class AtomPlaces:
    """One search tree for all kinds, which are far from one another along a fourth axis."""

    tree: KDTree
    box_angstrom: NDArray[np.float64]

    @classmethod
    def of(
        cls, positions_angstrom: NDArray[np.float64], kinds: NDArray[np.int64], box_angstrom: tuple[float, float, float]
    ) -> AtomPlaces:
        """`box_angstrom` (x, y, z) is 0 along axes that do not repeat."""
        box = np.array([*box_angstrom, 0.0])
        return cls(KDTree(points_of(positions_angstrom, kinds, box_angstrom), boxsize=box), box)

    def distances(self, positions_angstrom: NDArray[np.float64], kinds: NDArray[np.int64]) -> NDArray[np.float64]:
        """From each position to the nearest atom of its kind, infinite where none is at the same place."""
        x, y, z, _ = self.box_angstrom.tolist()
        points = points_of(positions_angstrom, kinds, (x, y, z))
        distances, _ = self.tree.query(points, distance_upper_bound=SAME_PLACE_ANGSTROM)
        return np.asarray(distances, dtype=np.float64)

    def hold(self, positions_angstrom: NDArray[np.float64], kinds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """At which positions there is an atom of that kind."""
        return np.isfinite(self.distances(positions_angstrom, kinds))


def points_of(
    positions_angstrom: NDArray[np.float64], kinds: NDArray[np.int64], box_angstrom: tuple[float, float, float]
) -> NDArray[np.float64]:
    """(x, y, z, kind), wrapped into the box along axes that repeat."""
    points = np.empty((len(positions_angstrom), 4))
    points[:, :3], points[:, 3] = positions_angstrom, _KIND_STEP_ANGSTROM * kinds
    for axis, length in enumerate(box_angstrom):
        if length:
            points[:, axis] = np.mod(np.mod(points[:, axis], length), length)  # twice: -1e-17 becomes the length itself
    return points
