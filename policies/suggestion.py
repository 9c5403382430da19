"""What a policy proposes; its neighbour `observation` is what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies import cards
from policies.cost import Cost
from policies.dimensions import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One proposed measurement.

    `id` follows from policy, seed and ordinal (observations so far, and the place in the batch), so a decision made
    again has the same id. `prediction` maps an outcome to (mean, standard deviation). `reason` is data: a sentence
    under `why`, and the numbers behind it.
    """

    id: str
    point: Point
    policy: str = ""
    ordinal: int = 0
    prediction: dict[str, tuple[float, float]] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    reason: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "id": self.id,
            "policy": self.policy,
            "ordinal": self.ordinal,
            "point": dict(self.point),
            "prediction": {name: [mean, std] for name, (mean, std) in self.prediction.items()},
            "cost": self.cost.to_dict(),
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Suggestion:
        """Inverse of `to_dict`."""
        return cls(
            id=data["id"],
            policy=data["policy"],
            ordinal=int(data["ordinal"]),
            point=dict(data["point"]),
            prediction={name: (float(mean), float(std)) for name, (mean, std) in data["prediction"].items()},
            cost=Cost.from_dict(data["cost"]),
            reason=dict(data["reason"]),
        )

    def _repr_html_(self) -> str:
        numbers = {
            name: value for name, value in self.reason.items() if name != "why" and isinstance(value, int | float)
        }
        rows = [
            ("why", self.reason.get("why")),
            *self.point.items(),
            *((f"predicted {name}", f"{mean:.4g} ± {std:.2g}") for name, (mean, std) in self.prediction.items()),
            ("cost", f"{self.cost.electrons:.3g} electrons, {self.cost.seconds:.3g} s"),
            *numbers.items(),
        ]
        return cards.card(f"Suggestion {self.id}", f"by {self.policy}", cards.table(("", ""), rows))


def suggestion_id(policy: str, seed: int, ordinal: int, place: int = 0) -> str:
    """Deterministic id; `place` is the position in a batch asked for at once.

    >>> suggestion_id("census", 7, 12), suggestion_id("census", 7, 12, 1)
    ('census-7-0012', 'census-7-0012.1')
    """
    return f"{policy}-{seed}-{ordinal:04d}" + (f".{place}" if place else "")
