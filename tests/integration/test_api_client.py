"""The client against a service in a process of its own: every call, lost answers, killed services, tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.api.examples import FILE_NAME, FILE_TEXT, SUBMISSION
from orchestrator.catalogue import Catalogue
from orchestrator.client import Client
from orchestrator.errors import Conflict, NotAllowed, NotFound, PreconditionFailed, SpecError, Unreachable
from orchestrator.queue import ExperimentQueue
from orchestrator.spec import ExperimentSpec
from tests.integration.api_process import DEADLINE_S, Api, served
from tests.integration.harness import SPECS
from tests.ports import unused_port


@pytest.fixture(scope="module")
def open_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service without tokens."""
    with served(tmp_path_factory.mktemp("open"), "--no-tokens") as api:
        yield api


@pytest.fixture
def client(open_api: Api) -> Iterator[Client]:
    with Client(open_api.url) as client:
        yield client


@pytest.fixture(scope="module")
def spec() -> ExperimentSpec:
    return ExperimentSpec.from_yaml(SPECS / "small_raster.yaml")


def test_from_submission_to_its_end(client: Client, spec: ExperimentSpec, open_api: Api) -> None:
    entry = client.submit(spec, seed=3, priority=2, baselines=False)
    own = entry["id"]
    assert (entry["status"], entry["priority"]) == ("queued", 2)
    assert entry["wait_reason"]
    assert client.experiment(own)["spec"]["specimen"]["structure"].startswith("sha256:")
    assert client.experiment("latest")["id"] == own
    assert client.experiment(own[:16].upper())["queue"]["version"] == entry["version"]
    assert client.hold(own, reason="the specimen is not ready")["status"] == "held"
    with pytest.raises(Conflict) as conflict:
        client.pause(own)
    assert (conflict.value.status, conflict.value.possible) == ("held", ("release", "cancel"))
    with pytest.raises(PreconditionFailed):
        client.release(own, if_version=entry["version"])
    released = client.release(own)
    changed = client.change(own, if_version=released["version"], priority=7, labels={"shift": "night"})
    assert (changed["priority"], client.queue()[0]["id"]) == (7, own)
    cancelled = client.cancel(own, reason="enough")
    assert (cancelled["status"], client.status(own)["reason"]) == ("cancelled", "cancelled by local: enough")
    assert client.events(own)[0]["kind"] == "created"
    assert (client.decisions(own), client.frames(own)) == ([], [])
    with pytest.raises(Conflict, match="no report yet"):
        client.report(own)
    client.remove(own)
    with pytest.raises(NotFound):
        client.status(own)


def test_files_go_first_and_faults_come_back_as_the_command_line_says_them(
    client: Client, spec: ExperimentSpec, tmp_path: Path
) -> None:
    assert client.validate(spec) == []
    document = spec.model_dump(mode="json")
    document["budget"]["electrons"] = -1
    document["budgte"] = {}
    faults = client.validate(document)
    assert any(fault.startswith("budget.electrons: ") and "electrons" in fault for fault in faults)
    assert any(fault.startswith("budgte: unknown key; did you mean 'budget'?") for fault in faults)
    with pytest.raises(SpecError, match=r"budget\.electrons"):
        client.submit(document)
    gone = spec.model_copy(update={"specimen": spec.specimen.model_copy(update={"structure": tmp_path / "no.cif"})})
    with pytest.raises(SpecError, match="cannot be read"):
        client.submit(gone)
    (tmp_path / FILE_NAME).write_text(FILE_TEXT)
    assert client.upload(FILE_NAME, FILE_TEXT.encode()) == client.upload(FILE_NAME, FILE_TEXT.encode())


def test_a_stream_goes_on_until_the_end(client: Client, open_api: Api) -> None:
    client.upload(FILE_NAME, FILE_TEXT.encode())
    own = client.submit(SUBMISSION["spec"], hold=True)["id"]
    seen: list[dict[str, Any]] = []
    begun = threading.Event()

    def follow() -> None:
        with Client(open_api.url) as follower:
            for event in follower.follow(own):
                seen.append(event)
                begun.set()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert begun.wait(DEADLINE_S)
        client.release(own)
        with Catalogue.open(open_api.data, visitor=True) as beside:
            beside.append(own, "note", {"said": "by another process,\u2028 on two lines"})
            ExperimentQueue(beside).cancel(own)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    finally:
        client.cancel(own)
        thread.join(DEADLINE_S)
    assert seen == client.events(own)
    assert {"note", "status_changed"} <= {event["kind"] for event in seen}
    assert list(client.follow(own, after=seen[-1]["seq"])) == []
    assert list(client.follow(own, after=seen[-2]["seq"])) == seen[-1:]


