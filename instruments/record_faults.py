"""What is wrong with the values given for a record, in words for people: field, value, limits, unit and cure.

Neighbour: `models` raises it where a record is made.
"""

from __future__ import annotations

import difflib
from reprlib import repr as short
from types import NoneType
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticKnownError

from instruments.units import unit_of

_MOST_FAULTS, _MANY = 6, 10**9
_NUMBERS = ("float_", "int_", "finite_number", "greater_than", "less_than")
_KINDS = {
    "tuple_type": "a row of values, such as (1, 2)", "dict_type": "a mapping of names to values",
    "string_type": "a text", "list_type": "a row of values, such as [1, 2]",
}  # fmt: skip
_SPOKEN: dict[Any, str] = {str: "a text", bool: "True or False"}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


class InvalidRecord(ValidationError):
    """pydantic's `ValidationError`, and so a `ValueError`; what it says is for people."""

    kind: type[BaseModel] | None = None

    @classmethod
    def of(cls, error: ValidationError, kind: type[BaseModel]) -> InvalidRecord:
        """The same faults, said of a record of this kind."""
        again = cls.from_exception_data(error.title, [_as_given(fault) for fault in error.errors(include_url=False)])
        assert isinstance(again, cls)
        again.kind = kind
        return again

    def __str__(self) -> str:
        """Every fault: field, value, limits, unit and cure."""
        faults = self.errors(include_url=False)
        lines = [fault_words(fault, self.kind) for fault in faults[:_MOST_FAULTS]]
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        return f"{self.title}: " + "; ".join(lines + more)

    def __repr__(self) -> str:
        """The same, with the name of the error."""
        return f"InvalidRecord({str(self)!r})"


def fault_words(fault: ErrorDetails, kind: type[BaseModel] | None) -> str:
    """One fault of a record of this kind, in words."""
    name = ".".join(str(part) for part in fault["loc"])
    owner, field = _place(fault["loc"], kind)
    if fault["type"] == "missing":
        return f"{name} is missing; give {_wanted(name, field, fault)}"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name} is unknown{_known(str(fault['loc'][-1]), owner)}"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if fault["type"] in ("value_error", "assertion_error") or " should " not in message:
        return f"{name}: {message}" if name and name not in message else message
    return f"{name} = {short(fault['input'])} must {_must(name, field, fault)}"


def _must(name: str, field: FieldInfo | None, fault: ErrorDetails) -> str:
    context = fault.get("ctx", {})
    if fault["type"].startswith(_NUMBERS):
        return f"be {_wanted(name, field, fault)}"
    if wanted := context.get("class_name") or context.get("class"):
        return f"be {_article(str(wanted))}"
    if known := _KINDS.get(fault["type"]):
        return f"be {known}"
    words = fault["msg"].partition(" should ")[2]
    return words.replace(" after validation", "")


def _wanted(name: str, field: FieldInfo | None, fault: ErrorDetails) -> str:
    """What the field takes: a number of which unit and from where to where, or something of its type."""
    types = set(get_args(field.annotation)) or {field.annotation} if field is not None else set[Any]()
    if not (types & {float, int} or fault["type"].startswith(_NUMBERS)):
        named = [each for each in types if isinstance(each, type) and each is not NoneType]
        return _SPOKEN.get(named[0], _article(named[0].__name__)) if len(named) == 1 else "it"
    bounds = _limits(field) or {key: value for key, value in fault.get("ctx", {}).items() if key in _BOUNDS}
    unit = next((unit for part in reversed(name.split(".")) if (unit := unit_of(part))), "")
    whole = "whole " * (int in types or fault["type"].startswith("int_"))
    limits = " and ".join(f"{_BOUNDS[key]} {_short_number(value)}" for key, value in bounds.items())
    finite = "" if limits else "finite " * (not whole)
    return f"a {finite}{whole}number{f' of {unit}' if unit else ''}{f', {limits}' if limits else ''}"


def _limits(field: FieldInfo | None) -> dict[str, Any]:
    marks = field.metadata if field is not None else []
    return {key: value for key in _BOUNDS for mark in marks if (value := getattr(mark, key, None)) is not None}


def _short_number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) or abs(value) >= _MANY else str(value)


def _known(name: str, owner: type[BaseModel] | None) -> str:
    fields = owner.model_fields if owner is not None else {}
    within = next((each for each, field in fields.items() if name in getattr(field.annotation, "model_fields", {})), "")
    if within:
        return f" here; it is a value of {within}"
    close = difflib.get_close_matches(name, fields, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(fields)}" if fields else "; leave it out"


def _place(
    location: tuple[int | str, ...], kind: type[BaseModel] | None
) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The record that holds the field, and the field, as far as records lead there."""
    field = None
    for depth, part in enumerate(location):
        if kind is None or not isinstance(part, str):
            return None, None
        field = kind.model_fields.get(part)
        if depth < len(location) - 1:
            inner = (field.annotation, *get_args(field.annotation)) if field is not None else ()
            kind = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return kind, field


def _as_given(fault: ErrorDetails) -> InitErrorDetails:
    """A fault as pydantic takes it back; kinds of our own are not in its list."""
    context = dict[str, Any](fault.get("ctx", {}))
    try:
        PydanticKnownError(cast("Any", fault["type"]), context or None)
        kind: Any = fault["type"]
    except KeyError:
        kind = PydanticCustomError(cast("Any", fault["type"]), cast("Any", fault["msg"]), context or None)
    return {"type": kind, "loc": fault["loc"], "input": fault["input"], "ctx": context}


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOaeio' else 'a'} {noun}"
