"""Ctrl-C once finishes the frame, blanks and saves; twice leaves at once. `resume` goes on as if undisturbed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.faults import warm_start
from tests.integration.harness import (
    RASTER,
    acknowledged,
    data_folder,
    event_count,
    process,
    stempilot,
    without_ids,
)
from tests.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.slow]
FRAMES = 5
# Frames with a second of beam each, nearly nothing of it computed: a second Ctrl-C comes while one is being taken, and
# no run gets to its end before the first.
OPTIONS = (
    "--engine", "local", "--no-baselines", "--no-report", "--seed", "5", "--set", f"budget.frames={FRAMES}",
    "--set", "instrument.config.time_scale=40",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    data = data_folder(tmp_path_factory.mktemp("calm"), forward_model)
    return stempilot("run", RASTER, "--data", data, *OPTIONS, "--json").expect(0).document


@dataclass
class Run:
    """A run in a process of its own, and what it says."""

    data: Path
    process: BaseProcess
    said: Path

    @property
    def text(self) -> str:
        return self.said.read_text()

    def signalled(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def status(self) -> int | None:
        """Its exit status, waited for."""
        self.process.join()
        return self.process.exitcode


@contextmanager
def started(data: Path, *, events: int) -> Iterator[Run]:
    """A run that has come some way."""
    said = data.with_name("said")
    running = Run(data, warm_start.start(said, "run", RASTER, "--data", data, *OPTIONS), said)
    try:
        until(lambda: event_count(data) >= events or not running.process.is_alive(), "a run that has come some way")
        assert running.process.is_alive(), running.text
        yield running
    finally:
        running.process.kill()
        running.process.join()


def test_once_finishes_the_frame_and_says_how_to_resume(data: Path, undisturbed: dict[str, object]) -> None:
    with process("run", RASTER, "--data", data, *OPTIONS) as running:
        try:
            until(lambda: event_count(data) >= 7 or running.poll() is not None, "a run that has come some way")
            running.send_signal(signal.SIGINT)
            stdout, stderr = running.communicate()
        finally:
            running.kill()
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
    with started(data, events=7) as running:
        running.signalled(signal.SIGINT)
        until(lambda: "interrupted: finishing this frame" in running.text, "the first to be heard")
        running.signalled(signal.SIGINT)
        assert running.status() == 130, running.text
    assert "Traceback" not in running.text
    kept = acknowledged(data)
    assert 0 < len(kept) < FRAMES
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)
    assert set(kept) <= {frame["id"] for frame in resumed["frames"]}


def test_before_the_first_frame(data: Path, undisturbed: dict[str, object]) -> None:
    """The experiment exists, nothing is exposed yet."""
    with started(data, events=1) as running:
        running.signalled(signal.SIGINT)
        assert running.status() == 130, running.text
    assert "Traceback" not in running.text
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)


def test_a_dead_run_keeps_nobody_out(data: Path, undisturbed: dict[str, object]) -> None:
    """Resume at once after the process is gone; while it lives, the folder is its own."""
    with started(data, events=4) as running:
        stempilot("resume", "latest", "--data", data).complains(6, str(running.process.pid))
        running.process.kill()
        running.process.join()
    interrupted = stempilot("show", "latest", "--data", data, "--json").document
    assert interrupted["status"] == "running"
    resumed = stempilot("resume", "latest", "--data", data, "--json").expect(0).document
    assert without_ids(resumed) == without_ids(undisturbed)


def test_terminated_like_interrupted(data: Path) -> None:
    with started(data, events=4) as running:
        running.signalled(signal.SIGTERM)
        assert running.status() == 130, running.text
    assert "stempilot resume" in running.text
