"""A policy to try: by name, as a class, as a rule or as an object, with its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import SpecError
from policies import Policy, PolicyError, PolicyFactory, RuleFactory
from workflows.assembly import Parts, make_policy

PolicyLike = str | PolicyFactory | Policy


Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy and its options, the same for every seed or given by a function of the seed.

    An object is run once, as it is: it has its options and its seed already.
    """

    policy: PolicyLike
    options: Options | Callable[[int], Options] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """What it is called in tables and records."""
        match self.policy:
            case str() as name:
                return name
            case RuleFactory() as rule:
                return rule.name
            case type() as kind:
                return kind.__name__
            case other:
                return type(other).__name__

    @property
    def is_reusable(self) -> bool:
        """Whether a new policy can be made of it for every run."""
        return isinstance(self.policy, str) or callable(self.policy)

    def options_for(self, seed: int) -> Options:
        """Its options on the world of one seed."""
        return dict(self.options(seed) if callable(self.options) else self.options)

    def made(self, parts: Parts) -> Policy:
        """The policy for one run on these parts. Raises SpecError for an unknown name or options it does not take."""
        options = self.options_for(parts.seed)
        if isinstance(self.policy, str):
            return make_policy(parts, self.policy, options)
        if not callable(self.policy):
            if options:
                raise SpecError(f"policy: {self.name} is an object and has its options already; hand in its class")
            return self.policy
        try:
            return self.policy(parts.space, seed=parts.seed, context=parts.question.context, **options)
        except PolicyError as error:
            raise SpecError(f"policy: {error}") from error


def candidate(policy: PolicyLike | Candidate, options: Options | None, seed: int) -> Candidate:
    """A candidate for one seed, of whatever was handed in; `options` come on top of its own."""
    known = policy if isinstance(policy, Candidate) else Candidate(policy)
    return Candidate(known.policy, {**known.options_for(seed), **(options or {})})
