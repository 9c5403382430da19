"""Focus on the twin: alone, and as the first step of an experiment whose later commands carry what it found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import Catalogue
from tests.faults import warm_start
from tests.integration.harness import RASTER, data_folder, event_count, stempilot, without_ids

pytestmark = pytest.mark.slow
# A thin film beside the world, so that a short series there sees the lattice; the hidden offset of seed 3 is 3 nm.
AREA = (
    "--set", "calibrate.x_nm=40", "--set", "calibrate.y_nm=0", "--set", "calibrate.mode=maadf",
    "--set", "calibrate.dwell_time_us=1", "--set", "calibrate.probe_current_pa=30",
    "--set", "instrument.config.contamination_nm=2",
)  # fmt: skip
FRAMES = 14
RUN = (
    "--engine", "local", "--no-baselines", "--no-report", "--seed", "3", *AREA, "--set", f"budget.frames={FRAMES}",
)  # fmt: skip


def commanded_nm(data: Path, experiment_id: str) -> list[tuple[str, float, float]]:
    """Purpose, defocus of the point, defocus of the command, decision after decision."""
    with Catalogue.open(data, read_only=True) as catalogue:
        return [
            (
                intent.command.purpose,
                float(intent.decision.point["defocus_nm"]),
                intent.command.optics.defocus_nm,
            )
            for intent in catalogue.intents(experiment_id)
        ]


def document_of(data: Path) -> dict[str, Any]:
    return stempilot("show", "latest", "--data", data, "--json").expect(0).document


def test_alone_it_ends_with_a_focus_a_report_and_its_dose(data: Path) -> None:
    said = stempilot("calibrate", RASTER, "--data", data, "--engine", "local", "--seed", "3", *AREA, "--json")
    found = said.expect(0).document
    assert found["status"] == "completed"
    assert found["dose_e_per_a2"] > 0
    document = document_of(data)
    assert document["summary"]["focus"]["outcome"] == "found"
    assert document["electrons"] >= found["electrons"] > 0
    assert document["truth"]["focus_found"] is True
    assert abs(document["truth"]["defocus_error_nm"]) < 1.5
    assert abs(document["truth"]["true_offset_nm"]) > 2.0, "there was something to find"
    assert abs(document["truth"]["ledger_error_fraction"]) < 0.03
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert 'id="focus"' in page
    assert stempilot("replay", "latest", "--data", data, "--json").expect(0).document["differences"] == []


def test_later_commands_carry_what_was_found(data: Path) -> None:
    document = stempilot("run", RASTER, "--data", data, *RUN, "--json").expect(0).document
    focus = document["summary"]["focus"]
    assert focus["outcome"] == "found"
    series = [decision for decision in document["decisions"] if decision["point"]["purpose"] == "calibrate"]
    later = [decision for decision in document["decisions"] if decision["point"]["purpose"] != "calibrate"]
    assert len(series) == focus["frames"]
    assert len(later) == 14 - len(series) > 0
    offset_nm = later[0]["reason"]["defocus_offset_nm"]
    assert offset_nm == pytest.approx(focus["defocus_nm"], abs=0.25)
    assert offset_nm != 0
    for purpose, point_nm, sent_nm in commanded_nm(data, document["id"]):
        assert sent_nm == point_nm + (0.0 if purpose == "calibrate" else offset_nm)
    assert document["truth"]["ledger_error_fraction"] == pytest.approx(0.0, abs=0.03)
    assert stempilot("replay", "latest", "--data", data, "--json").expect(0).document["differences"] == []
    # The question's own decisions are those of a run that never focused.
    plain = stempilot(
        "run", RASTER, "--data", data, "--engine", "local", "--no-baselines", "--no-report", "--seed", "3", "--json",
        "--set", "instrument.config.contamination_nm=2", "--set", f"budget.frames={len(later)}",
    )  # fmt: skip
    points = [decision["point"] for decision in plain.expect(0).document["decisions"]]
    assert points == [decision["point"] for decision in later]


def test_the_search_area_is_not_burnt(data: Path) -> None:
    stempilot("run", RASTER, "--data", data, *RUN, "--set", "calibrate.x_nm=10").complains(3, "lies in the search area")
    stempilot("calibrate", RASTER, "--data", data, *AREA, "--set", "calibrate.x_nm=10").complains(3, "allow_overlap")
    stempilot("calibrate", RASTER, "--data", data).complains(2, "no section calibrate")


@pytest.mark.parametrize(("on_failure", "status"), [("stop", 1), ("uncorrected", 0)])
def test_without_a_focus_it_says_so(data: Path, on_failure: str, status: int) -> None:
    """A film so thick that no lattice shows, and no second series with more dose."""
    document = stempilot(
        "run", RASTER, "--data", data, *RUN, "--json", "--set", "instrument.config.contamination_nm=25",
        "--set", "calibrate.dose_factor=1", "--set", f"calibrate.on_failure={on_failure}",
    ).expect(status).document  # fmt: skip
    assert document["summary"]["focus"]["outcome"] == "nothing"
    purposes = {purpose for purpose, _, _ in commanded_nm(data, document["id"])}
    if on_failure == "stop":
        assert document["status"] == "failed"
        assert "no focus found" in document["reason"]
        assert purposes == {"calibrate"}
    else:
        assert purposes == {"calibrate", "field"}
        assert all(point == sent for _, point, sent in commanded_nm(data, document["id"]))


@pytest.mark.faults
def test_killed_during_and_after_the_series(forward_model: Path, tmp_path: Path) -> None:
    calm, data = data_folder(tmp_path, forward_model, "calm"), data_folder(tmp_path, forward_model)
    expected = stempilot("run", RASTER, "--data", calm, *RUN, "--json").expect(0).document
    arguments: tuple[object, ...] = ("run", RASTER, *RUN)
    for events in (8, 12, 12):  # in the series; later in it or just after; among the fields
        child = warm_start.start(tmp_path / "said", *arguments, "--data", data, held=(data, FRAMES - 1))
        before, until = event_count(data), time.monotonic() + 300
        while child.is_alive() and event_count(data) < before + events and time.monotonic() < until:
            time.sleep(0.01)
        assert child.is_alive(), (tmp_path / "said").read_text()[-2000:]
        child.kill()
        child.join()
        arguments = ("resume", "latest")
    document = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(document) == without_ids(expected)
    for key in ("electrons", "dose_max_e_per_a2", "truth"):
        assert document[key] == expected[key], key
    ours, theirs = document["summary"]["focus"], expected["summary"]["focus"]
    assert {key: ours[key] for key in ours if key != "action_ids"} == {
        key: theirs[key] for key in theirs if key != "action_ids"
    }
