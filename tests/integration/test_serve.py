"""`stempilot serve` and the queue as a user meets them: one installation with two simulated instruments."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from PIL import Image

from orchestrator.client import Client
from tests.integration.harness import RASTER, data_folder, stempilot, without_ids
from tests.integration.served import (
    FRAMES,
    SMALL,
    Installation,
    assert_same_counts,
    configured,
    counts,
    installation,
)
from tests.waiting import until
from workflows.prefect_server import unreachable_because

pytestmark = [pytest.mark.slow, pytest.mark.faults]


@pytest.fixture(scope="module")
def house(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data = configured(data_folder(tmp_path_factory.mktemp("served"), forward_model), "left", "right")
    with installation(data) as started:
        yield started


@pytest.fixture
def served(house: Installation) -> Iterator[Installation]:
    """It serves, also after a test that ended it, and no instrument is locked: tests come in any order."""
    yield house if house.is_serving else house.serve()
    house.unlock()


@pytest.fixture(scope="module")
def undisturbed(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The same experiment by `stempilot run`."""
    data = data_folder(tmp_path_factory.mktemp("calm"), forward_model)
    run = stempilot("run", RASTER, "--data", data, *SMALL, "--engine", "local", "--no-report", "--json")
    return data, run.expect(0).document


# A second for each exposure: time for whoever acts in the middle of a run of a few frames.
UNHURRIED = ("--set", "instrument.config.time_scale=24")


def on(instrument: str) -> tuple[str, ...]:
    return ("--instrument", instrument)


def test_it_says_where_things_are_and_shows_the_first_token_once(served: Installation) -> None:
    text = served.text()
    assert f"page and API   {served.url}/" in text
    for role in ("watchdog", "instrument-left", "instrument-right", "prefect", "worker-left", "worker-right"):
        assert text.count(f"  {role} ") == 1
    first = served.first_said.read_text()
    secret = next(word for word in first.split() if word.startswith("stempilot_"))
    assert served.serves == 1 or secret not in text
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{served.url}/api/v1/whoami", headers=headers, trust_env=False).json()["scopes"] == ["admin"]
    assert httpx.get(f"{served.url}/api/v1/queue", trust_env=False).status_code == 401


def test_from_the_queue_to_the_report_as_by_run(served: Installation, undisturbed: tuple[Path, dict[str, Any]]) -> None:
    calm, expected = undisturbed
    until(lambda: unreachable_because(served.prefect_url) is None, "Prefect's server")
    own = served.submit(*on("left"), report=True)
    assert served.reaches(own, "completed")["reason"] == expected["reason"]
    document = served.document(own)
    assert without_ids(document) == without_ids(expected)
    assert document["truth"] == expected["truth"]
    assert document["summary"] == expected["summary"]
    assert_same_counts(counts(served.data, own), counts(calm, expected["id"]))
    assert (served.data / "experiments" / own / "report.html").stat().st_size > 10_000
    for event in served.events(own, "engine_changed"):  # where Prefect was too slow to begin the run
        assert event.payload["because"].startswith("Prefect's server at ")


def test_prefect_shows_the_run_its_lines_and_how_far_it_is(served: Installation) -> None:
    until(lambda: unreachable_because(served.prefect_url) is None, "Prefect's server")
    own = served.submit(*on("left"), "--set", "budget.frames=3")
    served.reaches(own, "completed")
    run = until(
        lambda: next((run for run in served.flow_runs(own) if run["state_type"] == "COMPLETED"), None),
        "Prefect to show the run completed",
    )
    assert run["parameters"]["instrument"] == "left"
    assert set(run["tags"]) == {"stempilot", "left"}
    which = {"flow_run_id": {"any_": [run["id"]]}}
    lines = until(
        lambda: found if "completed: budget spent" in "\n".join(found := _lines(served, which)) else None,
        "the last line of the run at Prefect's server",
    )
    assert sum(line.startswith("frame ") for line in lines) == 3
    artefacts = httpx.post(
        f"{served.prefect_url}/artifacts/filter", json={"artifacts": which, "limit": 10}, trust_env=False
    ).json()
    assert [(artefact["type"], artefact["data"]) for artefact in artefacts] == [("progress", 100.0)]
    assert "natives" in artefacts[0]["description"]


