"""The three kinds of dimension of a search space; `space` puts them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, isfinite
from typing import TypeAlias

import numpy as np

from policies.errors import EmptySpace, InvalidSpace

Value: TypeAlias = float | int | str
Point: TypeAlias = dict[str, Value]
Condition: TypeAlias = Mapping[str, Sequence[Value]]

UNIT_SUFFIXES = (
    "nm", "mrad", "deg", "ev", "us", "s", "pa", "e_per_a2", "e_per_a2_s", "e_per_px", "mm", "px", "count", "fraction",
)  # fmt: skip
_ON_BOUND = 1e-9  # rounding slack, in fractions of the range


def unit_of(name: str) -> str | None:
    """Unit suffix that a name carries (the longest), or None.

    >>> unit_of("dose_e_per_a2"), unit_of("x_nm"), unit_of("gain")
    ('e_per_a2', 'nm', None)
    """
    fitting = [suffix for suffix in UNIT_SUFFIXES if name.endswith(f"_{suffix}")]
    return max(fitting, key=len, default=None)


def _check_bounds(low: float, high: float) -> None:
    if not (isfinite(low) and isfinite(high)):
        raise InvalidSpace(f"bounds {low} and {high} must be finite numbers")
    if low > high:
        raise InvalidSpace(f"low {low:g} lies above high {high:g}; exchange them")


@dataclass(frozen=True, slots=True)
class Continuous:
    """A real number between `low` and `high` (both included), in steps of the actuator if `resolution` is given."""

    low: float
    high: float
    resolution: float | None = None
    when: Condition = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)
        if self.low == self.high:
            raise EmptySpace(f"low and high are both {self.low:g}: nothing to choose; name it a choice of one value")
        if self.resolution is None:
            return
        if not (isfinite(self.resolution) and self.resolution > 0):
            raise InvalidSpace(f"resolution {self.resolution} must be a number above 0")
        if self.resolution > self.high - self.low:
            raise InvalidSpace(
                f"resolution {self.resolution:g} is larger than the range {self.high - self.low:g}; make it finer"
            )

    @property
    def width_count(self) -> int:
        """Columns in the encoding."""
        return 1

    def sample(self, rng: np.random.Generator) -> float:
        """A uniform draw, on the actuator's steps."""
        return self.round(float(rng.uniform(self.low, self.high)))

    def round(self, value: Value) -> float:
        """The nearest step of the actuator counted from `low`; bounds are kept only for a value within them."""
        number = float(value)
        if self.resolution is None:
            return number
        steps = round((number - self.low) / self.resolution)
        if number <= self.high:
            steps = min(steps, floor((self.high - self.low) / self.resolution * (1 + 1e-12) + _ON_BOUND))
        return float(f"{self.low + steps * self.resolution:.12g}")

    def violation(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, str) or not isfinite(value):
            return f"{value!r} is not a finite number"
        slack = _ON_BOUND * (self.high - self.low)
        if not self.low - slack <= value <= self.high + slack:
            return f"{value:g} is outside {self.low:g} to {self.high:g}"
        return None

    def encode(self, value: Value) -> list[float]:
        """Position between the bounds, 0 to 1."""
        return [(float(value) - self.low) / (self.high - self.low)]

    def decode(self, code: np.ndarray) -> float:
        """Inverse of `encode`, held within the bounds and rounded to the actuator."""
        inside = min(max(float(code[0]), 0.0), 1.0)
        return self.round(self.low + inside * (self.high - self.low))

    @property
    def neutral(self) -> list[float]:
        """Encoding of a dimension that does not apply."""
        return [0.5]


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number between `low` and `high`, both included."""

    low: int
    high: int
    when: Condition = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)
        if self.low != int(self.low) or self.high != int(self.high):
            raise InvalidSpace(f"bounds {self.low} and {self.high} of an integer must be whole numbers")
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    @property
    def width_count(self) -> int:
        """Columns in the encoding."""
        return 1

    def sample(self, rng: np.random.Generator) -> int:
        """A uniform draw."""
        return int(rng.integers(self.low, self.high, endpoint=True))

    def round(self, value: Value) -> int:
        """The nearest whole number."""
        return round(float(value))

    def violation(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, str) or not isfinite(value) or value != int(value):
            return f"{value!r} is not a whole number"
        if not self.low <= value <= self.high:
            return f"{value} is outside {self.low} to {self.high}"
        return None

    def encode(self, value: Value) -> list[float]:
        """Position between the bounds, 0 to 1 (0.5 where there is one value)."""
        return [(float(value) - self.low) / (self.high - self.low)] if self.high > self.low else [0.5]

    def decode(self, code: np.ndarray) -> int:
        """Inverse of `encode`, held within the bounds."""
        return self.low + round(min(max(float(code[0]), 0.0), 1.0) * (self.high - self.low))

    @property
    def neutral(self) -> list[float]:
        """Encoding of a dimension that does not apply."""
        return [0.5]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several named or numbered values without an order."""

    choices: tuple[Value, ...]
    when: Condition = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise EmptySpace("a choice needs at least one value")
        if len(set(self.choices)) != len(self.choices):
            raise InvalidSpace(f"the values of a choice must differ: {list(self.choices)}")

    @property
    def width_count(self) -> int:
        """Columns in the encoding."""
        return len(self.choices)

    def sample(self, rng: np.random.Generator) -> Value:
        """A uniform draw."""
        return self.choices[int(rng.integers(len(self.choices)))]

    def round(self, value: Value) -> Value:
        """The value itself."""
        return value

    def violation(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        return None if value in self.choices else f"{value!r} is none of {list(self.choices)}"

    def encode(self, value: Value) -> list[float]:
        """One-hot."""
        return [1.0 if value == choice else 0.0 for choice in self.choices]

    def decode(self, code: np.ndarray) -> Value:
        """The choice with the largest entry."""
        return self.choices[int(np.argmax(code))]

    @property
    def neutral(self) -> list[float]:
        """Encoding of a dimension that does not apply."""
        return [0.0] * len(self.choices)


Dimension: TypeAlias = Continuous | Integer | Choice
