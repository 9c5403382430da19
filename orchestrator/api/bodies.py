"""Request bodies, read strictly: JSON that every reader understands alike, then the model, then errors with pointers.

Python's reader takes NaN, numbers too large for a double, doubled keys and half surrogates; here they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import isinf
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.api.problems import Problem
from orchestrator.plain_json import to_text
from orchestrator.spec_file import fault_line

M = TypeVar("M", bound=BaseModel)
LARGEST_INTEGER: Final = 2**63 - 1
DEEPEST: Final = 64
_MOST_FAULTS: Final = 100
_LONGEST_DETAIL: Final = 600


class _Unstorable(ValueError):
    """JSON, but no database or no other program could keep it."""


def read_body(model: type[M], data: bytes) -> M:
    """The body as the model. Raises Problem `malformed` or `invalid`, every fault with its JSON Pointer."""
    document = read_json(data)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        whole = [fault["loc"] for fault in error.errors() if _is_whole_float(fault)]
        if not whole:
            raise Problem("invalid", _count(error), errors=body_faults(error, model)) from error
    for location in whole:  # 20.0 is an integer in JSON, but not in strict Python
        _make_integer(document, location)
    try:
        return model.model_validate_json(to_text(document), strict=True)
    except ValidationError as error:
        raise Problem("invalid", _count(error), errors=body_faults(error, model)) from error


def read_json(data: bytes) -> Any:
    """The JSON value in the bytes.

    Raises Problem `malformed` for what is no JSON or may be read in two ways, `invalid` for what cannot be stored.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_number,
            object_pairs_hook=_distinct,
        )
        _check(value, DEEPEST)
    except _Unstorable as error:
        raise Problem("invalid", f"the body cannot be taken: {error}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem("malformed", f"the body is not acceptable JSON: {reason}") from error
    return value


def body_faults(error: ValidationError, model: type[BaseModel]) -> list[dict[str, Any]]:
    """One entry a fault: a JSON Pointer into the body, and the same words the command line uses."""
    known = _schema_of(model)
    return [
        {"pointer": pointer(fault["loc"]), "detail": fault_line(fault, known)[:_LONGEST_DETAIL]}
        for fault in error.errors(include_url=False)[:_MOST_FAULTS]
    ]


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """What the model says of its fields; working it out takes longer than everything else about a refusal."""
    return model.model_json_schema()


def parameter_faults(faults: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a fault of the path, the query or a header."""
    entries: list[dict[str, Any]] = []
    for fault in faults:
        where, *names = fault["loc"]
        entries.append(
            {
                "parameter": str(names[0]) if names else str(where),
                "in": str(where),
                "detail": fault_line(fault)[:_LONGEST_DETAIL],
            }
        )
    return entries


def pointer(location: Sequence[int | str]) -> str:
    """A JSON Pointer as a URI fragment (RFC 6901, section 6, without percent-encoding).

    >>> pointer(("spec", "search_space", "a/b", 0))
    '#/spec/search_space/a~1b/0'
    """
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _count(error: ValidationError) -> str:
    count = error.error_count()
    return f"{count} fault{'s' if count > 1 else ''} in the body; `errors` says where"


def _is_whole_float(fault: Mapping[str, Any]) -> bool:
    value = fault.get("input")
    return fault["type"] == "int_type" and isinstance(value, float) and value.is_integer()


def _make_integer(document: Any, location: Sequence[int | str]) -> None:
    *parents, last = location
    node: Any = document
    try:
        for part in parents:
            node = node[part]
        if isinstance(node[last], float):
            node[last] = int(node[last])
    except (KeyError, IndexError, TypeError):
        return  # a union's branch is part of the location: the second reading says what is wrong


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON; leave the key out or give null")


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > LARGEST_INTEGER:
        raise _Unstorable(f"the integer {text[:24]} is beyond {LARGEST_INTEGER}")
    return value


def _number(text: str) -> float:
    if isinf(value := float(text)):
        raise _Unstorable(f"the number {text[:24]} is too large for double precision")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} is there twice")
        result[key] = value
    return result


def _check(value: Any, depth: int) -> None:
    """Raise _Unstorable for text that cannot be kept, and for nesting deeper than `depth`."""
    if depth < 0:
        raise _Unstorable(f"it is nested more than {DEEPEST} deep")
    match value:
        case str():
            _check_text(value)
        case dict():
            for key, item in value.items():
                _check_text(str(key))
                _check(item, depth - 1)
        case list():
            for item in value:
                _check(item, depth - 1)
        case _:
            return


def _check_text(text: str) -> None:
    if "\0" in text:
        raise _Unstorable("it holds the character U+0000, which databases cannot keep")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Unstorable("it holds half of a surrogate pair, which is no character") from error
