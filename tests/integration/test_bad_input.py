"""What a user can get wrong: one clear message, the documented exit status, no traceback, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue, folder
from tests.integration.harness import CENSUS, RASTER, acknowledged, stempilot

STRUCTURE = RASTER.parents[3] / "examples" / "structures" / "WSe2.extxyz"
QUICK = ("--engine", "local", "--no-baselines", "--no-report")


def nothing_was_started(data: Path) -> bool:
    """No experiment, no frame."""
    if not (data / "catalogue.sqlite").exists():
        return not list(data.rglob("*.nxs")) and not (data / "experiments").exists()
    with Catalogue.open(data, read_only=True) as catalogue:
        return catalogue.experiments(include_children=True) == []


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        (["specimen.structure=absent.cif"], 2, ["structure", "absent.cif"]),
        (["search_space={}"], 2, ["search_space", "at least 1"]),
        (["search_space.x_nm.low=50"], 2, ["x_nm", "50", "30"]),
        (["search_space.mode.choices=[maadf, parallel_beam]"], 2, ["parallel_beam", "maadf", "haadf"]),
        (["policy.options.mode=parallel_beam"], 2, ["parallel_beam", "maadf"]),
        (["budget.electrons=1000"], 3, ["1000 electrons", "electrons"]),
        (["budget.instrument_time_s=0.001"], 3, ["0.001 s"]),
        (["policy.name=clairvoyant"], 2, ["clairvoyant", "raster", "census"]),
        (["policy.options.colour=red"], 2, ["colour"]),
        (["instrument.name=titan"], 5, ["titan", "simulated", "replay"]),
        (["objective.name=beauty"], 2, ["beauty", "defect_census", "element_map"]),
        (["objective.options.false_discovery_rate=2"], 2, ["false_discovery_rate", "2"]),
        (["budget.photons=1"], 2, ["budget.photons", "unknown key"]),
        (["colour=red"], 2, ["colour", "unknown key"]),
        (["budget.electrons=-5"], 2, ["budget.electrons", "-5", "electrons"]),
        (["instrument.config.window_min_nm=-3"], 2, ["window_min_nm", "-3"]),
        (["safety.max_current_pa=5"], 3, ["30", "5 pA"]),
        (["safety.max_beam_shift_nm=5"], 3, ["beam shift", "5 nm"]),
        (["nonsense"], 2, ["nonsense", "KEY=VALUE"]),
        (["budget.electrons=[1"], 2, ["budget.electrons", "YAML"]),
        (["name.first=Ada"], 2, ["name.first"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else str(value),
)
def test_bad_values(data: Path, overrides: list[str], status: int, words: list[str]) -> None:
    settings = [argument for pair in overrides for argument in ("--set", pair)]
    stempilot("run", RASTER, "--data", data, *QUICK, *settings).complains(status, *words)
    assert nothing_was_started(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["mapping"]),
        ("- a\n- b\n", ["mapping", "list"]),
        ("name: [unclosed\n", ["YAML"]),
        ("name: Only a name\n", ["specimen: missing", "instrument: missing", "budget: missing"]),
    ],
)
def test_malformed_spec(data: Path, tmp_path: Path, text: str, words: list[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    stempilot("run", spec, "--data", data, *QUICK).complains(2, str(spec), *words)
    assert nothing_was_started(data)


def test_missing_spec(data: Path, tmp_path: Path) -> None:
    stempilot("run", tmp_path / "absent.yaml", "--data", data, *QUICK).complains(2, "absent.yaml", "stempilot new")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken.extxyz", "3\nLattice=nonsense\nW 0 0\n"),
        ("broken.cif", "data_x\n_cell_length_a twelve\n"),
        ("binary.extxyz", "\x00\x01\x02"),
        ("empty.cif", ""),
    ],
)
def test_malformed_structure(data: Path, tmp_path: Path, name: str, text: str) -> None:
    structure = tmp_path / name
    structure.write_text(text)
    outcome = stempilot("run", RASTER, "--data", data, *QUICK, "--set", f"specimen.structure={structure}")
    outcome.complains(2, "structure", name)
    assert nothing_was_started(data)


def test_defect_on_a_column_the_structure_lacks(data: Path) -> None:
    arguments = ("--set", "specimen.defects.V_Se.column=Te2")
    stempilot("run", RASTER, "--data", data, *QUICK, *arguments).complains(2, "Te2")
    assert nothing_was_started(data)


def test_search_space_too_wide_to_map(data: Path) -> None:
    outcome = stempilot("run", RASTER, "--data", data, *QUICK, "--set", "search_space.x_nm.low=-3e7")
    outcome.complains(2, "4e+06 nm2", "narrow", "x_nm")
    assert nothing_was_started(data)


def test_data_folder_below_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    stempilot("run", RASTER, "--data", file / "data", *QUICK).complains(6, str(file), "--data")
    stempilot("list", "--data", file / "data").complains(5, str(file))
    assert file.read_text() == "not a folder"


def test_data_folder_in_use(data: Path) -> None:
    with Catalogue.open(data) as catalogue:
        own = catalogue.create_experiment(name="under way", spec={}, seed=0, engine="local", options={})
        stempilot("run", RASTER, "--data", data, *QUICK).complains(6, str(data), str(os.getpid()), "--data")
        stempilot("resume", "latest", "--data", data).complains(6, str(data))
        listed = stempilot("list", "--data", data, "--json").expect(0).document["experiments"]
        assert [entry["id"] for entry in listed] == [own]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty"])
def test_corrupted_catalogue(tmp_path: Path, damage: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Catalogue.open(data) as catalogue:
        catalogue.create_experiment(name="old", spec={}, seed=0, engine="local", options={})
    database = data / "catalogue.sqlite"
    frame = data / "experiments" / "kept.nxs"
    frame.write_bytes(b"a frame")
    whole = database.read_bytes()
    for extra in data.glob("catalogue.sqlite-*"):
        extra.unlink()
    broken = {"garbage": b"not a database at all" * 400, "truncated": whole[: len(whole) // 3], "empty": b""}[damage]
    database.write_bytes(broken)
    if damage == "empty":  # a new, empty catalogue would hide that experiments were there; see what the reader says
        stempilot("show", "latest", "--data", data).complains(6, str(data))
        return
    for command in (("run", RASTER, *QUICK), ("list",), ("show", "latest"), ("resume", "latest"), ("replay", "latest")):
        stempilot(*command, "--data", data).complains(6, str(database))
    assert database.read_bytes() == broken
    assert frame.read_bytes() == b"a frame"


def test_full_disk_is_forecast(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "free_bytes", lambda path: 3_000_000)
    stempilot("run", RASTER, "--data", data, *QUICK).complains(6, "disk full", "3000000", str(data))
    monkeypatch.undo()
    assert nothing_was_started(data)


def test_disk_fills_while_it_runs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast passed, somebody else filled the disk: what was acknowledged stays and the run can go on."""
    room = iter([10**12] * 5)
    monkeypatch.setattr(folder, "free_bytes", lambda path: next(room, 0))
    stempilot("run", RASTER, "--data", data, *QUICK, "--set", "budget.frames=8").complains(6, "disk full", "resume")
    kept = acknowledged(data)
    assert 0 < len(kept) < 8
    monkeypatch.undo()
    document = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert document["status"] == "completed"
    assert len(document["frames"]) == 8
    assert set(kept) <= {frame["id"] for frame in document["frames"]}


