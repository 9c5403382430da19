"""What an action spends, and the prices that make electrons and seconds one currency."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

from policies.errors import InvalidObservation

Seconds: TypeAlias = float  # the field's name is its unit

ELECTRONS_PER_PA_US = 6.241_509_074_460_763  # 1e-18 C over the exact elementary charge (SI 2019)


@dataclass(frozen=True, slots=True)
class Cost:
    """Electrons that reach the specimen and seconds of instrument time.

    >>> Cost(1e6, 2.0) + Cost(5e5, 0.5)
    Cost(electrons=1500000.0, seconds=2.5)
    """

    electrons: float = 0.0
    seconds: Seconds = 0.0

    def __post_init__(self) -> None:
        for name, value in (("electrons", self.electrons), ("seconds", self.seconds)):
            if not (isfinite(value) and value >= 0):
                raise InvalidObservation(f"cost of {value} {name} is not a number >= 0")

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.electrons + other.electrons, self.seconds + other.seconds)

    def minus(self, spent: Cost) -> Cost:
        """What is left of this budget after `spent`, never below nothing."""
        return Cost(max(self.electrons - spent.electrons, 0.0), max(self.seconds - spent.seconds, 0.0))

    def pays(self, price: Cost) -> bool:
        """Whether this budget covers `price` in both currencies."""
        return price.electrons <= self.electrons and price.seconds <= self.seconds

    def share_of(self, budget: Cost) -> float:
        """Electrons and seconds as fractions of `budget`, summed: the price used to compare actions.

        Both are divided by what is *left*, so the currency that runs out first becomes the dear one.
        """
        share = 0.0
        for spent, available in ((self.electrons, budget.electrons), (self.seconds, budget.seconds)):
            if spent > 0:
                share += spent / available if available > 0 else float("inf")
        return share

    def to_dict(self) -> dict[str, float]:
        """JSON form."""
        return {"electrons": self.electrons, "seconds": self.seconds}

    @classmethod
    def from_dict(cls, data: dict[str, float]) -> Cost:
        """Inverse of `to_dict`."""
        return cls(float(data["electrons"]), float(data["seconds"]))


def total(costs: list[Cost]) -> Cost:
    """Sum of costs."""
    return Cost(sum(c.electrons for c in costs), sum(c.seconds for c in costs))
