"""Gaussian-process regression on a fixed grid, one observation at a time: a growing Cholesky factor and its solves.

Adding an observation to n others on m grid cells costs O(n (n + m)); the posterior is then at hand. In float64 it
equals a fresh factorisation to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy.linalg import cholesky, solve_triangular

CovarianceRow: TypeAlias = Callable[[int], np.ndarray]

_FIRST_CAPACITY = 64


class IncrementalGP:
    """Zero-mean process with the prior covariance of the grid cells given as a function of cell indices.

    `covariance_row(i)` gives (m,) prior covariances of cell i with every cell; `prior_variance` (m,).
    """

    def __init__(self, covariance_row: CovarianceRow, prior_variance: np.ndarray) -> None:
        self._row = covariance_row
        self.cells: list[int] = []
        self._lower = np.zeros((_FIRST_CAPACITY, _FIRST_CAPACITY))
        self._solved = np.zeros((_FIRST_CAPACITY, len(prior_variance)))  # L^-1 K(x, grid)
        self._weights = np.zeros(_FIRST_CAPACITY)  # L^-1 y
        self.mean = np.zeros(len(prior_variance))
        self.variance = prior_variance.astype(np.float64).copy()
        self.log_evidence = 0.0

    def start(self, cells: np.ndarray, values: np.ndarray, noise_variance: np.ndarray, rows: np.ndarray) -> None:
        """Take in many values at once, before any other; `rows` (n, m) are their prior covariances with every cell."""
        n = len(cells)
        while len(self._weights) < n:
            self._grow()
        lower = cholesky(rows[:, cells] + np.diag(noise_variance), lower=True)
        solved = solve_triangular(lower, np.column_stack([rows, values]), lower=True)
        self._lower[:n, :n], self._solved[:n], self._weights[:n] = lower, solved[:, :-1], solved[:, -1]
        self.mean = self._weights[:n] @ self._solved[:n]
        self.variance = np.maximum(self.variance - np.einsum("ij,ij->j", solved[:, :-1], solved[:, :-1]), 1e-15)
        fit = -0.5 * float(self._weights[:n] @ self._weights[:n])
        self.log_evidence = fit - float(np.log(np.diag(lower)).sum()) - 0.5 * n * np.log(2 * np.pi)
        self.cells = [int(cell) for cell in cells]

    def add(self, cell: int, value: float, noise_variance: float) -> None:
        """Take in one value at a grid cell."""
        n = len(self.cells)
        if n == len(self._weights):
            self._grow()
        row = self._row(cell)
        factor = self._solved[:n, cell]
        pivot = row[cell] + noise_variance - factor @ factor
        pivot = np.sqrt(max(pivot, 1e-12))
        self._lower[n, :n] = factor
        self._lower[n, n] = pivot
        solved = (row - factor @ self._solved[:n]) / pivot
        weight = (value - factor @ self._weights[:n]) / pivot
        self._solved[n], self._weights[n] = solved, weight
        self.mean = self.mean + solved * weight
        self.variance = np.maximum(self.variance - solved**2, 1e-15)
        self.log_evidence += -0.5 * weight**2 - np.log(pivot) - 0.5 * np.log(2 * np.pi)
        self.cells.append(cell)

    def covariance_with(self, prior: np.ndarray, cells: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(len(cells), len(others)) posterior covariance, given the prior one."""
        n = len(self.cells)
        return prior - self._solved[:n, cells].T @ self._solved[:n, others]

    def residual_weights(self) -> np.ndarray:
        """(n,) K^-1 y, for checks."""
        n = len(self.cells)
        return solve_triangular(self._lower[:n, :n], self._weights[:n], lower=True, trans="T")

    def _grow(self) -> None:
        n = len(self._weights)
        self._lower = np.pad(self._lower, ((0, n), (0, n)))
        self._solved = np.pad(self._solved, ((0, n), (0, 0)))
        self._weights = np.pad(self._weights, (0, n))
