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
from policies.policy import Policy
from policies.registry import create, names
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
    "SearchSpace",
    "StateMismatch",
    "Status",
    "Suggestion",
    "UnknownPolicy",
    "Value",
    "ValueModel",
    "create",
    "names",
]
