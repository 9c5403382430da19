"""Specs as files: YAML in, every fault at once with its path, value, allowed range and unit; JSON Schema out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec

UNITS = {
    "_nm": "nm", "_mrad": "mrad", "_deg": "deg", "_ev": "eV", "_mm": "mm", "_us": "us", "_s": "s", "_pa": "pA",
    "_e_per_a2": "e/A2", "_px": "px", "_per_nm2": "1/nm2", "electrons": "electrons",
}  # fmt: skip
_KINDS = {
    "float_parsing": "must be a number, without its unit", "float_type": "must be a number",
    "finite_number": "must be a finite number", "int_parsing": "must be a whole number, without its unit",
    "int_type": "must be a whole number", "bool_parsing": "must be true or false", "bool_type": "must be true or false",
    "string_type": "must be a text", "tuple_type": "must be a list, such as [...]",
    "list_type": "must be a list, such as [...]", "dict_type": "must be a section of keys",
    "model_type": "must be a section of keys",
    "timezone_aware": "must have a timezone, such as 2026-01-31T18:30:00Z",
}  # fmt: skip
"""Faults of a wrong kind of value, in words for people."""
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("min_length", "at least"), ("max_length", "at most"))


def unit_of(name: str) -> str:
    """The unit a field's name ends in, or an empty string."""
    return next(
        (unit for suffix, unit in sorted(UNITS.items(), key=lambda item: -len(item[0])) if name.endswith(suffix)), ""
    )


def fault_lines(error: ValidationError, known: dict[str, Any] | None = None) -> list[str]:
    """One line a fault: path, what is wrong, the value, the limit and its unit."""
    return [
        f"{'.'.join(str(part) for part in fault['loc']) or '(spec)'}: {fault_line(fault, known)}"
        for fault in error.errors(include_url=False)
    ]


def fault_line(fault: Mapping[str, Any], known: dict[str, Any] | None = None) -> str:
    """What is wrong in one place: the words, the value, the limit and its unit."""
    name = next((str(part) for part in reversed(fault["loc"]) if isinstance(part, str)), "")
    if fault["type"] == "missing":
        return "missing; add it"
    if fault["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(name, fault['loc'], known or {})}"
    message = fault["msg"].removeprefix("Value error, ")
    value, limits, unit = fault.get("input"), fault.get("ctx", {}), unit_of(name)
    if fault["type"] in _KINDS:
        of_unit = f" of {unit}" if unit and "number" in _KINDS[fault["type"]] else ""
        return f"{_KINDS[fault['type']].replace('number', f'number{of_unit}')} (got {_shown(value)})"
    if isinstance(value, dict):
        return message
    bounds = [f"{sign} {limits[key]}" for key, sign in _BOUNDS if key in limits]
    shown = f" (got {value!r}{' ' + unit if unit else ''}"
    allowed = f"; allowed {' and '.join(bounds)}{' ' + unit if unit else ''}" if bounds else ""
    return f"{message}{shown}{allowed})"


def _shown(value: object) -> str:
    return str(value) if isinstance(value, date) else repr(value)


def _suggestion(name: str, location: tuple[int | str, ...], schema: dict[str, Any]) -> str:
    properties = _properties(location[:-1], schema)
    if close := difflib.get_close_matches(name, properties, n=1):
        return f"; did you mean {close[0]!r}?"
    for section, node in properties.items():
        if name in _resolved(node, schema).get("properties", {}):
            return f" here; it is a key of {section}"
    return f"; known keys: {', '.join(properties)}" if properties else ""


def _properties(location: tuple[int | str, ...], schema: dict[str, Any]) -> dict[str, Any]:
    """The keys that are known at a place of a document; none where the schema does not lead there."""
    node = schema
    for part in location:
        inner = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        if inner is None:
            inner = node.get("additionalProperties")
        node = _resolved(inner, schema) if isinstance(inner, dict) else {}
    return node.get("properties", {})


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a node of a schema stands for: a reference followed, of alternatives the first that has keys or items."""
    if reference := node.get("$ref"):
        return schema.get("$defs", {}).get(reference.rsplit("/", 1)[-1], {})
    choices = [_resolved(one, schema) for one in (*node.get("anyOf", ()), *node.get("allOf", ()))]
    return next((one for one in choices if one.keys() & {"properties", "items", "additionalProperties"}), node)


def load_mapping(path: Path) -> dict[str, Any]:
    """The YAML document as a mapping. Raises SpecError for a missing, unreadable or malformed file."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such file; `stempilot new` writes a commented spec to start from") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if document is None:
        raise SpecError(f"{path}: the file is empty, and a spec is a mapping of keys; `stempilot new` writes one")
    if not isinstance(document, dict):
        raise SpecError(f"{path}: a spec is a mapping of keys, this is {type(document).__name__}")
    return cast("dict[str, Any]", document)


def apply_overrides(document: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The document with dotted keys set, e.g. `budget.electrons=1e8`; the document itself is not changed."""
    result = json.loads(json.dumps(document, default=str))
    for key, value in overrides.items():
        node: dict[str, Any] = result
        *parents, last = key.split(".")
        for part in parents:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise SpecError(f"--set {key}: {part!r} is a value, not a section; name a key below a section")
            node = cast("dict[str, Any]", child)
        node[last] = value
    return result


def read_spec(path: Path, overrides: dict[str, Any]) -> ExperimentSpec:
    """Read, override, check, and make paths absolute. Raises SpecError listing every fault."""
    document = apply_overrides(load_mapping(path), overrides)
    return parse_spec(document, path.resolve().parent, str(path))


def parse_spec(document: dict[str, Any], folder: Path, source: str = "spec") -> ExperimentSpec:
    """Check a mapping; relative paths are taken from `folder`."""
    try:
        spec = ExperimentSpec.model_validate(document)
    except ValidationError as error:
        lines = fault_lines(error, ExperimentSpec.model_json_schema())
        raise SpecError(f"{source}: {len(lines)} fault(s)\n  " + "\n  ".join(lines)) from error
    return _absolute_paths(spec, folder)


def _absolute_paths(spec: ExperimentSpec, folder: Path) -> ExperimentSpec:
    specimen, instrument = spec.specimen, spec.instrument
    if specimen.structure is not None:
        specimen = specimen.model_copy(update={"structure": (folder / specimen.structure).resolve()})
    config = {
        key: str((folder / value).resolve()) if key in ("file", "structure") and isinstance(value, str) else value
        for key, value in instrument.config.items()
    }
    instrument = instrument.model_copy(update={"config": config})
    return spec.model_copy(update={"specimen": specimen, "instrument": instrument})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec, for editors."""
    schema = ExperimentSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "stempilot experiment", **schema}