def _lines(served: Installation, which: dict[str, Any]) -> list[str]:
    answer = httpx.post(
        f"{served.prefect_url}/logs/filter", json={"logs": which, "limit": 100}, trust_env=False, verify=False
    )
    return [line["message"] for line in answer.json()]


def test_priorities_on_two_instruments_side_by_side(served: Installation) -> None:
    """While the first runs on the left, three more wait there; one on the right does not wait for them."""
    first = served.submit(*on("left"), "--set", "budget.frames=200")
    served.has_frames(first, 1)
    low, high, middle = (
        served.submit(*on("left"), "--set", "budget.frames=2", "--priority", str(priority)) for priority in (1, 9, 5)
    )
    beside = served.submit(*on("right"), "--set", "budget.frames=2")
    assert "waits for left" in served.entry(low)["wait_reason"]
    served.reaches(beside, "completed")
    stempilot("cancel", first, "--data", served.data).expect(0)
    served.reaches(first, "cancelled")
    for own in (low, high, middle):
        served.reaches(own, "completed")
    began = {own: _running_since(served, own) for own in (first, high, middle, low)}
    assert sorted(began, key=lambda own: began[own]) == [first, high, middle, low]
    assert _running_since(served, beside) < began[low]


def _running_since(served: Installation, own: str) -> Any:
    changes = served.events(own, "status_changed")
    return next(event.recorded_at for event in changes if event.payload["status"] == "running")


def test_pause_between_frames_then_resume(served: Installation, undisturbed: tuple[Path, dict[str, Any]]) -> None:
    own = served.submit(*on("left"), *UNHURRIED)
    served.has_frames(own, 2)
    wished = stempilot("pause", own[:12], "--data", served.data, "--reason", "coffee").expect(0)
    assert "running (pause asked for" in wished.stdout or "paused" in wished.stdout
    entry = served.reaches(own, "paused")
    assert "coffee" in entry["reason"]
    paused = served.document(own)
    assert 0 < len(paused["frames"]) < FRAMES
    assert {decision["status"] for decision in paused["decisions"]} == {"done"}
    resumed = stempilot("resume", own[:12], "--data", served.data, "--json").expect(0).document
    assert resumed["status"] == "queued"
    served.reaches(own, "completed")
    document = served.document(own)
    assert without_ids(document) == without_ids(undisturbed[1])
    assert document["truth"] == undisturbed[1]["truth"]
    assert {frame["sha256"] for frame in paused["frames"]} <= {frame["sha256"] for frame in document["frames"]}


def test_cancel_hold_release_and_times(served: Installation) -> None:
    running = served.submit(*on("left"), "--set", "budget.frames=40")
    served.has_frames(running, 1)
    stempilot("cancel", running, "--data", served.data).expect(0)
    assert served.reaches(running, "cancelled")["reason"].startswith("cancelled by a person")
    assert served.frame_count(running) < 40
    stempilot("resume", running, "--data", served.data).complains(1, "is cancelled", "nothing more can be done")
    held = served.submit(*on("left"), "--hold", "--set", "budget.frames=1")
    assert served.entry(held)["status"] == "held"
    stempilot("pause", held, "--data", served.data).complains(1, "is held", "release")
    later = served.submit(*on("left"), "--not-before", "2190-01-01T12:00", "--set", "budget.frames=1")
    assert served.entry(later)["wait_reason"].startswith("not before 2190-01-01")
    past = ("--not-after", "2020-01-01", "--not-before", "2020-01-02")
    stempilot("submit", RASTER, "--data", served.data, *on("left"), *past).complains(2, "not_after")
    stempilot("release", held, "--data", served.data).expect(0)
    served.reaches(held, "completed")
    stempilot("cancel", later, "--data", served.data).expect(0)
    assert served.entry(later)["status"] == "cancelled"
    stempilot("hold", "ffffffff", "--data", served.data).complains(5, "ffffffff")


