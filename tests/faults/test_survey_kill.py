"""A survey killed with kill -9 in the middle of a square: it goes on there, and no finished square is repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.catalogue import Catalogue
from tests.faults import warm_start
from tests.integration.harness import RASTER, ROOT, acknowledged, data_folder, event_count, stempilot, without_ids
from tests.waiting import DEADLINE_S

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def survey_file(folder: Path) -> Path:
    path = folder / "survey.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "Two squares", "template": str(RASTER),
                "set": {"budget.frames": 4, "instrument.config.time_scale": 10},  # a tenth of a second with the beam on
                "grid": {"rows": 1, "columns": 2, "side_nm": 26.0},
                "overview": {"mode": "maadf", "probe_current_pa": 10.0}, "order": "cleanest", "seed": 3,
                "reports": False,
            }
        )
    )  # fmt: skip
    return path


def squares_of(data: Path, survey_id: str) -> dict[str, dict[str, Any]]:
    with Catalogue.open(data, read_only=True) as catalogue:
        children = [(row.spec["labels"]["square"], row.id) for row in catalogue.children(survey_id)]
    assert len({name for name, _ in children}) == len(children), "a square was run twice"
    return {name: stempilot("show", own, "--data", data, "--json").expect(0).document for name, own in children}


# As `stempilot survey` does it with Prefect: the squares in a thread, signals in the main one. What the microscope is
# told by a stop is printed; an exposure takes a while.
IN_A_THREAD = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from workflows.assembly import open_here
from workflows.cli import flow_commands, main
from workflows.session import Session

def watched(adapter, config):
    microscope = open_here(adapter, {**config, "time_scale": 3000.0})
    stop = microscope.stop
    microscope.stop = lambda: (stop(), os.write(1, f"blanked: {microscope.read_state().beam_blanked}\\n".encode()))
    acquire = microscope.acquire
    microscope.acquire = lambda command: (os.write(1, b"exposing\\n"), acquire(command))[1]
    return microscope

flow_commands.Session = partial(Session, open_instrument=watched)
flow_commands._driven_by_prefect = lambda settings, survey, say: ThreadPoolExecutor(1).submit(survey.drive).result()
main()
"""


def test_a_second_interruption_stops_the_microscope(forward_model: Path, tmp_path: Path) -> None:
    data = data_folder(tmp_path, forward_model)
    arguments = ("survey", survey_file(tmp_path), "--data", data, "--where", "here")
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_THREAD, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        said: list[str] = []

        def hear(words: str) -> None:
            for line in running.stdout or ():
                said.append(line)
                if words in line:
                    return
            raise AssertionError(said)

        hear("exposing")
        running.send_signal(signal.SIGINT)
        hear("interrupted: finishing this frame")
        assert not any("blanked" in line for line in said), "once waits for the frame"
        running.send_signal(signal.SIGINT)
        hear("blanked: True")
        assert running.wait(120) == 130
        assert running.stdout.read() == ""
    assert acknowledged(data) == {}, "the frame was not waited for"


def test_killed_in_a_square(forward_model: Path, tmp_path: Path) -> None:
    path = survey_file(tmp_path)
    calm, data = data_folder(tmp_path, forward_model, "calm"), data_folder(tmp_path, forward_model)
    here = ("--engine", "local", "--where", "here")
    expected = stempilot("survey", path, "--data", calm, *here, "--json").expect(0).document
    assert expected["reason"] == "2 of 2 squares completed"
    page = Path(expected["report"]).read_text(encoding="utf-8")
    assert "clean" in page
    assert list(calm.rglob("report.html")) == [Path(expected["report"])], "squares without reports, as the file says"
    assert stempilot("report", expected["id"], "--data", calm).expect(0).stdout.strip() == expected["report"]
    theirs = squares_of(calm, expected["id"])
    ends = {"overview": 13, "first square": 22}  # events of the journal after which it is in the next one
    said, survey_id = tmp_path / "said", ""
    held: tuple[Path, int] | None = (data, 7)  # of nine frames: it does not get to the end before it is killed
    child = warm_start.start(said, "survey", path, "--data", data, *here, held=held)
    for after in ends.values():
        end_s = time.monotonic() + DEADLINE_S
        while child.is_alive() and event_count(data) < after and time.monotonic() < end_s:
            time.sleep(0.004)
        assert child.is_alive(), said.read_text()[-2000:]
        child.kill()
        child.join()
        with Catalogue.open(data, read_only=True) as catalogue:
            (survey_id,) = [row.id for row in catalogue.experiments()]
        held = None if after == ends["first square"] else held
        child = warm_start.start(said, "survey", "--resume", survey_id, "--data", data, *here, held=held)
    child.join()
    assert child.exitcode == 0, said.read_text()[-2000:]
    ours = squares_of(data, survey_id)
    assert list(ours) == list(theirs)
    for name, document in ours.items():
        assert document["status"] == "completed", name
        assert without_ids(document) == without_ids(theirs[name]), name
        assert document["electrons"] == theirs[name]["electrons"], name
    assert stempilot("survey", "--resume", survey_id, "--data", data, *here).status == 3
