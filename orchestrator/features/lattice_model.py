"""The lattice believed: the forward model as features see it, its primitive cell, its symmetries, its Fourier terms.

A simulator's `LatticeImages` fulfils `LatticeModel`; so does anything with these four names. Neighbours: `lattice`
finds the lattice in a frame, `cell_fit` decides how the cell lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

from instruments.optics import Coherence, Optics

_SAME_PLACE_NM = 2e-3
_SAME_METRIC = 2e-3


class ModelColumn(Protocol):
    """Atoms that share a place in projection."""

    @property
    def name(self) -> str:
        """As "Se2": symbols with their count."""
        ...

    @property
    def x_nm(self) -> float:
        """Place in the cell."""
        ...

    @property
    def y_nm(self) -> float:
        """Place in the cell."""
        ...


class ModelDefect(Protocol):
    """A changed column: which, and what it then holds."""

    @property
    def column(self) -> str:
        """Name of the column it sits in."""
        ...

    @property
    def becomes(self) -> tuple[str, ...]:
        """Symbols left in the column."""
        ...


class ModelDifference(Protocol):
    """(n, n), n odd, fraction of the beam, defect minus perfect, site in the central pixel; one pixel a `step_nm`."""

    @property
    def values(self) -> np.ndarray:
        """(n, n) fractions of the beam."""
        ...

    @property
    def step_nm(self) -> float:
        """Between pixels."""
        ...


class LatticeModel(Protocol):
    """Periodic image of an orthogonal cell, and what a changed column adds to it; fractions of the beam."""

    @property
    def cell_width_nm(self) -> float:
        """Along x, columns of the image."""
        ...

    @property
    def cell_height_nm(self) -> float:
        """Along y, rows of the image."""
        ...

    @property
    def columns(self) -> Sequence[ModelColumn]:
        """All columns of the cell."""
        ...

    @property
    def defects(self) -> Mapping[str, ModelDefect]:
        """Species by name."""
        ...

    def cell_image(self, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence) -> np.ndarray:
        """(rows, columns); pixel (r, c) at (c * cell_width_nm / columns, r * cell_height_nm / rows)."""
        ...

    def difference_image(
        self, species: str, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence
    ) -> ModelDifference:
        """What one defect of that species adds."""
        ...


@dataclass(frozen=True, slots=True)
class PrimitiveCell:
    """The smallest cell of a model's lattice.

    `vectors_nm` (2, 2): columns are the primitive vectors, the first the shortest nearest to +x, the second
    anticlockwise (from +x towards +y) of it. `column_names` are the distinct columns in the model's order,
    `fractions` (k, 2) their places in primitive coordinates *relative to the model's first column*, which is the
    origin of every lattice reported. `orientations`: integer matrices (2, 2), one list per inequivalent way to lay
    the structure on its lattice, each list the rotations that leave the structure as it is.
    """

    vectors_nm: np.ndarray
    origin_nm: np.ndarray
    column_names: tuple[str, ...]
    site_columns: np.ndarray
    fractions: np.ndarray
    orientations: tuple[tuple[np.ndarray, ...], ...]

    @classmethod
    def of(cls, model: LatticeModel) -> PrimitiveCell:
        """Find it from the columns of the orthogonal cell."""
        places = np.array([(column.x_nm, column.y_nm) for column in model.columns])
        names = [column.name for column in model.columns]
        cell = np.diag([model.cell_width_nm, model.cell_height_nm])
        vectors = _primitive_vectors(places, names, cell)
        distinct = tuple(dict.fromkeys(names))
        fractions, kinds = _distinct_sites(np.linalg.solve(vectors, (places - places[0]).T).T, names, distinct, vectors)
        orientations = _orientations(vectors, fractions, kinds)
        return cls(vectors, places[0], distinct, kinds, fractions, orientations)

    @property
    def area_nm2(self) -> float:
        """Area of the primitive cell."""
        return float(abs(np.linalg.det(self.vectors_nm)))


def _primitive_vectors(places: np.ndarray, names: list[str], cell: np.ndarray) -> np.ndarray:
    same = [row for row, name in enumerate(names) if name == names[0]]
    steps = [places[row] - places[same[0]] for row in same]
    translations = [step for step in steps if _maps_onto(places + step, places, names, cell)]
    wide = [step + cell @ np.array(shift) for step in translations for shift in product((-2, -1, 0, 1, 2), repeat=2)]
    found = np.array([step for step in wide if np.linalg.norm(step) > _SAME_PLACE_NM])
    lengths = np.linalg.norm(found, axis=1)
    shortest = found[lengths < lengths.min() + _SAME_PLACE_NM]
    first = shortest[np.argmin(np.abs(np.arctan2(shortest[:, 1], shortest[:, 0])))]
    turned = first[0] * found[:, 1] - first[1] * found[:, 0]
    left = found[turned > _SAME_PLACE_NM * lengths.min()]
    lengths = np.linalg.norm(left, axis=1)
    shortest = left[lengths < lengths.min() + _SAME_PLACE_NM]
    second = shortest[np.argmax(shortest @ first)]
    return np.stack([first, second], axis=1)


def _maps_onto(moved: np.ndarray, places: np.ndarray, names: list[str], cell: np.ndarray) -> bool:
    return all(
        any(
            name == other and _near(place - target, cell)
            for target, other in zip(places, names, strict=True)
        )
        for place, name in zip(moved, names, strict=True)
    )  # fmt: skip


def _near(offset: np.ndarray, cell: np.ndarray) -> bool:
    cycles = np.linalg.solve(cell, offset)
    return bool(np.linalg.norm(cell @ (cycles - np.round(cycles))) < _SAME_PLACE_NM)


def _distinct_sites(
    cycles: np.ndarray, names: list[str], distinct: tuple[str, ...], vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    fractions: list[np.ndarray] = []
    kinds: list[int] = []
    for place, name in zip(cycles, names, strict=True):
        if not any(_near(vectors @ (place - known), vectors) for known in fractions):
            fractions.append(place)
            kinds.append(distinct.index(name))
    return np.array(fractions), np.array(kinds)


def _orientations(vectors: np.ndarray, fractions: np.ndarray, kinds: np.ndarray) -> tuple[tuple[np.ndarray, ...], ...]:
    metric = vectors.T @ vectors
    turns: list[np.ndarray] = []
    for entries in product((-1, 0, 1), repeat=4):
        turn = np.array(entries, dtype=float).reshape(2, 2)
        kept = np.abs(turn.T @ metric @ turn - metric).max() < _SAME_METRIC * metric.max()
        if kept and np.linalg.det(turn) > 0.5:
            turns.append(turn)
    turns.sort(key=lambda turn: -float(np.trace(turn)))  # the identity first
    groups: list[list[np.ndarray]] = []
    for turn in turns:
        for group in groups:
            if _keeps_structure(np.linalg.inv(group[0]) @ turn, vectors, fractions, kinds):
                group.append(turn)
                break
        else:
            groups.append([turn])
    return tuple(tuple(group) for group in groups)


def _keeps_structure(turn: np.ndarray, vectors: np.ndarray, fractions: np.ndarray, kinds: np.ndarray) -> bool:
    turned = fractions @ turn.T
    names = [str(kind) for kind in kinds]
    places = fractions @ vectors.T
    starts = [row for row in range(len(kinds)) if kinds[row] == kinds[0]]
    return any(_maps_onto((turned - turned[0] + fractions[row]) @ vectors.T, places, names, vectors) for row in starts)


@dataclass(frozen=True, slots=True)
class FourierTerms:
    """Which Fourier terms of the cell are kept: integer indices (G, 2) in the primitive reciprocal basis.

    Half a plane (the image is real), the constant first. `q_per_nm` (G, 2) are their spatial frequencies in the
    undistorted crystal frame.
    """

    indices: np.ndarray
    q_per_nm: np.ndarray

    @classmethod
    def of(
        cls, cell: PrimitiveCell, images: Sequence[np.ndarray], model: LatticeModel, *, floor: float
    ) -> FourierTerms:
        """The terms within the circle that holds every amplitude above `floor` times the mean, of any image."""
        reciprocal = np.linalg.inv(cell.vectors_nm)  # rows: q = n @ reciprocal
        reach = 12
        numbers = np.array([(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)])
        q = numbers @ reciprocal
        strong = np.zeros(len(numbers))
        for image in images:
            values = fourier_terms(image, q, model)
            strong = np.maximum(strong, np.abs(values) / max(abs(values[len(values) // 2]), 1e-12))
        radius = np.linalg.norm(q, axis=1)
        edge = radius[strong > floor].max() * 1.001
        half = (numbers[:, 0] > 0) | ((numbers[:, 0] == 0) & (numbers[:, 1] >= 0))
        keep = half & (radius <= edge)
        order = np.argsort(radius[keep], kind="stable")
        return cls(numbers[keep][order].astype(float), q[keep][order])


def fourier_terms(image: np.ndarray, q_per_nm: np.ndarray, model: LatticeModel) -> np.ndarray:
    """Fourier terms (G,) of a cell image at the frequencies, about the model's first column as the origin.

    image(r) = sum over all q (both halves) of term * exp(2 pi i q.(r - origin)).
    """
    spectrum = np.fft.fft2(image) / image.size
    rows, columns = image.shape
    h = np.round(q_per_nm[:, 0] * model.cell_width_nm).astype(int)
    k = np.round(q_per_nm[:, 1] * model.cell_height_nm).astype(int)
    inside = (np.abs(h) < columns / 2) & (np.abs(k) < rows / 2)
    values = np.where(inside, spectrum[k % rows, h % columns], 0)
    first = model.columns[0]
    return values * np.exp(2j * np.pi * (q_per_nm @ np.array([first.x_nm, first.y_nm])))
