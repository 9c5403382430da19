"""`stempilot conform`: its report, its statuses, and what it asks before a real instrument is exposed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from instruments.conformance import CHECKS, Report
from instruments.remote import InstrumentHost
from orchestrator.settings import read_document
from orchestrator.signature import Terms, make_keys, sign
from tests.integration.bench_microscope import installed_bench
from tests.unit.instruments import replay_files
from workflows.cli.commands import app
from workflows.roles import RoleLock, run_folder

HERE = ("--at-the-microscope", "Anna")


def signed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings signed by a facility whose key this computer has."""
    private, public = make_keys(file.parent / "keys")
    sign(file, read_document(file, must_exist=True), private, Terms(by="anna"))
    monkeypatch.setenv("STEMPILOT_FACILITY_KEY", str(public))


def conform(data: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["conform", "--data", str(data), *map(str, arguments)])


@pytest.fixture
def replayed(tmp_path: Path) -> Path:
    """A file for --config that makes a replay of a synthetic record."""
    record = replay_files.write_record(tmp_path / "record.npz", side_px=96)
    config = {
        name: str(value) if isinstance(value, Path) else value for name, value in replay_files.config(record).items()
    }
    conditions = {"field_of_view_nm": 640.0, "shape_px": [64, 64], "subframe_count": 1, "dwell_time_us": 1.0}
    path = tmp_path / "conform.yaml"
    path.write_text(yaml.safe_dump({"config": config, "conditions": conditions}))
    return path


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A real instrument, by a stranger's adapter: it says that it is not simulated, and refuses nothing."""
    monkeypatch.syspath_prepend(installed_bench(tmp_path / "site"))
    return "bench"


def test_a_replay_conforms_as_a_table_and_as_json(replayed: Path, tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    result = conform(tmp_path / "data", "replay", "--config", replayed, "--json", report_file)
    assert result.exit_code == 0, result.output
    report = Report.model_validate_json(report_file.read_text())
    assert [finding.check for finding in report.findings] == [check.name for check in CHECKS]
    assert result.stdout == report.table() + "\n"
    assert f"replay (real), contract {report.contract_version}: {report.summary}" in result.stdout
    assert not (tmp_path / "data").exists(), "nothing is held for what nobody can burn"


def test_one_check_and_json_alone(replayed: Path, tmp_path: Path) -> None:
    result = conform(tmp_path, "replay", "--config", replayed, "--only", "frame", "--json", "-")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["findings"]
    assert (found["check"], found["verdict"]) == ("frame", "passed")


def test_what_is_not_there_or_not_understood_is_said(replayed: Path, tmp_path: Path) -> None:
    unknown = conform(tmp_path, "titan")
    assert (unknown.exit_code, "titan" in unknown.stderr) == (5, True)
    misspelt = conform(tmp_path, "replay", "--config", replayed, "--only", "frames")
    assert (misspelt.exit_code, "known_action" in misspelt.stderr) == (2, True)
    replayed.write_text("conditions: {dwell_us: 4}")
    wrong = conform(tmp_path, "replay", "--config", replayed)
    assert (wrong.exit_code, "dwell_us" in wrong.stderr) == (2, True)
    missing = conform(tmp_path, "replay", "--config", tmp_path / "none.yaml")
    assert (missing.exit_code, "none.yaml" in missing.stderr) == (2, True)


def test_a_real_instrument_is_tried_in_its_signed_limits_and_with_somebody_there(
    bench: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = conform(tmp_path, bench, *HERE)
    assert (bare.exit_code, "adapter alone has no limits" in bare.stderr) == (3, True), bare.output
    file = tmp_path / "stempilot.toml"
    file.write_text(f"[instruments.titan]\nadapter = {bench!r}\nsafety.max_exposure_s = 100.0\n", "utf-8")
    unsigned = conform(tmp_path, "titan", *HERE)
    assert (unsigned.exit_code, "nobody signed its limits" in unsigned.stderr) == (3, True), unsigned.output
    signed(file, monkeypatch)
    refused = conform(tmp_path, "titan")
    assert refused.exit_code == 3, refused.output
    for words in ("electrons", "e/A2", "stop_latency: starts a long exposure", "--at-the-microscope"):
        assert words in refused.stderr
    changed = tmp_path / "changed.yaml"
    changed.write_text("config: {colour: green}")
    other = conform(tmp_path, "titan", "--config", changed, *HERE)
    assert (other.exit_code, "configuration is the facility's: take colour out" in other.stderr) == (3, True)
    failed = conform(tmp_path, "titan", *HERE, "--only", "unknown_control")
    assert failed.exit_code == 1, failed.output
    assert "no-such-mode" in failed.stdout
    assert "(real, let by Anna)" in failed.stdout


def test_a_real_instrument_is_held_and_its_lock_is_respected(
    bench: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stempilot.toml"
    file.write_text(f"[instruments.bench]\nadapter = {bench!r}\n", "utf-8")
    signed(file, monkeypatch)
    with RoleLock(tmp_path, f"instrument-{bench}"):
        busy = conform(tmp_path, bench, *HERE, "--only", "metadata")
    assert busy.exit_code != 0
    assert "already" in busy.stderr
    host = InstrumentHost(bench, run_folder(tmp_path))
    host.emergency_stop("smoke in the room", by="anna")
    locked = conform(tmp_path, bench, *HERE, "--only", "metadata")
    assert (locked.exit_code, "smoke in the room" in locked.stderr) == (4, True)
    host.clear(by="anna")
    assert "metadata" in conform(tmp_path, bench, *HERE, "--only", "metadata").stdout
