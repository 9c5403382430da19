"""Deciding what to measure next: history to suggestions, over named and bounded numbers."""

from policies.context import Context, CostModel, InformationModel, ValueModel
from policies.cost import Cost
from policies.dimensions import Choice, Continuous, Dimension, Integer, Point, Value
from policies.errors import (
    EmptySpace,
    InvalidObservation,
    InvalidOption,
    InvalidSpace,
    MissingContext,
    PolicyError,
    StateMismatch,
    UnknownPolicy,
)
from policies.observation import Observation, Status
from policies.policy import GaveUp, Policy
from policies.registry import create, names
from policies.rules import PolicyFactory, RuleFactory, Seen, rule
from policies.space import SearchSpace
from policies.suggestion import Suggestion

__all__ = [
    "Choice",
    "Context",
    "Continuous",
    "Cost",
    "CostModel",
    "Dimension",
    "EmptySpace",
    "GaveUp",
    "InformationModel",
    "Integer",
    "InvalidObservation",
    "InvalidOption",
    "InvalidSpace",
    "MissingContext",
    "Observation",
    "Point",
    "Policy",
    "PolicyError",
    "PolicyFactory",
    "RuleFactory",
    "SearchSpace",
    "Seen",
    "StateMismatch",
    "Status",
    "Suggestion",
    "UnknownPolicy",
    "Value",
    "ValueModel",
    "create",
    "names",
    "rule",
]
