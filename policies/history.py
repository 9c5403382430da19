"""The one thing a policy remembers: its observations, and how to save and load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from policies.cost import Cost, total
from policies.errors import InvalidOption, StateMismatch
from policies.observation import Observation
from policies.space import SearchSpace

_FORMAT = 1


class History:
    """Observations in the order they came; a snapshot of it is the whole state of a policy.

    With `latest_arrays_only` the arrays of older observations are dropped: for policies whose arrays are merged maps.
    """

    def __init__(self, policy: str, space: SearchSpace, seed: int, *, latest_arrays_only: bool = False) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidOption(f"seed {seed!r} must be a whole number >= 0")
        self.policy = policy
        self.space = space
        self.seed = seed
        self.observations: list[Observation] = []
        self._latest_arrays_only = latest_arrays_only

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def done(self) -> list[Observation]:
        """Observations that have outcomes."""
        return [o for o in self.observations if o.status == "done"]

    @property
    def spent(self) -> Cost:
        """Everything observations cost so far."""
        return total([o.cost for o in self.observations])

    def append(self, observations: Sequence[Observation]) -> None:
        """Add observations at the end, in the order given."""
        for observation in observations:
            self.observations.append(observation)
            if self._latest_arrays_only and observation.arrays:
                self._drop_older_arrays(observation)

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "format": _FORMAT,
            "policy": self.policy,
            "seed": self.seed,
            "space": self.space.to_dict(),
            "observations": [o.to_dict() for o in self.observations],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot of the same policy, seed and space. Raises StateMismatch."""
        expected = {"format": _FORMAT, "policy": self.policy, "seed": self.seed, "space": self.space.to_dict()}
        for key, value in expected.items():
            if state.get(key) != value:
                raise StateMismatch(
                    f"snapshot has {key} {state.get(key)!r}, this policy has {value!r}; create it alike"
                )
        self.observations = [Observation.from_dict(data) for data in state["observations"]]

    def _drop_older_arrays(self, latest: Observation) -> None:
        for i, older in enumerate(self.observations[:-1]):
            stale = set(older.arrays) & set(latest.arrays)
            if stale:
                kept = {name: array for name, array in older.arrays.items() if name not in stale}
                self.observations[i] = replace(older, arrays=kept)
