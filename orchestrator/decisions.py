"""A decision: one suggestion taken up under an id of this experiment. It yields at most one frame."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from instruments.models import Record
from orchestrator.plain_json import plain
from policies import Cost, Suggestion

DecisionStatus = Literal["intended", "stored", "done", "refused", "failed", "unknown"]


class Decision(Record):
    """What was decided and why. `intended` and `stored` are on the way to `done`; the others came to nothing.

    A prediction maps an outcome to (mean, standard deviation); null stands for a number that is not finite.
    """

    id: str = Field(min_length=1)
    experiment_id: str = Field(min_length=1)
    seq: int = Field(ge=1, description="counts the decisions of an experiment from 1")
    suggestion_id: str = Field(min_length=1)
    policy: str = ""
    ordinal: int = Field(default=0, ge=0, description="the policy's own count")
    point: dict[str, Any]
    prediction: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    cost: dict[str, float | None] = Field(default_factory=dict)
    reason: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, suggestion: Suggestion, experiment_id: str, seq: int) -> Decision:
        """The decision to follow a suggestion; its id is `<experiment>-d<seq>`."""
        data = plain(suggestion.to_dict())
        return cls(
            id=f"{experiment_id}-d{seq:06d}",
            experiment_id=experiment_id,
            seq=seq,
            suggestion_id=data["id"],
            policy=data["policy"],
            ordinal=data["ordinal"],
            point=data["point"],
            prediction=data["prediction"],
            cost=data["cost"],
            reason=data["reason"],
        )

    def suggestion(self) -> Suggestion:
        """The suggestion as the policy made it."""
        return Suggestion(
            id=self.suggestion_id,
            policy=self.policy,
            ordinal=self.ordinal,
            point=dict(self.point),
            prediction={name: (_number(mean), _number(std)) for name, (mean, std) in self.prediction.items()},
            cost=Cost.from_dict({name: _number(amount) for name, amount in self.cost.items()}),
            reason=dict(self.reason),
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
