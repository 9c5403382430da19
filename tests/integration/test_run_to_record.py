"""The straight line on the small census: what a run leaves behind, that it can be repeated, and looked at."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import instruments
from orchestrator.catalogue import Catalogue
from tests.integration.conftest import FinishedRun
from tests.integration.harness import CENSUS, data_folder, stempilot, without_ids

pytestmark = pytest.mark.slow
DOCUMENT_KEYS = {
    "id", "status", "reason", "spec", "seed", "engine", "electrons", "dose_max_e_per_a2", "instrument_time_s",
    "wall_time_s", "score", "frames", "decisions",
}  # fmt: skip
FRAME_KEYS = {"id", "decision_id", "path", "sha256", "dose_e_per_a2", "acquired_at"}


def counts(data: Path, experiment_id: str) -> list[dict[str, np.ndarray]]:
    """The detectors' counts of every frame, in order."""
    with Catalogue.open(data, read_only=True) as catalogue:
        return [dict(catalogue.load_frame(frame.id).counts) for frame in catalogue.frames(experiment_id)]


def test_document_holds_what_the_design_promises(census_run: FinishedRun) -> None:
    document = census_run.document
    assert set(document) >= DOCUMENT_KEYS
    assert document["status"] == "completed"
    assert document["reason"] == "budget spent: 18 of 18 frames"
    assert document["seed"] == 3
    assert document["engine"] == "local"
    assert document["spec"]["name"] == "Small census"
    assert len(document["frames"]) == 18
    assert all(set(frame) >= FRAME_KEYS for frame in document["frames"])
    assert set(document["truth"]) >= {"recall", "false_discovery_rate", "ledger_error_fraction"}
    assert document["baselines"] == {}


def test_every_decision_is_in_order_with_its_reason_and_frame(census_run: FinishedRun) -> None:
    decisions, frames = census_run.document["decisions"], census_run.document["frames"]
    assert [decision["seq"] for decision in decisions] == list(range(1, len(decisions) + 1))
    assert all(decision["reason"]["why"] for decision in decisions)
    assert {decision["status"] for decision in decisions} <= {"done", "refused"}
    done = [decision["id"] for decision in decisions if decision["status"] == "done"]
    assert [frame["decision_id"] for frame in frames] == done
    assert {decision["point"]["purpose"] for decision in decisions} >= {"survey", "focus", "field"}


def test_frames_on_disk_are_the_frames_of_the_record(census_run: FinishedRun) -> None:
    frames = census_run.document["frames"]
    on_disk = {
        path.relative_to(census_run.data).as_posix() for path in census_run.data.rglob("frames/*") if path.is_file()
    }
    assert on_disk == {frame["path"] for frame in frames}
    for frame in frames:
        assert hashlib.sha256((census_run.data / frame["path"]).read_bytes()).hexdigest() == frame["sha256"]


def test_budgets_are_kept_and_the_ledger_agrees_with_the_world(census_run: FinishedRun) -> None:
    document = census_run.document
    budget, safety = document["spec"]["budget"], document["spec"]["safety"]
    assert 0 < document["electrons"] <= budget["electrons"]
    assert 0 < document["instrument_time_s"] <= budget["instrument_time_s"]
    assert 0 < document["dose_max_e_per_a2"] <= safety["max_dose_e_per_a2"]
    assert abs(document["truth"]["ledger_error_fraction"]) < 0.02
    assert document["electrons"] == pytest.approx(document["truth"]["ledger_electrons"], rel=1e-12)
    assert document["electrons"] == pytest.approx(sum(frame["electrons"] for frame in document["frames"]), rel=1e-9)


def test_show_and_list_tell_the_same(census_run: FinishedRun) -> None:
    shown = stempilot("show", census_run.id, "--data", census_run.data, "--json").expect(0).document
    assert shown == {key: value for key, value in census_run.document.items() if key != "report"}
    listed = stempilot("list", "--data", census_run.data, "--json").expect(0).document["experiments"]
    assert [line["id"] for line in listed] == [census_run.id]
    assert set(listed[0]) >= {"id", "status", "name", "created_at"}
    words = stempilot("show", census_run.id[:12], "--data", census_run.data).expect(0).stdout
    assert "Small census" in words
    assert "false discovery rate" in words
    table = stempilot("list", "--data", census_run.data).expect(0).stdout
    assert "completed" in table


@pytest.fixture
def nothing_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking back must not touch a microscope, which may be measuring for somebody else."""

    def refuse(name: str, **config: Any) -> NoReturn:
        raise AssertionError(f"{name} was opened with {sorted(config)}")

    monkeypatch.setattr(instruments, "open", refuse)


@pytest.mark.usefixtures("nothing_opened")
def test_report_is_written_and_can_be_written_again(census_run: FinishedRun) -> None:
    report = Path(census_run.document["report"])
    assert report.is_file()
    report.unlink()
    again = stempilot("report", census_run.id, "--data", census_run.data).expect(0)
    assert Path(again.stdout.strip()) == report
    text = report.read_text(encoding="utf-8")
    assert "Small census" in text
    assert census_run.id in text


@pytest.mark.usefixtures("nothing_opened")
def test_replay_derives_every_decision_again(census_run: FinishedRun) -> None:
    outcome = stempilot("replay", census_run.id, "--data", census_run.data, "--json").expect(0).document
    assert outcome["differences"] == []
    assert outcome["decisions"] == len(census_run.document["decisions"])


def test_a_completed_run_is_not_resumed(census_run: FinishedRun) -> None:
    stempilot("resume", census_run.id, "--data", census_run.data).complains(3, census_run.id, "completed")
    shown = stempilot("show", census_run.id, "--data", census_run.data, "--json").document
    assert shown["status"] == "completed"


def test_same_seed_same_run_other_seed_other_run(census_run: FinishedRun, forward_model: Path, tmp_path: Path) -> None:
    documents, folders = {}, {}
    for name, seed, frames in (("same", 3, 18), ("other", 4, 7)):
        folders[name] = data_folder(tmp_path, forward_model, name)
        documents[name] = (
            stempilot(
                "run", CENSUS, "--data", folders[name], "--seed", seed, "--engine", "local", "--no-baselines",
                "--no-report", "--json", "--set", f"budget.frames={frames}",
            ).expect(0).document
        )  # fmt: skip
    assert "report" not in documents["same"]
    assert not list(folders["same"].rglob("report.html"))
    assert without_ids(documents["same"]) == without_ids(census_run.document)
    assert documents["same"]["truth"] == census_run.document["truth"]
    first, again = counts(census_run.data, census_run.id), counts(folders["same"], documents["same"]["id"])
    other = counts(folders["other"], documents["other"]["id"])
    assert len(first) == len(again)
    for one, two in zip(first, again, strict=True):
        assert set(one) == set(two)
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not any(np.array_equal(one["maadf"], two["maadf"]) for one, two in zip(first, other, strict=False))
    assert without_ids(documents["other"]) != without_ids(census_run.document)[:7]
