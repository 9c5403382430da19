"""`new`, `doctor`, `instruments`, `schema`: commands that look at the installation or start a spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.harness import console, environment, stempilot


def test_new_writes_a_spec_that_is_valid(tmp_path: Path) -> None:
    outcome = stempilot("new", tmp_path / "mine").expect(0)
    spec = tmp_path / "mine.yaml"
    assert str(spec) in outcome.stdout
    assert "#" in spec.read_text(encoding="utf-8")
    assert stempilot("validate", spec, "--data", tmp_path / "data", "--json").expect(0).document["errors"] == []
    assert not (tmp_path / "data").exists()


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("precious")
    stempilot("new", spec).complains(2, "mine.yaml", "exists")
    assert spec.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [spec]


def test_new_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stempilot("new", tmp_path / "file" / "mine").complains(2, "mine.yaml", "cannot be written")


def test_doctor_explains_the_installation(data: Path) -> None:
    findings = stempilot("doctor", "--data", data, "--json").document["findings"]
    by_what = {finding["what"]: finding for finding in findings}
    assert set(by_what) >= {"versions", "prefect engine", "GPU", "extras", "disk"}
    assert all(set(finding) == {"level", "what", "found"} for finding in findings)
    assert "torch" in by_what["versions"]["found"]
    assert "prefect" in by_what["prefect engine"]["found"]
    words = stempilot("doctor", "--data", data).stdout
    assert "prefect engine" in words


def test_doctor_finds_a_broken_catalogue(data: Path) -> None:
    (data / "catalogue.sqlite").write_bytes(b"not a database at all" * 400)
    findings = stempilot("doctor", "--data", data, "--json").expect(1).document["findings"]
    assert [finding["level"] for finding in findings if finding["what"] == "catalogue"] == ["fault"]


def test_instruments_are_listed_with_their_envelopes(data: Path) -> None:
    (data / "stempilot.toml").write_text(
        '[instruments.titan]\nadapter = "replay"\n[instruments.titan.safety]\nmax_current_pa = 50\n'
    )
    document = stempilot("instruments", "--data", data, "--json").expect(0).document
    assert set(document["instruments"]) == {"simulated", "replay", "titan"}
    assert document["instruments"]["titan"]["safety"] == {"max_current_pa": 50}
    assert set(document["adapters"]) >= {"simulated", "replay"}
    assert "titan" in stempilot("instruments", "--data", data).expect(0).stdout


def test_schema_is_a_schema() -> None:
    document = json.loads(stempilot("schema").expect(0).stdout)
    assert set(document["properties"]) >= {
        "name",
        "specimen",
        "instrument",
        "search_space",
        "objective",
        "policy",
        "budget",
    }
    assert document["additionalProperties"] is False


def test_the_data_folder_comes_from_the_environment(tmp_path: Path) -> None:
    outcome = console("show", "latest", env=environment(STEMPILOT_DATA=str(tmp_path / "elsewhere")))
    outcome.complains(5, "elsewhere")


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run"], ["run", "a.yaml", "--speed", "high"], ["run", "a.yaml", "--seed", "-1"]]
)
def test_what_the_command_line_does_not_know(arguments: list[str]) -> None:
    outcome = stempilot(*arguments).expect(2)
    assert outcome.stdout == ""
    assert outcome.stderr
    assert "Traceback" not in outcome.stderr