@pytest.mark.parametrize("command", ["show", "report", "replay", "resume"])
def test_unknown_experiment(tmp_path: Path, command: str) -> None:
    with Catalogue.open(tmp_path) as catalogue:
        catalogue.create_experiment(name="another", spec={}, seed=0, engine="local", options={})
    stempilot(command, "feedbeef", "--data", tmp_path).complains(5, "feedbeef", "stempilot list")


def test_nothing_there_yet(tmp_path: Path) -> None:
    for command in (("show", "latest"), ("list",), ("report",), ("replay",)):
        stempilot(*command, "--data", tmp_path / "absent").complains(5, "absent", "stempilot run")
    assert not (tmp_path / "absent").exists()


def test_safety_wider_than_the_facility_allows(data: Path) -> None:
    (data / "stempilot.toml").write_text("[instruments.simulated.safety]\nmax_current_pa = 50\n")
    stempilot("run", RASTER, "--data", data, *QUICK).complains(3, "max_current_pa", "100", "50")
    assert nothing_was_started(data)


def test_settings_file_with_faults(data: Path) -> None:
    (data / "stempilot.toml").write_text("[instruments.simulated.safety]\nmax_current = 50\n")
    stempilot("run", RASTER, "--data", data, *QUICK).complains(2, "stempilot.toml", "max_current")
    (data / "stempilot.toml").write_text("[instruments\n")
    stempilot("run", RASTER, "--data", data, *QUICK).complains(2, "stempilot.toml", "TOML")


