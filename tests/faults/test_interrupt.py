"""Ctrl-C once finishes the frame, blanks and saves; twice leaves at once. `resume` goes on as if undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.harness import (
    RASTER,
    acknowledged,
    data_folder,
    event_count,
    process,
    stempilot,
    without_ids,
)

pytestmark = [pytest.mark.faults, pytest.mark.slow]
FRAMES = 8
# Frames of a quarter of a second of computing and more, so that a second Ctrl-C comes while one is being taken.
OPTIONS = (
    "--engine", "local", "--no-baselines", "--no-report", "--seed", "5", "--set", f"budget.frames={FRAMES}",
    "--set", "policy.options.field_of_view_nm=12", "--set", "policy.options.pixel_size_nm=0.04",
    "--set", "policy.options.dwell_time_us=4", "--set", "policy.options.probe_current_pa=10",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    data = data_folder(tmp_path_factory.mktemp("calm"), forward_model)
    return stempilot("run", RASTER, "--data", data, *OPTIONS, "--json").expect(0).document


def started(data: Path, *, events: int) -> subprocess.Popen[str]:
    """A run that has come some way."""
    running = process("run", RASTER, "--data", data, *OPTIONS)
    while event_count(data) < events:
        assert running.poll() is None, running.communicate()
        time.sleep(0.005)
    return running


def test_once_finishes_the_frame_and_says_how_to_resume(data: Path, undisturbed: dict[str, object]) -> None:
    running = started(data, events=10)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate()
    assert running.returncode == 130, stdout + stderr
    assert stderr == ""
    shown = stempilot("show", "latest", "--data", data, "--json").document
    assert shown["status"] == "interrupted"
    assert "interrupted" in shown["reason"]
    assert f"stempilot resume {shown['id']}" in stdout
    assert "beam blanked" in stdout
    assert 0 < len(shown["frames"]) < FRAMES
    assert [decision["status"] for decision in shown["decisions"]] == ["done"] * len(shown["frames"])
    resumed = stempilot("resume", shown["id"], "--data", data, "--json").expect(0).document
    assert resumed["status"] == "completed"
    assert without_ids(resumed) == without_ids(undisturbed)
    assert resumed["truth"] == undisturbed["truth"]
    assert {frame["id"] for frame in shown["frames"]} <= {frame["id"] for frame in resumed["frames"]}


def test_twice_leaves_at_once(data: Path, undisturbed: dict[str, object]) -> None:
    running = started(data, events=10)
    running.send_signal(signal.SIGINT)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("interrupted"):
            break
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate()
    assert running.returncode == 130, stdout + stderr
    assert "Traceback" not in stderr
    kept = acknowledged(data)
    assert 0 < len(kept) < FRAMES
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)
    assert set(kept) <= {frame["id"] for frame in resumed["frames"]}


def test_before_the_first_frame(data: Path, undisturbed: dict[str, object]) -> None:
    """The experiment exists, nothing is exposed yet."""
    running = started(data, events=1)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate()
    assert running.returncode == 130, stdout + stderr
    assert "Traceback" not in stderr
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)


def test_a_dead_run_keeps_nobody_out(data: Path, undisturbed: dict[str, object]) -> None:
    """Resume at once after the process is gone; while it lives, the folder is its own."""
    running = started(data, events=8)
    stempilot("resume", "latest", "--data", data).complains(6, str(running.pid))
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    interrupted = stempilot("show", "latest", "--data", data, "--json").document
    assert interrupted["status"] == "running"
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)


def test_terminated_like_interrupted(data: Path) -> None:
    running = started(data, events=8)
    running.send_signal(signal.SIGTERM)
    stdout, _ = running.communicate()
    assert running.returncode == 130
    assert "stempilot resume" in stdout
