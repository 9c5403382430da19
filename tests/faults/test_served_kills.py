"""kill -9 of worker, Prefect server, `serve` and instrument process in turn during one experiment: as if nothing
had happened. And a run embedded in one process leaves nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import warm_start
from tests.integration.harness import CENSUS, RASTER, data_folder, event_count, process, stempilot, without_ids
from tests.integration.served import (
    SEED,
    Installation,
    assert_same_counts,
    configured,
    counts,
    installation,
)
from tests.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.slow]
FRAMES = 14
OPTIONS = ("--set", f"budget.frames={FRAMES}", "--set", "instrument.config.time_scale=25")


@pytest.fixture
def served(forward_model: Path, tmp_path: Path) -> Any:
    with installation(configured(data_folder(tmp_path, forward_model), "left", lease_s=10.0)) as started:
        yield started.serve()


def test_each_process_killed_in_turn(served: Installation, forward_model: Path, tmp_path: Path) -> None:
    """The processes that live go on; those that died are started again; the result is that of an undisturbed run."""
    calm = data_folder(tmp_path, forward_model, "calm")
    quick = ("--no-baselines", "--no-report", "--engine", "local", "--json")
    expected = stempilot("run", RASTER, "--data", calm, "--seed", SEED, *quick, *OPTIONS).expect(0).document
    own = served.submit("--instrument", "left", *OPTIONS)
    kept = killed_after(served, own, 2, "worker-left")
    kept |= killed_after(served, own, 4, "prefect")
    kept |= killed_after(served, own, 6, "instrument-left")
    kept |= killed_after(served, own, 8, "serve")
    living = {role: served.pid(role) for role in ("worker-left", "instrument-left", "watchdog")}
    served.serve()
    for role, pid in living.items():
        until(lambda: f"{role}: process {pid} was running already and is kept" in served.text(), role)  # noqa: B023
    served.reaches(own, "completed")
    document = served.document(own)
    assert without_ids(document) == without_ids(expected)
    assert document["truth"] == expected["truth"]
    assert_same_counts(counts(served.data, own), counts(calm, expected["id"]))
    assert {frame["id"]: frame["sha256"] for frame in document["frames"]}.items() >= kept.items()
    assert len({frame["decision_id"] for frame in document["frames"]}) == len(document["frames"])
    lost = [event for event in served.events(own, "status_changed") if "lost" in (event.payload["reason"] or "")]
    assert lost
    assert "every process has ended" in served.end()
    assert served.processes() == []


def killed_after(served: Installation, own: str, frames: int, role: str) -> dict[str, str]:
    """kill -9 of a role once there are so many frames; the frames acknowledged by then."""
    served.has_frames(own, frames)
    kept = {frame["id"]: frame["sha256"] for frame in served.document(own)["frames"]}
    assert served.entry(own)["status"] in ("running", "queued"), served.entry(own)
    served.kill(role)
    return kept


def test_a_killed_run_takes_its_prefect_server_along(forward_model: Path, tmp_path: Path) -> None:
    data = data_folder(tmp_path, forward_model)
    running = process("run", RASTER, "--data", data, "--no-baselines", "--set", "instrument.config.time_scale=1000")
    try:
        server = until(lambda: prefect_server_of(running.pid), "Prefect's server", waits_out=psutil.Error)
        until(lambda: event_count(data) > 3, "the first intent")
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
    assert psutil.wait_procs([server], timeout=120)[1] == []


def prefect_server_of(pid: int) -> psutil.Process | None:
    children = psutil.Process(pid).children(recursive=True)
    return next((child for child in children if "workflows.prefect_server" in child.cmdline()), None)


def test_ctrl_c_while_baselines_run(forward_model: Path, tmp_path: Path) -> None:
    """They are dropped, the measurement is not: resumable, and no process is left."""
    data = data_folder(tmp_path, forward_model)
    options = ("--engine", "local", "--set", "budget.frames=4", "--set", "budget.electrons=2.4e8")
    running = process("run", CENSUS, "--data", data, *options)
    assert running.stdout is not None
    assert any(line.startswith("running 5 baselines") for line in running.stdout)
    children = until(lambda: psutil.Process(running.pid).children(recursive=True), "processes of baselines")
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate()
    assert running.returncode == 130, stdout + stderr
    assert "stempilot resume" in stdout
    assert "Traceback" not in stderr
    assert psutil.wait_procs(children, timeout=60)[1] == []
    shown = stempilot("show", "latest", "--data", data, "--json").document
    assert (shown["status"], len(shown["frames"])) == ("interrupted", 4)
    assert "while the baselines ran" in shown["reason"]


def test_ctrl_c_while_a_run_is_put_back(forward_model: Path, tmp_path: Path) -> None:
    """Status 130 and how to go on, also before the loop has begun again."""
    data, said = data_folder(tmp_path, forward_model), tmp_path / "said"
    options = ("--no-baselines", "--no-report", "--engine", "local", "--set", "budget.frames=8", "--seed", "3")
    options += ("--set", "instrument.config.time_scale=25")
    running = warm_start.start(said, "run", RASTER, "--data", data, *options)
    until(lambda: event_count(data) > 12, "some frames")
    running.kill()
    running.join()
    before = event_count(data)
    resuming = warm_start.start(said, "resume", "latest", "--data", data)
    until(lambda: event_count(data) > before or not resuming.is_alive(), "the experiment to be taken up again")
    os.kill(resuming.pid or 0, signal.SIGINT)
    resuming.join()
    assert resuming.exitcode == 130, said.read_text()
    assert "stempilot resume" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert stempilot("show", "latest", "--data", data, "--json").document["status"] == "interrupted"
    stempilot("resume", "latest", "--data", data, "--json").expect(0)