def test_a_real_instrument_asks_first(data: Path) -> None:
    (data / "stempilot.toml").write_text('[instruments.titan]\nadapter = "vendor"\n')
    outcome = stempilot("run", RASTER, "--data", data, *QUICK, "--set", "instrument.name=titan")
    outcome.complains(3, "titan", "--yes")
    outcome = stempilot("run", RASTER, "--data", data, *QUICK, "--set", "instrument.name=titan", "--yes")
    outcome.complains(2, "vendor", "simulated")
    assert nothing_was_started(data)


def test_validate_lists_every_fault_at_once(data: Path, tmp_path: Path) -> None:
    overrides = [
        "colour=red",
        "budget.electrons=-5",
        "instrument.optics.semi_convergence_angle_mrad=400",
        "stop.on_unknown=maybe",
    ]
    settings = [argument for pair in overrides for argument in ("--set", pair)]
    outcome = stempilot("validate", CENSUS, "--data", data, *settings).expect(2)
    for words in (
        ["colour", "unknown key"],
        ["budget.electrons", "-5", "> 0", "electrons"],
        ["instrument.optics.semi_convergence_angle_mrad", "400", "<= 100", "mrad"],
        ["stop.on_unknown", "maybe", "skip", "ask"],
    ):
        assert [line for line in outcome.stdout.splitlines() if all(word in line for word in words)], (
            words,
            outcome.stdout,
        )
    document = stempilot("validate", CENSUS, "--data", data, "--json", *settings).expect(2).document
    assert document["valid"] is False
    assert len(document["errors"]) == 4


def test_validate_lists_every_fault_of_content_at_once(data: Path) -> None:
    overrides = [
        "specimen.structure=absent.cif", "search_space.x_nm.low=50", "policy.name=clairvoyant", "objective.name=beauty",
        "instrument.name=titan",
    ]  # fmt: skip
    settings = [argument for pair in overrides for argument in ("--set", pair)]
    document = stempilot("validate", CENSUS, "--data", data, "--json", *settings).expect(2).document
    paths = [line.partition(":")[0] for line in document["errors"]]
    assert paths == ["specimen.structure", "search_space.x_nm", "objective.name", "policy.name", "instrument.name"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search_space.mode.choices=[maadf, parallel_beam]", ["search_space.mode.choices", "parallel_beam", "maadf"]),
        ("budget.electrons=1000", ["1000 electrons"]),
        ("objective.options.false_discovery_rate=2", ["objective.options", "false_discovery_rate"]),
        ("policy.options.colour=red", ["policy", "colour"]),
    ],
)
def test_validate_says_what_run_would_say(data: Path, override: str, words: list[str]) -> None:
    document = stempilot("validate", RASTER, "--data", data, "--json", "--set", override).expect(2).document
    assert len(document["errors"]) == 1
    assert all(word in document["errors"][0] for word in words), document["errors"]


def test_validate_knows_the_facility(data: Path) -> None:
    (data / "stempilot.toml").write_text(
        "[instruments.simulated.safety]\nmax_current_pa = 50\nmax_beam_shift_nm = 100\n"
    )
    document = stempilot("validate", CENSUS, "--data", data, "--json").expect(2).document
    assert sorted(line.partition(":")[0] for line in document["errors"]) == [
        "safety.max_beam_shift_nm",
        "safety.max_current_pa",
    ]


def test_valid_specs_are_valid(data: Path) -> None:
    assert stempilot("validate", CENSUS, "--data", data, "--json").expect(0).document == {"valid": True, "errors": []}
    assert "valid" in stempilot("validate", RASTER, "--data", data).expect(0).stdout
    stempilot("validate", RASTER.parents[3] / "examples" / "native_defects.yaml", "--data", data).expect(0)


def test_the_overridden_structure_is_found(data: Path) -> None:
    stempilot("validate", RASTER, "--data", data, "--set", f"specimen.structure={STRUCTURE}").expect(0)
