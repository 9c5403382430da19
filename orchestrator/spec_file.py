"""Specs as files: YAML in, every fault at once with its path, value, allowed range and unit; JSON Schema out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
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
    if isinstance(value, dict):
        return message
    bounds = [f"{sign} {limits[key]}" for key, sign in _BOUNDS if key in limits]
    shown = f" (got {value!r}{' ' + unit if unit else ''}"
    allowed = f"; allowed {' and '.join(bounds)}{' ' + unit if unit else ''}" if bounds else ""
    return f"{message}{shown}{allowed})"


def _suggestion(name: str, location: tuple[int | str, ...], schema: dict[str, Any]) -> str:
    properties = schema.get("properties", {})
    for part in location[:-1]:
        node = properties.get(str(part), {})
        reference = node.get("$ref") or next(
            (item.get("$ref") for item in node.get("allOf", []) if "$ref" in item), None
        )
        node = schema.get("$defs", {}).get(reference.rsplit("/", 1)[-1], {}) if reference else node
        properties = node.get("properties", {})
    close = difflib.get_close_matches(name, properties, n=1)
    known = ", ".join(properties)
    return f"; did you mean {close[0]!r}?" if close else (f"; known keys: {known}" if known else "")


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
