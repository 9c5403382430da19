"""Specs: what is accepted, and how every fault is worded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import apply_overrides, json_schema, load_mapping, parse_spec

ROOT = Path(__file__).parents[3]


def document() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "examples" / "native_defects.yaml").read_text(encoding="utf-8"))


def faults(changed: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as error:
        parse_spec(changed, ROOT / "examples")
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def test_examples_are_valid() -> None:
    spec = ExperimentSpec.from_yaml(ROOT / "examples" / "native_defects.yaml")
    assert spec.specimen.structure is not None
    assert spec.specimen.structure.is_absolute()
    assert ExperimentSpec.from_yaml(ROOT / "examples" / "fe_map_replay.yaml").objective.name == "element_map"


def test_every_fault_is_reported_at_once_with_path_value_limit_and_unit() -> None:
    changed = document()
    changed["budget"]["electrons"] = -1
    changed["instrument"]["optics"]["semi_convergence_angle_mrad"] = 400
    changed["instrument"]["scan"]["flyback_time_us"] = "soon"
    changed["polcy"] = {}
    del changed["objective"]
    lines = faults(changed)
    assert len(lines) == 5
    text = "\n".join(lines)
    assert "budget.electrons" in text
    assert "-1" in text
    assert "> 0" in text
    assert "instrument.optics.semi_convergence_angle_mrad" in text
    assert "400 mrad" in text
    assert "<= 100.0 mrad" in text or "<= 100 mrad" in text
    assert "instrument.scan.flyback_time_us" in text
    assert "polcy: unknown key; did you mean 'policy'?" in text
    assert "objective: missing" in text


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("budget", "electrons", float("nan"), "budget.electrons"),
        ("safety", "min_stage_x_nm", 5, "min_stage_x_nm"),
        ("specimen", "rms_displacement_nm", {"W": 3}, "0.1 nm"),
        ("stop", "on_unknown", "repeat", "stop.on_unknown"),
    ],
)
def test_bad_values_are_named(section: str, key: str, value: Any, words: str) -> None:
    changed = document()
    changed.setdefault(section, {})[key] = value
    if key == "min_stage_x_nm":
        changed["safety"]["max_stage_x_nm"] = -5
    assert words in "\n".join(faults(changed))


def test_an_experiment_must_end() -> None:
    changed = document()
    changed["budget"] = {}
    assert any("at least one of electrons" in line for line in faults(changed))


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "mapping"), ("a: [", "not valid YAML"), ("", "mapping")],
)
def test_files_that_are_no_specs(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=words):
        ExperimentSpec.from_yaml(path)


def test_a_spec_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    example = ROOT / "examples" / "native_defects.yaml"
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbf" + example.read_bytes())
    assert load_mapping(marked) == load_mapping(example)


def test_missing_file_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="stempilot new"):
        ExperimentSpec.from_yaml(tmp_path / "no.yaml")


def test_overrides_set_nested_values_and_leave_the_document_alone() -> None:
    before = document()
    after = apply_overrides(before, {"budget.electrons": 5.0, "labels.operator": "me"})
    assert after["budget"]["electrons"] == 5.0
    assert after["labels"]["operator"] == "me"
    assert before["budget"]["electrons"] == 2.2e9
    with pytest.raises(SpecError, match="is a value, not a section"):
        apply_overrides(before, {"name.first": 1})


def test_committed_json_schema_is_current() -> None:
    committed = json.loads((ROOT / "docs" / "experiment.schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(json_schema())), "run: stempilot schema > docs/experiment.schema.json"


def test_spec_survives_json() -> None:
    spec = ExperimentSpec.from_yaml(ROOT / "examples" / "native_defects.yaml")
    assert ExperimentSpec.model_validate(spec.model_dump(mode="json")) == spec
