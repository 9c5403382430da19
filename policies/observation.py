"""What came of a suggestion, as a policy sees it; arrays travel through JSON as compressed bytes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np

from policies import cards
from policies.cost import Cost
from policies.dimensions import Point
from policies.errors import InvalidObservation

Status = Literal["done", "refused", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Outcomes of one suggestion with their standard deviations, arrays, and what it cost.

    `status` is `done`, or says why there are no outcomes: `refused` (nothing spent), `failed` (spent, frame lost),
    `unknown` (no answer: counts as spent).
    """

    suggestion_id: str
    point: Point
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    status: Status = "done"

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise InvalidObservation(f"status {self.status!r} is none of {', '.join(get_args(Status))}")
        if self.status != "done" and self.outcomes:
            raise InvalidObservation(f"an observation that is {self.status} has no outcomes, not {list(self.outcomes)}")
        for name, (value, std) in self.outcomes.items():
            if not isfinite(value) or not (isfinite(std) and std >= 0):
                raise InvalidObservation(f"outcome {name} = {value} with standard deviation {std} is not usable")

    def value(self, name: str) -> float | None:
        """Value of an outcome, None where it was not measured."""
        return self.outcomes[name][0] if name in self.outcomes else None

    def to_dict(self, *, with_arrays: bool = True) -> dict[str, Any]:
        """JSON form; arrays as base64 of zlib-compressed little-endian bytes."""
        arrays = {name: _pack(array) for name, array in self.arrays.items()} if with_arrays else {}
        return {
            "suggestion_id": self.suggestion_id,
            "point": dict(self.point),
            "outcomes": {name: [value, std] for name, (value, std) in self.outcomes.items()},
            "arrays": arrays,
            "cost": self.cost.to_dict(),
            "status": self.status,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Observation:
        """Inverse of `to_dict`."""
        return cls(
            suggestion_id=data["suggestion_id"],
            point=dict(data["point"]),
            outcomes={name: (float(value), float(std)) for name, (value, std) in data["outcomes"].items()},
            arrays={name: _unpack(packed) for name, packed in data["arrays"].items()},
            cost=Cost.from_dict(data["cost"]),
            status=data["status"],
        )

    def _repr_html_(self) -> str:
        rows = [
            *self.point.items(),
            *((f"outcome {name}", f"{value:.4g} ± {std:.2g}") for name, (value, std) in self.outcomes.items()),
            *((f"array {name}", f"{' x '.join(map(str, a.shape))} {a.dtype}") for name, a in self.arrays.items()),
            ("cost", f"{self.cost.electrons:.3g} electrons, {self.cost.seconds:.3g} s"),
        ]
        return cards.card(f"Observation of {self.suggestion_id}", self.status, cards.table(("", ""), rows))


def _pack(array: np.ndarray) -> dict[str, Any]:
    plain = np.ascontiguousarray(array)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    packed = base64.b64encode(zlib.compress(plain.tobytes(), 1)).decode("ascii")
    return {"dtype": plain.dtype.str, "shape": list(array.shape), "zlib": packed}


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
    raw = zlib.decompress(base64.b64decode(packed["zlib"]))
    return np.frombuffer(raw, dtype=np.dtype(packed["dtype"])).reshape(packed["shape"]).copy()