def test_what_cannot_start_is_refused_in_words(served: Installation) -> None:
    arguments = ("submit", RASTER, "--data", served.data)
    stempilot(*arguments, *on("nowhere")).complains(2, "nowhere")
    stempilot(*arguments, "--set", "budget.electrons=1000").complains(2, "1000 electrons")
    stempilot(*arguments, "--not-before", "soon").complains(2, "soon", "22:00")


def test_an_emergency_stop_reaches_the_instrument_beside_everything(
    served: Installation, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    own = served.submit(*on("left"), *UNHURRIED)
    served.has_frames(own, 2)
    stopped = stempilot("estop", "left", "--data", served.data, "--reason", "smoke", "--json").expect(0).document
    assert [(line["beam_blanked"], line["is_locked"], line["is_queue_locked"]) for line in stopped["instruments"]] == [
        (True, True, True)
    ]
    assert "smoke" in served.reaches(own, "interrupted")["reason"]
    waiting = served.submit(*on("left"), "--set", "budget.frames=1")
    assert "smoke" in served.entry(waiting)["wait_reason"]
    stempilot("estop", "left", "--clear", "--data", served.data).expect(0)
    served.reaches(waiting, "completed")
    stempilot("resume", own, "--data", served.data).expect(0)
    served.reaches(own, "completed")
    assert without_ids(served.document(own)) == without_ids(undisturbed[1])


def test_from_another_machine(served: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands through the API; the data folder of this end stays empty."""
    made = stempilot("token", "anna", "--data", served.data, "--scope", "admin", "--json").expect(0).document
    with monkeypatch.context() as away:
        away.setenv("STEMPILOT_SERVER", served.url)
        away.setenv("STEMPILOT_TOKEN", made["secret"])
        away.setenv("STEMPILOT_DATA", str(tmp_path / "none"))
        submitted = stempilot(
            "submit", RASTER, *SMALL, *on("right"), "--no-report", "--set", "budget.frames=2", "--json"
        )
        own = submitted.expect(0).document["id"]
        listed = stempilot("queue", "--all", "--json").expect(0).document["entries"]
    assert own in [entry["id"] for entry in listed]
    assert served.entry(own)["submitted_by"] == "anna"
    served.reaches(own, "completed")
    assert not (served.data / "experiments" / own / "report.html").exists(), "none was wanted"
    stempilot("resume", own, "--server", served.url, "--data", tmp_path / "none").complains(2, "token")
    assert not (tmp_path / "none").exists()
    with Client(served.url, made["secret"]) as client:
        frame = client.frames(own)[0]["id"]
        here = counts(served.data, own)[0]
        for detector, array in here.items():
            np.testing.assert_array_equal(client.frame_array(own, frame, detector), array)
            picture = Image.open(io.BytesIO(client.frame_image(own, frame, detector)))
            assert picture.size[::-1] == array.shape[-2:]
        with h5py.File(io.BytesIO(client.frame_file(own, frame))) as file:
            assert list(file)


@pytest.fixture
def handlers_put_back() -> Iterator[None]:
    """What a command that waits for Ctrl-C does when it comes is done no more once it has ended here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers_put_back")
def test_a_second_serve_and_a_port_in_use(served: Installation, tmp_path: Path) -> None:
    serve, worker = (str(served.pid(role)) for role in ("serve", "worker-left"))  # they are there before others try
    stempilot("serve", "--data", served.data).complains(6, serve)
    port = str(json.loads((served.data / "run" / "serve.json").read_text())["port"])
    stempilot("serve", "--data", tmp_path / "other", "--port", port).complains(2, f"port {port}", "in use")
    assert not (tmp_path / "other" / "run" / "serve.json").exists()
    stempilot("worker", "--instrument", "left", "--data", served.data).complains(6, worker)
    stempilot("run", RASTER, "--data", served.data).complains(6, "being written")


@pytest.mark.ends_the_shared
def test_ctrl_c_ends_every_process(served: Installation) -> None:
    own = served.submit(*on("right"), "--set", "budget.frames=40")
    served.has_frames(own, 1)
    processes = served.processes()
    assert len(processes) >= 7
    assert "every process has ended" in served.end()
    assert served.processes() == []
    assert not [process for process in processes if process.is_running()]
    entry = served.entry(own)
    assert entry["status"] == "interrupted"
    assert "worker was stopped" in entry["reason"]
