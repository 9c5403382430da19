"""Policy errors, named by what may happen next.

PolicyError             anything a policy says no with
  UnknownPolicy         no policy has this name; choose one of those listed
  InvalidSpace          the search space contradicts itself; nothing was suggested
    EmptySpace          the search space holds no point
  InvalidOption         an option of the policy cannot be; nothing was suggested
  MissingContext        the policy needs something the caller did not hand in
  InvalidObservation    an observation cannot be used; history is unchanged
  StateMismatch         a snapshot belongs to another policy, seed or space; nothing was restored
"""

from __future__ import annotations


class PolicyError(Exception):
    """Anything a policy says no with."""


class UnknownPolicy(PolicyError):
    """No policy has this name; choose one of those listed."""


class InvalidSpace(PolicyError):
    """The search space contradicts itself; nothing was suggested."""


class EmptySpace(InvalidSpace):
    """The search space holds no point."""


class InvalidOption(PolicyError):
    """An option of the policy cannot be; nothing was suggested."""


class MissingContext(PolicyError):
    """The policy needs something the caller did not hand in."""


class InvalidObservation(PolicyError):
    """An observation cannot be used; the history is unchanged."""


class StateMismatch(PolicyError):
    """A snapshot belongs to another policy, seed or space; nothing was restored."""
