"""kill -9 at twenty random moments of one run, each followed by `stempilot resume`: as if nothing had happened."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.catalogue import Catalogue
from tests.faults import warm_start
from tests.integration.harness import RASTER, acknowledged, data_folder, event_count, stempilot, without_ids

pytestmark = [pytest.mark.faults, pytest.mark.slow]
KILLS, FRAMES = 20, 16
MOST = FRAMES - 1  # frames of a run that is to be killed: it gets no further, however late whoever kills it comes
# Exposures take a tenth of a second, so that moments fall into them as well.
# Fields overlap by a quarter, so that where four meet the dose limit refuses some: refusals are replayed as well.
OPTIONS = (
    "--engine", "local", "--no-baselines", "--no-report", "--seed", "11",
    "--set", f"budget.frames={FRAMES}",
    "--set", "budget.electrons=1e9",
    "--set", "policy.options.step_nm=3",
    "--set", "instrument.config.time_scale=8",
    "--set", "instrument.config.width_nm=40",
    "--set", "instrument.config.height_nm=40",
    "--set", "instrument.config.clean_fraction=0.3",
    "--set", "search_space.x_nm.low=-9",
    "--set", "search_space.x_nm.high=9",
    "--set", "search_space.y_nm.low=-20",
    "--set", "search_space.y_nm.high=20",
)  # fmt: skip


def wait_for(data: Path, child: BaseProcess, seconds: float, most_events: int) -> None:
    """Wait a time, but not for more than so many events in the journal: a fast machine must not get to the end."""
    before, until = event_count(data), time.monotonic() + seconds
    while child.is_alive() and time.monotonic() < until and event_count(data) < before + most_events:
        if len(acknowledged(data)) >= MOST:
            return
        time.sleep(0.004)


def after_delay(rng: np.random.Generator) -> Callable[[Path, BaseProcess], None]:
    """Wait a random time, whatever the process is doing then."""
    seconds = float(rng.uniform(0.05, 2.5))
    return lambda data, child: wait_for(data, child, seconds, 3)


def after_events(rng: np.random.Generator) -> Callable[[Path, BaseProcess], None]:
    """Wait until the journal has grown by a random number of events, then a random moment of the next step."""
    events, seconds = int(rng.integers(1, 6)), float(rng.uniform(0.0, 0.08))

    def wait(data: Path, child: BaseProcess) -> None:
        wait_for(data, child, 120.0, events)
        wait_for(data, child, seconds, 2)

    return wait


def moments(seed: int) -> Iterator[Callable[[Path, BaseProcess], None]]:
    """By the clock and by the journal in turn; the first by the journal, so that there is an experiment to resume."""
    rng = np.random.default_rng(seed)
    for ordinal in range(KILLS):
        yield after_delay(rng) if ordinal % 3 == 2 else after_events(rng)


def counts(data: Path, experiment_id: str) -> list[dict[str, np.ndarray]]:
    with Catalogue.open(data, read_only=True) as catalogue:
        return [dict(catalogue.load_frame(frame.id).counts) for frame in catalogue.frames(experiment_id)]


def document_of(data: Path) -> dict[str, Any]:
    return stempilot("show", "latest", "--data", data, "--json").expect(0).document


def test_killed_twenty_times(forward_model: Path, tmp_path: Path) -> None:
    calm, data, said = (
        data_folder(tmp_path, forward_model, "calm"),
        data_folder(tmp_path, forward_model),
        tmp_path / "said",
    )
    undisturbed = warm_start.start(tmp_path / "calm_said", "run", RASTER, "--data", calm, *OPTIONS)
    kept: dict[str, tuple[str, str, str]] = {}
    killed, arguments = 0, ("run", RASTER, *OPTIONS)
    for wait in moments(seed=20261121):
        child = warm_start.start(said, *arguments, "--data", data, held=(data, MOST))
        wait(data, child)
        assert child.is_alive(), f"ended after {killed} kills: {said.read_text()[-2000:]}"
        child.kill()
        child.join()
        killed += 1
        found = acknowledged(data)
        assert found.items() >= kept.items(), "an acknowledged frame was lost or changed"
        kept = found
        arguments = ("resume", "latest")
    assert killed == KILLS
    assert 0 < len(kept) < FRAMES
    last = warm_start.start(said, "resume", "latest", "--data", data)
    last.join()
    assert last.exitcode == 0, said.read_text()[-2000:]
    undisturbed.join()
    assert undisturbed.exitcode == 0, (tmp_path / "calm_said").read_text()[-2000:]
    compare(document_of(data), document_of(calm), data, calm, kept)


def compare(
    document: dict[str, Any], expected: dict[str, Any], data: Path, calm: Path, kept: dict[str, tuple[str, str, str]]
) -> None:
    """Nothing lost, nothing twice, everything as in the undisturbed run, and the world agrees."""
    assert document["status"] == "completed"
    assert without_ids(document) == without_ids(expected)
    assert {decision["status"] for decision in document["decisions"]} == {"done", "refused"}
    frames = document["frames"]
    decided = [frame["decision_id"] for frame in frames]
    assert len(decided) == len(set(decided)) == FRAMES
    by_id = {frame["id"]: (frame["decision_id"], frame["path"], frame["sha256"]) for frame in frames}
    assert by_id.items() >= kept.items()
    for frame in frames:
        assert hashlib.sha256((data / frame["path"]).read_bytes()).hexdigest() == frame["sha256"]
    on_disk = [path for path in (data / "experiments").rglob("frames/*") if path.is_file()]
    assert len(on_disk) == FRAMES
    for one, two in zip(counts(data, document["id"]), counts(calm, expected["id"]), strict=True):
        assert set(one) == set(two)
        assert all(np.array_equal(one[name], two[name]) for name in one)
    for key in ("electrons", "dose_max_e_per_a2", "instrument_time_s", "score", "summary", "truth"):
        assert document[key] == expected[key], key
    assert document["truth"]["true_electrons"] == pytest.approx(document["electrons"], rel=0.02)
