"""Which lattice site of the specimen a site of a frame is, while the specimen drifts.

Every frame sees the lattice phase, so the drift is known modulo a lattice vector. A Kalman filter follows drift, its
velocity and the basis itself (a basis off by 1e-3 is off by half a column 150 nm away). Neighbour: `site_evidence`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Vector: TypeAlias = np.ndarray

_ORIGIN_STD_NM = 0.008
_SPEED_STD_NM_PER_S = 0.02
_SPEED_WALK = 0.002  # nm/s per square root of a second
_SHAKE_STD_NM = 0.002
_FIRST_BASIS_STD_NM = 4e-4
_WIDE_BASIS_STD_NM = 1e-4
WIDE_NM = 5.0
AMBIGUOUS_STD_NM = 0.09


@dataclass
class LatticeRegister:
    """Index (i, j) of every site in one specimen-fixed lattice, and the drift of each frame.

    `basis_nm` columns are the two primitive vectors. The specimen frame is fixed by the first frame taken in:
    its drift is zero by definition. `drift_nm` is nominal minus specimen coordinate. `history` holds (time in s,
    drift x, drift y, standard deviation of the prediction in nm) of every frame.
    """

    origin_nm: Vector | None = None
    history: list[tuple[float, float, float, float]] = field(default_factory=list[tuple[float, float, float, float]])

    def __post_init__(self) -> None:
        self._state = np.zeros(8)  # drift (2), velocity (2), basis row by row (4)
        self._covariance = np.zeros((8, 8))

    @property
    def basis_nm(self) -> Vector | None:
        """(2, 2) columns the primitive vectors, as known now; None before the first frame."""
        return self._state[4:].reshape(2, 2).copy() if self.origin_nm is not None else None

    @property
    def drift_nm(self) -> tuple[float, float]:
        """Drift (x, y) at the last frame taken in; zero before the first."""
        return (self.history[-1][1], self.history[-1][2]) if self.history else (0.0, 0.0)

    def take(
        self,
        time_s: float,
        lattice_origin_nm: Vector,
        lattice_basis_nm: Vector,
        width_nm: float,
        *,
        accept_risk: bool = False,
    ) -> Vector | None:
        """The drift (x, y) in nm of a frame of this width with this lattice in nominal coordinates.

        `lattice_origin_nm` is any lattice point in the frame. None, and nothing is taken in, where the specimen may
        have slipped by a lattice vector since the last frame; `accept_risk` then takes the likeliest drift.
        """
        origin, basis = np.asarray(lattice_origin_nm, dtype=float), np.asarray(lattice_basis_nm, dtype=float)
        if self.origin_nm is None:
            self._start(time_s, origin, basis)
            return np.zeros(2)
        state, covariance = self._predict(time_s)
        if width_nm >= WIDE_NM:
            state, covariance = _update(state, covariance, _BASIS, basis.ravel() - state[4:], _WIDE_BASIS_STD_NM)
        cells = np.round(np.linalg.solve(state[4:].reshape(2, 2), origin - self.origin_nm - state[:2]))
        seen = np.zeros((2, 8))
        seen[0, 0] = seen[1, 1] = 1.0
        seen[0, 4:6] = seen[1, 6:8] = cells
        expected_std_nm = float(np.sqrt(np.linalg.eigvalsh(seen @ covariance @ seen.T).max()))
        innovation = origin - self.origin_nm - seen @ state
        innovation = _shortest(innovation, state[4:].reshape(2, 2))
        if expected_std_nm > AMBIGUOUS_STD_NM and not accept_risk:
            return None
        self._state, self._covariance = _update(state, covariance, seen, innovation, _ORIGIN_STD_NM)
        self.history.append((time_s, float(self._state[0]), float(self._state[1]), expected_std_nm))
        return self._state[:2].copy()

    def _start(self, time_s: float, origin: Vector, basis: Vector) -> None:
        self.origin_nm = origin
        self._state[4:] = basis.ravel()
        variances = [_ORIGIN_STD_NM**2] * 2 + [_SPEED_STD_NM_PER_S**2] * 2 + [_FIRST_BASIS_STD_NM**2] * 4
        self._covariance = np.diag(variances)
        self.history.append((time_s, 0.0, 0.0, 0.0))

    def _predict(self, time_s: float) -> tuple[Vector, np.ndarray]:
        """State and covariance at a later time: constant velocity that wanders."""
        step_s = time_s - self.history[-1][0]
        move = np.eye(8)
        move[0, 2] = move[1, 3] = step_s
        walk = _SPEED_WALK**2 * step_s
        noise = np.zeros((8, 8))
        for axis in (0, 1):
            noise[axis, axis] = walk * step_s**2 / 3 + _SHAKE_STD_NM**2
            noise[axis, axis + 2] = noise[axis + 2, axis] = walk * step_s / 2
            noise[axis + 2, axis + 2] = walk
        return move @ self._state, move @ self._covariance @ move.T + noise

    def index(self, x_nm: np.ndarray, y_nm: np.ndarray, drift_nm: Vector, column_offset_nm: Vector) -> np.ndarray:
        """Lattice indices (n, 2) of sites at nominal positions; `column_offset_nm`: the column's place in the cell."""
        origin, basis = self._known()
        positions = np.stack([x_nm, y_nm]) - (origin + drift_nm + column_offset_nm)[:, None]
        return np.round(np.linalg.solve(basis, positions)).astype(np.int64).T

    def position_nm(self, indices: np.ndarray, column_offset_nm: Vector) -> np.ndarray:
        """Specimen coordinates (n, 2) of sites."""
        origin, basis = self._known()
        return (basis @ indices.T.astype(float)).T + origin + column_offset_nm

    def _known(self) -> tuple[Vector, np.ndarray]:
        basis = self.basis_nm
        if self.origin_nm is None or basis is None:
            raise ValueError("take() a frame before asking where sites are")
        return self.origin_nm, basis


_BASIS = np.hstack([np.zeros((4, 4)), np.eye(4)])


def _update(
    state: Vector, covariance: np.ndarray, seen: np.ndarray, innovation: Vector, std_nm: float
) -> tuple[Vector, np.ndarray]:
    """One Kalman update with independent measurements of equal standard deviation."""
    spread = seen @ covariance @ seen.T + std_nm**2 * np.eye(len(innovation))
    gain = np.linalg.solve(spread, seen @ covariance).T
    covariance = covariance - gain @ seen @ covariance
    return state + gain @ innovation, (covariance + covariance.T) / 2


def _shortest(vector: Vector, basis: Vector) -> Vector:
    """The shortest vector equal to `vector` modulo the lattice."""
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=float)
    candidates = vector + steps @ basis.T
    return candidates[np.argmin((candidates**2).sum(axis=1))]
