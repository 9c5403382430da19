"""What people write for optics, detectors and numbers of `stempilot simulate`; every fault with its cure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from instruments import Aberrations, Coherence, Optics
from orchestrator.errors import SpecError
from orchestrator.spec_file import fault_lines
from simulation import AnnularDetector, SegmentedDetector, SimulationError
from workflows.cli.options import overrides_of

M = TypeVar("M", bound=BaseModel)
_DETECTOR = re.compile(r"([A-Za-z]\w*)=([^:]+):([^:]+)(?::(\d+)x(\d+))?", re.ASCII)
_WORDS = ("parametrization", "placement", "projection", "slicing", "precision", "aperture")
_PAIRS = ("grid_shape_px", "specimen_tilt_mrad")
_LEAST_OPTICS = "--optics beam_energy_ev=200e3,semi_convergence_angle_mrad=25"


def optics_of(texts: list[str]) -> Optics:
    """From files and pairs, the later winning: `beam_energy_ev=200e3,c30_nm=-500`; `aberrations.c30_nm` is the same."""
    if not texts:
        raise SpecError(f"--optics is missing: give a YAML file or values, e.g. {_LEAST_OPTICS}")
    values = _collected(texts, "--optics")
    aberrations = {name: values.pop(name) for name in Aberrations.model_fields if name in values}
    if aberrations:
        _merge(values, {"aberrations": aberrations})
    return _validated(Optics, values, "--optics")


def coherence_of(texts: list[str]) -> Coherence:
    """Source size and focal spread, as for optics."""
    return _validated(Coherence, _collected(texts, "--coherence"), "--coherence")


def detectors_of(texts: list[str]) -> dict[str, AnnularDetector | SegmentedDetector]:
    """`haadf=80:160` and, in rings and segments, `dpc=10:40:1x4`; angles in mrad."""
    found: dict[str, AnnularDetector | SegmentedDetector] = {}
    for text in texts:
        parts = _DETECTOR.fullmatch(text)
        if parts is None:
            raise SpecError(
                f"--detector {text}: write NAME=INNER:OUTER in mrad, e.g. haadf=80:160, or in rings and segments"
                " dpc=10:40:1x4"
            )
        name, inner, outer, rings, segments = parts.groups()
        if name in found:
            raise SpecError(f"--detector {text}: there is a detector {name} already; give it another name")
        inner_mrad, outer_mrad = numbers_of(f"{inner},{outer}", f"--detector {text}", 2)
        try:
            if rings is None:
                found[name] = AnnularDetector(inner_mrad, outer_mrad)
            else:
                found[name] = SegmentedDetector(inner_mrad, outer_mrad, int(rings), int(segments))
        except SimulationError as error:
            raise SpecError(f"--detector {text}: {error}") from error
    return found


def displacements_of(text: str) -> float | dict[str, float]:
    """One rms displacement in nm, or one an element: `Sr=0.0079,Ti=0.0058,O=0.0086`."""
    if "=" not in text:
        return numbers_of(text, "--rms-displacement-nm", 1)[0]
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {name.strip(): numbers_of(value, "--rms-displacement-nm", 1)[0] for name, _, value in pairs}


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Settings without an option of their own: `placement=bilinear`, `grid_shape_px=[512, 512]`."""
    for pair in pairs:
        if "=" not in pair:
            raise SpecError(f"--set {pair}: write KEY=VALUE, such as precision=double")
    found = overrides_of(pairs)
    for name, value in found.items():
        if name in _WORDS and isinstance(value, str):
            continue
        if name in _PAIRS and isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
            found[name] = tuple(value)
            continue
        known = ", ".join((*_WORDS, *(f"{pair}=[A, B]" for pair in _PAIRS)))
        raise SpecError(f"--set {name}={value}: no such setting, or not its kind of value; there are {known}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_of(text: str, option: str, count: int) -> list[float]:
    """So many finite numbers, separated by commas."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(value) < float("inf") for value in found):
        raise SpecError(f"{option}: {text!r} is not {count} number{'s' if count > 1 else ''}, separated by commas")
    return found


def _collected(texts: list[str], option: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        _merge(values, _given(text, option))
    return values


def _validated(model: type[M], values: dict[str, Any], option: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"{option}: " + "; ".join(fault_lines(error, model.model_json_schema()))) from error


def _given(text: str, option: str) -> dict[str, Any]:
    """From a mapping in braces, from pairs, or from a file."""
    if text.lstrip().startswith("{"):
        return _mapping(text, option)
    return _from_pairs(text, option) if "=" in text else _from_file(Path(text), option)


def _from_pairs(text: str, option: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}."""
    found: dict[str, Any] = {}
    for key, value in overrides_of(text.split(","), option).items():
        *groups, last = key.strip().split(".")
        _merge(found, _nested(groups, {last: value}))
    return found


def _nested(groups: list[str], inner: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(groups):
        inner = {name: inner}
    return inner


def _from_file(path: Path, option: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{option} {path}: cannot be read ({error}); give a YAML file or KEY=VALUE pairs") from error
    return _mapping(text, f"{option} {path}")


def _mapping(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping; texts that are numbers to a person (`2e5`) become numbers when they are checked."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise SpecError(f"{where}: holds no mapping; write lines such as beam_energy_ev: 200.0e+3")
    return {str(key): value for key, value in document.items()}


def _merge(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value
