"""Which lattice site of the specimen a site of a frame is, while the specimen drifts.

Every frame sees the lattice phase, so the drift is known modulo a lattice vector; it is unwrapped by following
it from frame to frame. Neighbour: `site_evidence`, which keeps evidence by site index.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Vector = np.ndarray


@dataclass
class LatticeRegister:
    """Index (i, j) of every site in one specimen-fixed lattice, and the drift of each frame.

    `basis_nm` columns are the two primitive vectors. The specimen frame is fixed by the first frame taken in:
    its drift is zero by definition. `drift_nm` is nominal minus specimen coordinate.
    """

    prior_speed_nm_per_s: float = 1.0 / 60.0
    origin_nm: Vector | None = None
    basis_nm: Vector | None = None
    rotation_rad: float = 0.0
    history: list[tuple[float, float, float, float]] = field(default_factory=list[tuple[float, float, float, float]])

    def take(self, time_s: float, lattice_origin_nm: Vector, lattice_basis_nm: Vector) -> Vector:
        """The drift (x, y) in nm of a frame whose lattice has this origin and basis in nominal coordinates."""
        if self.origin_nm is None or self.basis_nm is None:
            self.origin_nm = np.asarray(lattice_origin_nm, dtype=float)
            self.basis_nm = np.asarray(lattice_basis_nm, dtype=float)
            self.history.append((time_s, 0.0, 0.0, 0.0))
            return np.zeros(2)
        expected, reach_nm = self.expect(time_s)
        offset = np.asarray(lattice_origin_nm, dtype=float) - self.origin_nm - expected
        cycles = np.linalg.solve(self.basis_nm, offset)
        residual = self.basis_nm @ (cycles - np.round(cycles))
        residual = _shortest(residual, self.basis_nm)
        drift = expected + residual
        self.history.append((time_s, float(drift[0]), float(drift[1]), reach_nm))
        return drift

    def expect(self, time_s: float) -> tuple[Vector, float]:
        """Drift expected at a time from the last two seconds-scale steps, and how far it may have moved on (nm)."""
        if not self.history:
            return np.zeros(2), 0.0
        last = np.array(self.history[-1][:3])
        elapsed_s = time_s - last[0]
        speed = np.zeros(2)
        earlier = [entry for entry in self.history if last[0] - entry[0] >= 2.0]
        if earlier:
            before = np.array(earlier[-1][:3])
            speed = (last[1:] - before[1:]) / (last[0] - before[0])
        return last[1:] + speed * elapsed_s, self.prior_speed_nm_per_s * elapsed_s

    def index(self, x_nm: np.ndarray, y_nm: np.ndarray, drift_nm: Vector, column_offset_nm: Vector) -> np.ndarray:
        """Lattice indices (n, 2) of sites at nominal positions; `column_offset_nm` is the column's place in the cell."""
        if self.origin_nm is None or self.basis_nm is None:
            raise ValueError("take() a frame before indexing sites")
        positions = np.stack([x_nm, y_nm]) - (self.origin_nm + drift_nm + column_offset_nm)[:, None]
        return np.round(np.linalg.solve(self.basis_nm, positions)).astype(np.int64).T

    def position_nm(self, indices: np.ndarray, column_offset_nm: Vector) -> np.ndarray:
        """Specimen coordinates (n, 2) of sites."""
        if self.origin_nm is None or self.basis_nm is None:
            raise ValueError("take() a frame before asking for positions")
        return (self.basis_nm @ indices.T.astype(float)).T + self.origin_nm + column_offset_nm


def _shortest(vector: Vector, basis: Vector) -> Vector:
    """The shortest vector equal to `vector` modulo the lattice."""
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=float)
    candidates = vector + steps @ basis.T
    return candidates[np.argmin((candidates**2).sum(axis=1))]
