"""The search space: named, bounded, typed numbers with units; `dimensions` holds the kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np

from policies import cards
from policies.dimensions import UNIT_SUFFIXES, Choice, Continuous, Dimension, Integer, Point, unit_of
from policies.errors import EmptySpace, InvalidSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KEYS = {
    "continuous": {"low", "high", "resolution", "when", "kind"},
    "integer": {"low", "high", "when", "kind"},
    "choice": {"choices", "when", "kind"},
}


class SearchSpace:
    """Dimensions by name; a point is a dict of the dimensions that apply to it.

    >>> space = SearchSpace({"x_nm": Continuous(-100, 100, resolution=0.1), "mode": Choice(("maadf", "haadf"))})
    >>> space.round({"x_nm": 3.14159, "mode": "haadf"})
    {'x_nm': 3.1, 'mode': 'haadf'}
    >>> space.violation({"x_nm": 120.0, "mode": "haadf"})
    'x_nm: 120 is outside -100 to 100 (nm)'
    """

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        if not dimensions:
            raise EmptySpace("the search space has no dimension; name at least one")
        for name, dimension in dimensions.items():
            if isinstance(dimension, Continuous) and unit_of(name) is None:
                raise InvalidSpace(
                    f"{name} carries no unit; end it in one of {', '.join('_' + s for s in UNIT_SUFFIXES)}"
                )
        self.dimensions: dict[str, Dimension] = dict(dimensions)
        self._order = _parents_first(self.dimensions)

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Any]]) -> SearchSpace:
        """Space from the plain form of an experiment file; unknown keys are refused.

        >>> SearchSpace.from_dict({"n_count": {"low": 1, "high": 5, "kind": "integer"}}).names
        ('n_count',)
        """
        dimensions: dict[str, Dimension] = {}
        for name, entry in data.items():
            try:
                dimensions[name] = _dimension(entry)
            except EmptySpace as error:
                raise EmptySpace(f"{name}: {error}") from error
            except InvalidSpace as error:
                raise InvalidSpace(f"{name}: {error}") from error
        return cls(dimensions)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Inverse of `from_dict`."""
        return {name: _entry(dimension) for name, dimension in self.dimensions.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """All dimensions, in their declared order."""
        return tuple(self.dimensions)

    @property
    def encoded_count(self) -> int:
        """Columns of `encode`."""
        return sum(dimension.width_count for dimension in self.dimensions.values())

    @property
    def category_columns(self) -> tuple[int, ...]:
        """Columns of `encode` that belong to choices."""
        columns: list[int] = []
        for dimension, start in zip(self.dimensions.values(), self._starts(), strict=True):
            if isinstance(dimension, Choice):
                columns.extend(range(start, start + dimension.width_count))
        return tuple(columns)

    def active(self, point: Mapping[str, Any]) -> tuple[str, ...]:
        """Names that apply to a point, in declared order, judged by the choices it makes."""
        applying: set[str] = set()
        for name in self._order:
            when = self.dimensions[name].when
            if all(parent in applying and point.get(parent) in allowed for parent, allowed in when.items()):
                applying.add(name)
        return tuple(name for name in self.dimensions if name in applying)

    def violation(self, point: Mapping[str, Any]) -> str | None:
        """Why a point is not of this space, naming value, limit and unit; None if it is."""
        active = self.active(point)
        missing = [name for name in active if name not in point]
        if missing:
            return f"{', '.join(missing)} missing"
        extra = [name for name in point if name not in active]
        if extra:
            return f"{', '.join(extra)} does not apply here; this space has {', '.join(active)}"
        for name in active:
            wrong = self.dimensions[name].violation(point[name])
            if wrong is not None:
                unit = unit_of(name)
                return f"{name}: {wrong} ({unit})" if unit else f"{name}: {wrong}"
        return None

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether the point gives every dimension that applies, no other, and all within bounds."""
        return self.violation(point) is None

    def project(self, point: Mapping[str, Any]) -> Point:
        """The part of a point that this space names (a policy may add keys of its own, such as `purpose`)."""
        return {name: point[name] for name in self.dimensions if name in point}

    def round(self, point: Mapping[str, Any]) -> Point:
        """The point on the actuators' steps; values out of bounds stay out."""
        return {name: self.dimensions[name].round(point[name]) for name in self.active(point)}

    def sample(self, rng: np.random.Generator) -> Point:
        """A uniform draw of every dimension that applies."""
        return self._build(lambda name: self.dimensions[name].sample(rng))

    def encode(self, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """(n, d) float64 in 0 to 1 for Gaussian processes: choices one-hot, what does not apply neutral."""
        return np.array([self._code(point) for point in points], dtype=np.float64).reshape(-1, self.encoded_count)

    def decode(self, codes: np.ndarray) -> list[Point]:
        """Points of an (n, d) array: the nearest choice, the nearest step, within bounds."""
        return [self._point(code) for code in np.atleast_2d(np.asarray(codes, dtype=np.float64))]

    def from_unit_cube(self, row: np.ndarray) -> Point:
        """Point of one number in [0, 1) per dimension, for space-filling designs."""
        position = dict(zip(self.dimensions, row, strict=True))

        def value(name: str) -> Any:
            dimension, at = self.dimensions[name], float(position[name])
            if isinstance(dimension, Choice):
                return dimension.choices[min(int(at * len(dimension.choices)), len(dimension.choices) - 1)]
            if isinstance(dimension, Integer):
                return dimension.low + min(
                    int(at * (dimension.high - dimension.low + 1)), dimension.high - dimension.low
                )
            return dimension.decode(np.array([at]))

        return self._build(value)

    def plot(self, points: Sequence[Mapping[str, Any]] = (), axes: Axes | None = None) -> Axes:
        """Draw the area of x_nm and y_nm and the fields of some points in it; needs matplotlib."""
        from policies import plotting

        return plotting.draw_points(self, points, axes)

    def _repr_html_(self) -> str:
        rows: list[tuple[Any, ...]] = []
        for name, dimension in self.dimensions.items():
            when = cards.words({parent: list(allowed) for parent, allowed in dimension.when.items()})
            if isinstance(dimension, Choice):
                rows.append((name, "choice", cards.words(list(dimension.choices)), "", when))
            else:
                step = dimension.resolution if isinstance(dimension, Continuous) else 1
                kind = "number" if isinstance(dimension, Continuous) else "whole number"
                rows.append((name, kind, f"{dimension.low:g} to {dimension.high:g}", step, when))
        header = ("name, ending in its unit", "kind", "values", "step", "only when")
        return cards.card("Search space", f"{len(rows)} dimensions", cards.table(header, rows))

    def _build(self, value: Callable[[str], Any]) -> Point:
        """Point whose dimensions are asked for parents first; every `value` is drawn, so draws keep their place."""
        drawn = {name: value(name) for name in self._order}
        return {name: drawn[name] for name in self.active(drawn)}

    def _starts(self) -> list[int]:
        widths = [dimension.width_count for dimension in self.dimensions.values()]
        return [sum(widths[:i]) for i in range(len(widths))]

    def _code(self, point: Mapping[str, Any]) -> list[float]:
        active = set(self.active(point))
        code: list[float] = []
        for name, dimension in self.dimensions.items():
            code += dimension.encode(point[name]) if name in active else dimension.neutral
        return code

    def _point(self, code: np.ndarray) -> Point:
        starts = dict(zip(self.dimensions, self._starts(), strict=True))

        def value(name: str) -> Any:
            dimension = self.dimensions[name]
            return dimension.decode(code[starts[name] : starts[name] + dimension.width_count])

        return self._build(value)


def _parents_first(dimensions: Mapping[str, Dimension]) -> tuple[str, ...]:
    for name, dimension in dimensions.items():
        for parent, allowed in dimension.when.items():
            _check_condition(name, parent, allowed, dimensions)
    try:
        return tuple(TopologicalSorter({n: set(d.when) for n, d in dimensions.items()}).static_order())
    except CycleError as error:
        raise InvalidSpace(f"conditions go round in a circle: {' -> '.join(error.args[1])}") from error


def _check_condition(name: str, parent: str, allowed: Any, dimensions: Mapping[str, Dimension]) -> None:
    of = dimensions.get(parent)
    if not isinstance(of, Choice):
        raise InvalidSpace(f"{name} applies when {parent} is {allowed}, but {parent} is no choice of this space")
    if isinstance(allowed, str) or not set(allowed) <= set(of.choices):
        raise InvalidSpace(f"{name} applies when {parent} is {allowed}; give a list of {list(of.choices)}")


def _dimension(entry: Mapping[str, Any]) -> Dimension:
    kind = entry.get("kind", "choice" if "choices" in entry else "continuous")
    if kind not in _KEYS:
        raise InvalidSpace(f"kind {kind!r} is none of {', '.join(_KEYS)}")
    unknown = set(entry) - _KEYS[kind]
    if unknown:
        raise InvalidSpace(f"unknown keys {sorted(unknown)}; a {kind} dimension takes {sorted(_KEYS[kind])}")
    when = dict(entry.get("when", {}))
    if kind == "choice":
        choices = entry.get("choices", ())
        if isinstance(choices, str):
            raise InvalidSpace(f"choices must be a list, not {choices!r}")
        return Choice(tuple(choices), when)
    numbers = {key: _number(key, entry.get(key)) for key in ("low", "high")}
    if kind == "integer":
        return Integer(numbers["low"], numbers["high"], when)  # pyright: ignore[reportArgumentType]  checked inside
    resolution = entry.get("resolution")
    return Continuous(
        numbers["low"], numbers["high"], None if resolution is None else _number("resolution", resolution), when
    )


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSpace(f"{key} must be a number, not {value!r}")
    return value


def _entry(dimension: Dimension) -> dict[str, Any]:
    when = {"when": {k: list(v) for k, v in dimension.when.items()}} if dimension.when else {}
    if isinstance(dimension, Choice):
        return {"choices": list(dimension.choices), **when}
    if isinstance(dimension, Integer):
        return {"kind": "integer", "low": dimension.low, "high": dimension.high, **when}
    step = {} if dimension.resolution is None else {"resolution": dimension.resolution}
    return {"low": dimension.low, "high": dimension.high, **step, **when}
