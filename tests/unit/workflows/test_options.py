"""Options of the command line: overrides as people write them, run options as `resume` finds them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instruments import CommandRefused, ConfigurationError, InstrumentFault
from orchestrator import signature
from orchestrator.errors import (
    CatalogueCorrupt,
    DataFolderBusy,
    DiskFull,
    FeatureError,
    NotFound,
    OrchestratorError,
    Refused,
    SpecError,
)
from orchestrator.settings import read_document
from orchestrator.signature import Terms, make_keys, sign, signature_path
from policies import PolicyError
from workflows.cli.fail import exit_status_of
from workflows.cli.options import overrides_of, settings_in_use
from workflows.run_options import RunOptions


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("budget.electrons=1e8", "budget.electrons", 1e8),
        ("budget.frames=12", "budget.frames", 12),
        ("name=A = B", "name", "A = B"),
        ("policy.name=raster", "policy.name", "raster"),
        ("search_space.mode.choices=[maadf, haadf]", "search_space.mode.choices", ["maadf", "haadf"]),
        ("instrument.config={width_nm: 60}", "instrument.config", {"width_nm": 60}),
        ("budget.electrons=", "budget.electrons", None),
        ("budget.electrons=null", "budget.electrons", None),
        ("objective.options.use_survey=false", "objective.options.use_survey", False),
        ("instrument.config.file=../a b/c.npz", "instrument.config.file", "../a b/c.npz"),
        ("name=nan", "name", "nan"),
        ("name=infinity", "name", "infinity"),
    ],
)
def test_values_are_yaml_and_numbers_are_numbers(pair: str, key: str, value: Any) -> None:
    found = overrides_of([pair])
    assert found == {key: value}
    assert type(found[key]) is type(value)


def test_the_last_of_two_wins() -> None:
    assert overrides_of(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}
    assert overrides_of([]) == {}


@pytest.mark.parametrize("pair", ["budget", "=3", "", "a=[1", "a={b: c"])
def test_what_cannot_be_read_is_shown(pair: str) -> None:
    with pytest.raises(SpecError, match="--set") as caught:
        overrides_of([pair])
    assert pair in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [RunOptions(), RunOptions(seed=7, engine="local", baselines=False, settings_file="/etc/stempilot.toml")],
)
def test_run_options_survive_the_catalogue(options: RunOptions) -> None:
    assert RunOptions(**json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OrchestratorError("x"), 1), (FeatureError("x"), 1), (SpecError("x"), 2), (ConfigurationError("x"), 2),
        (PolicyError("x"), 2), (Refused("x"), 3), (CommandRefused("x"), 3), (InstrumentFault("x"), 4),
        (NotFound("x"), 5),
        (DataFolderBusy("x"), 6), (DiskFull("x"), 6), (CatalogueCorrupt("x"), 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)  # fmt: skip
def test_every_error_has_the_documented_exit_status(error: Exception, status: int) -> None:
    assert exit_status_of(error) == status


def test_a_program_that_makes_its_data_folder_has_it_note_which_settings_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "PUBLIC_KEY_PATH", tmp_path / "no.pub")
    private, public = make_keys(tmp_path / "keys")
    file, data = tmp_path / "stempilot.toml", tmp_path / "data"
    older: list[bytes] = []
    for serial, current_pa in ((7, 100), (8, 50)):
        file.write_text(f'[instruments.titan]\nadapter = "simulated"\nsafety = {{ max_current_pa = {current_pa} }}\n')
        sign(file, read_document(file, must_exist=True), private, Terms(by="anna", serial=serial))
        if serial == 7:
            older = [path.read_bytes() for path in (file, signature_path(file))]
    settings_in_use(data, file)
    assert not data.exists(), "nobody signs here"
    monkeypatch.setenv("STEMPILOT_FACILITY_KEY", str(public))
    assert settings_in_use(data, file).instrument("titan").safety.max_current_pa == 50
    for path, content in zip((file, signature_path(file)), older, strict=True):
        path.write_bytes(content)
    with pytest.raises(Refused, match="serial 8 was in use here"):
        settings_in_use(data, file)
