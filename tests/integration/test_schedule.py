"""A schedule at a real Prefect server on loopback: due in seconds, submitted once, the scheduler killed or not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from orchestrator.api.idempotency import Replies
from orchestrator.catalogue import Catalogue
from orchestrator.errors import SpecError
from orchestrator.queue import ExperimentQueue
from tests.integration.harness import RASTER, process, stempilot
from tests.waiting import DEADLINE_S, until
from workflows.flows.schedule import Order, ScheduleBook, schedule_of
from workflows.flows.scheduler import Scheduler, Submitter
from workflows.prefect_server import FACTS_FILE, unreachable_because

ADD = ("schedule", "add", RASTER, "--every", "4", "--no-baselines")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Submitter]:
    with Catalogue.open(tmp_path / "data") as catalogue:
        yield Submitter(catalogue, ExperimentQueue(catalogue))


def order() -> Order:
    spec: dict[str, Any] = {"name": "nightly", "instrument": {"name": "simulated"}}
    return Order(spec=spec, seed=3, options={"seed": 3}, priority=2, submitted_by="anna")


def test_one_moment_is_submitted_once(kept: Submitter) -> None:
    first = kept.submit("deployment 22:00", order())
    assert kept.submit("deployment 22:00", order()) == first
    assert kept.submit("deployment 23:00", order()) != first
    entries = kept.queue.entries()
    assert [(entry.name, entry.priority, entry.submitted_by) for entry in entries] == [("nightly", 2, "anna")] * 2


def test_one_moment_is_submitted_once_by_two_at_a_time(kept: Submitter) -> None:
    """Both looked before either had submitted it."""
    first = kept.submit("deployment 22:00", order())

    class Late(Submitter):
        looks = 0

        def submitted(self, due: str) -> str | None:
            self.looks += 1
            return None if self.looks == 1 else super().submitted(due)

    assert Late(kept.catalogue, kept.queue).submit("deployment 22:00", order()) == first
    assert len(kept.queue.entries()) == 1


def test_a_moment_that_was_obeyed_is_remembered_longer_than_answers(kept: Submitter) -> None:
    """A scheduler that was off for weeks goes on with what it had begun, and does not submit it again."""
    first, clock = kept.submit("deployment 22:00", order()), kept.catalogue.now
    kept.catalogue.now = lambda: clock() + timedelta(days=30)
    assert Replies(kept.catalogue).forget_old() == 0
    assert kept.submitted("deployment 22:00") == first


def test_when_is_checked() -> None:
    for words, arguments in (
        ("one of them", (None, None, None)),
        ("one of them", ("0 22 * * *", 60.0, None)),
        ("--cron 'every night'", ("every night", None, None)),
        ("--timezone 'Mars'", ("0 22 * * *", None, "Mars")),
    ):
        with pytest.raises(SpecError, match=words):
            schedule_of(*arguments)


def server_url(data: Path) -> str | None:
    try:
        url = str(json.loads((data / "run" / FACTS_FILE).read_text(encoding="utf-8"))["url"])
    except (FileNotFoundError, ValueError):
        return None
    return url if unreachable_because(url) is None else None


def queued(data: Path) -> list[str]:
    with Catalogue.open(data, visitor=True) as catalogue:
        return [entry.id for entry in ExperimentQueue(catalogue).entries(statuses=("queued",))]


def moments(data: Path) -> list[str]:
    """For what moment each experiment was submitted."""
    with Catalogue.open(data, read_only=True) as catalogue:
        return [str(row.options["schedule"]) for row in catalogue.experiments()]


def removed_when_due(data: Path) -> list[str]:
    """What a scheduler says, one that found a flow run due whose schedule is removed before it begins."""
    book = ScheduleBook(server_url(data) or "", data)
    assert "every 4 s" in stempilot(*ADD, "--name", "rare", "--data", data).expect(0).stdout
    said: list[str] = []

    async def look_and_remove(client: PrefectClient) -> None:
        (deployment,) = [one for one in await book.deployments(client) if one.name.endswith("rare")]
        run = await client.create_flow_run_from_deployment(deployment.id)
        await client.delete_deployment(deployment.id)
        with Catalogue.open(data, shared=True) as catalogue:
            submitter = Submitter(catalogue, ExperimentQueue(catalogue))
            await asyncio.wait_for(Scheduler(submitter, lambda: book, said.append).begin(client, run, order()), 60)

    book.ask(look_and_remove)
    return said


@pytest.mark.slow
def test_due_at_a_real_server(data: Path) -> None:
    stempilot("schedule", "list", "--data", data).complains(5, "no Prefect server is known here")
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        running.append(process(*arguments, "--data", data, start_new_session=True))
        return running[-1]

    try:
        start("prefect-server")
        until(lambda: server_url(data), "Prefect's server")
        add = (*ADD, "--name", "often", "--data", data)
        assert "every 4 s" in stempilot(*add).expect(0).stdout
        stempilot(*add).complains(2, "there is a schedule 'often' already")
        scheduler = start("scheduler")
        until(lambda: queued(data), "an experiment in the queue")
        os.kill(scheduler.pid, signal.SIGKILL)
        scheduler.wait()
        before = len(queued(data))
        scheduler = start("scheduler")
        until(lambda: len(queued(data)) > before, "another after the restart")
        listed = stempilot("schedule", "list", "--data", data, "--json").expect(0).document["schedules"]
        assert [(one["name"], one["experiment"], one["instrument"]) for one in listed] == [
            ("often", "Small raster", "simulated")
        ]
        assert stempilot("schedule", "remove", "often", "--data", data).expect(0).stdout == "schedule often is gone\n"
        scheduler.terminate()
        said = scheduler.communicate(timeout=DEADLINE_S)
        assert scheduler.returncode == 0, said
        due = moments(data)
        assert len(set(due)) == len(due), "one moment was submitted twice"
        stempilot("schedule", "remove", "often", "--data", data).complains(5, "often")
        (removed,) = removed_when_due(data)
        assert removed.endswith("was removed when it was due; nothing is submitted")
        assert moments(data) == due
        assert stempilot("schedule", "list", "--data", data, "--json").document == {"schedules": []}
    finally:
        for child in running:
            if child.poll() is None:
                child.kill()
            child.communicate()