def test_lost_answers_are_asked_for_again_and_nothing_is_done_twice(open_api: Api, client: Client) -> None:
    """Every second answer is lost on its way back: the write was done, the client cannot know."""
    client.upload(FILE_NAME, FILE_TEXT.encode())
    lost = 0

    class Lossy(httpx.BaseTransport):
        def __init__(self) -> None:
            self.inner, self.count = httpx.HTTPTransport(), 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal lost
            answer = self.inner.handle_request(request)
            self.count += 1
            if self.count % 2:
                answer.read()
                lost += 1
                raise httpx.ReadError("connection reset", request=request)
            return answer

        def close(self) -> None:
            self.inner.close()

    before = len(client.experiments())
    with Client(open_api.url, transport=Lossy()) as unlucky:
        entries = [unlucky.submit(SUBMISSION["spec"], seed=seed) for seed in range(5)]
        for entry in entries:
            unlucky.cancel(entry["id"])
    assert lost >= 10
    assert len(client.experiments()) == before + 5
    assert {client.status(entry["id"])["status"] for entry in entries} == {"cancelled"}


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.client_errors._FIRST_WAIT_S", 0.001)
    with (
        Client(f"http://127.0.0.1:{unused_port()}") as nobody,
        pytest.raises(Unreachable, match="is `stempilot serve` running there"),
    ):
        nobody.queue()


def test_what_is_acknowledged_survives_kills_and_nothing_is_there_twice(tmp_path: Path) -> None:
    """Eight clients submit while the service is killed twice and started again: R1 durable, R2 one each."""
    count, kills = 96, 2
    with served(tmp_path, "--no-tokens") as api:
        with Client(api.url) as client:
            client.upload(FILE_NAME, FILE_TEXT.encode())
            client.submit(SUBMISSION["spec"])  # the check of this spec is remembered from now on
        done = threading.Semaphore(0)

        def submit(number: int) -> str:
            end_s = time.monotonic() + DEADLINE_S
            while True:
                try:
                    with Client(api.url) as own:
                        entry = own.submit(SUBMISSION["spec"], seed=number, key=f"run-{number}")
                except Unreachable:
                    assert time.monotonic() < end_s
                else:
                    done.release()
                    return str(entry["id"])

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(submit, number) for number in range(count)]
            for _ in range(kills):
                for _ in range(count // (kills + 2)):
                    done.acquire()
                api.kill()
                api.start()
            acknowledged = {job.result(): number for number, job in enumerate(jobs)}
        assert len(acknowledged) == count
    with Catalogue.open(tmp_path, visitor=True) as catalogue:
        stored = {row.id: row.seed for row in catalogue.experiments()}
        queued = ExperimentQueue(catalogue).entries(limit=500)
    assert len(stored) == count + 1
    assert {own: stored[own] for own in acknowledged} == acknowledged
    assert {entry.id for entry in queued} == set(stored)


def test_tokens_from_the_first_one_on(tmp_path: Path) -> None:
    with served(tmp_path) as api:
        with Client(api.url) as nobody, pytest.raises(NotAllowed, match="no token was given"):
            nobody.queue()
        first = api.first_token()
        with Client(api.url, first) as admin:
            assert admin.whoami()["scopes"] == ["admin"]
            made = admin.create_token("anna", ["read"], datetime.now(UTC) + timedelta(days=1))
            with Client(api.url, made["secret"]) as anna:
                assert anna.queue() == []
                with pytest.raises(NotAllowed, match="experiments:write"):
                    anna.submit({"name": "x"})
                admin.revoke_token(made["id"])
                with pytest.raises(NotAllowed, match="revoked"):
                    anna.queue()
            assert [token["name"] for token in admin.tokens()] == ["first-admin", "anna"]
    assert set(api.tokens_said()) == {first}
