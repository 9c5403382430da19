"""Writes: what a second try does, what has changed meanwhile, and what a state does not allow."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.catalogue import folder, schema
from orchestrator.catalogue.database import Database
from orchestrator.errors import StorageError
from orchestrator.queue import ACTIONS, STATUSES, TRANSITIONS, Claim, possible_actions
from orchestrator.spec import ExperimentSpec
from tests.unit.orchestrator.api.serving import STRUCTURE, V1, Service, serve, submission, submitted, with_frames

SUBMIT = f"{V1}/experiments"
ANY: dict[str, str] = {"If-Match": "*"}


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_a_submission_is_there_when_it_is_acknowledged(service: Service, data: Path) -> None:
    answer = service.client().post(
        SUBMIT, json=submission(seed=7, priority=3, hold=True, baselines=False, not_after="2199-01-01T00:00:00Z")
    )
    own = answer.json()["id"]
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{SUBMIT}/{own}"
    assert answer.headers["etag"] == f'"{answer.json()["version"]}"'
    with sqlite3.connect(f"file:{data / 'catalogue.sqlite'}?mode=ro", uri=True) as beside:
        row = beside.execute("select seed, status, options, spec from experiment where id = ?", (own,)).fetchone()
    assert row[:2] == (7, "held")
    assert json.loads(row[2])["baselines"] is False
    document = service.client().get(answer.headers["location"]).json()
    assert document["spec"] == json.loads(row[3])
    assert document["queue"]["priority"] == 3
    assert document["queue"]["wait_reason"] == "held at submission by local"


def test_the_same_key_gives_the_same_answer_and_one_experiment(service: Service) -> None:
    client = service.client()
    answers = [client.post(SUBMIT, json=submission(), headers=keyed("k1")) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert {answer.headers["location"] for answer in answers} == {answers[0].headers["location"]}
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert len(service.queue.entries()) == 1
    assert client.post(SUBMIT, json=submission(), headers=keyed("k2")).json()["id"] != answers[0].json()["id"]


def test_a_key_belongs_to_one_request(service: Service) -> None:
    client = service.client()
    own = client.post(SUBMIT, json=submission(), headers=keyed("k1")).json()["id"]
    for path, body in [("/experiments", submission(seed=1)), (f"/experiments/{own}/hold", {})]:
        answer = client.post(V1 + path, json=body, headers=keyed("k1"))
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:stempilot:problem:key-reused")
    assert client.post(SUBMIT, json=submission(), headers=keyed("no spaces")).status_code == 422
    assert service.queue.entry(own).status == "queued"
    assert client.post(f"{V1}/stop", json={}, headers=keyed("k1")).status_code == 200
    assert set(service.desk.locks) == {"replay", "simulated"}


def test_a_key_whose_answer_is_worked_out_is_in_flight(data: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(spec: ExperimentSpec) -> None:
        begun.set()
        assert go_on.wait(60)

    service = serve(data, check=slow)
    try:
        with ThreadPoolExecutor(1) as pool, service.client() as client:
            first = pool.submit(client.post, SUBMIT, json=submission(), headers=keyed("k1"))
            assert begun.wait(60)
            second = client.post(SUBMIT, json=submission(), headers=keyed("k1"))
            go_on.set()
            assert first.result().status_code == 201
            assert (second.status_code, second.headers["retry-after"]) == (409, "1")
            assert client.post(SUBMIT, json=submission(), headers=keyed("k1")).content == first.result().content
        assert len(service.queue.entries()) == 1
    finally:
        service.catalogue.close()


def test_what_was_refused_may_be_tried_again_with_its_key(service: Service) -> None:
    own = submitted(service.client())
    pause = f"{V1}/experiments/{own}/pause"
    assert service.client().post(pause, headers=keyed("k1")).status_code == 409
    service.queue.claim("simulated", "worker")
    assert service.client().post(pause, headers=keyed("k1")).status_code == 202


def _changes(own: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Writes that are rows of the database and nothing else, in an order in which each changes something."""
    return [
        ("POST", "/experiments", {"json": submission()}),
        ("PATCH", f"/experiments/{own}", {"json": {"priority": 4}}),
        ("POST", f"/experiments/{own}/hold", {}),
        ("POST", f"/experiments/{own}/release", {}),
        ("POST", f"/experiments/{own}/cancel", {"json": {"reason": "enough"}}),
        ("DELETE", f"/experiments/{own}", {}),
    ]


def _stored(service: Service) -> list[list[Any]]:
    """Every row that a write may touch."""
    tables = (schema.experiment, schema.queue_entry, schema.event, schema.api_token, schema.idempotency)
    with service.catalogue.database.reading() as connection:
        return [list(connection.execute(select(table).order_by(*table.primary_key))) for table in tables]


def test_effect_and_answer_are_one_transaction(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer cannot be kept: nothing was done either; the second try does it, the third is told of it."""
    client, expires = guarded.client(guarded.token("admin")), guarded.catalogue.now() + timedelta(days=1)
    other = client.post(
        f"{V1}/tokens", json={"name": "bob", "scopes": ["read"], "expires_at": expires.isoformat()}
    ).json()["id"]
    token = {"json": {"name": "eve", "scopes": ["read"], "expires_at": expires.isoformat()}}
    own = submitted(client)
    writes = [*_changes(own), ("POST", "/tokens", token), ("DELETE", f"/tokens/{other}", {})]

    def fail(response: Any) -> None:
        raise StorageError("the disk went away")

    for count, (method, path, options) in enumerate(writes):
        send = partial(client.request, method, V1 + path, headers={**ANY, **keyed(f"k{count}")}, **options)
        before = _stored(guarded)
        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.api.idempotency._answer", fail)
            assert send().status_code == 503, path
        assert _stored(guarded) == before, path
        done = send()
        assert done.status_code < 300, done.text
        after = _stored(guarded)
        assert after != before
        again = send()
        assert (again.status_code, again.headers["idempotency-replayed"]) == (done.status_code, "true")
        assert _stored(guarded) == after


@pytest.mark.parametrize("action", ["pause", "cancel", "resume"])
def test_a_wish_and_its_answer_are_one_transaction(
    service: Service, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    client, own = service.client(), submitted(service.client())
    service.queue.claim("simulated", "worker")
    if action == "resume":
        service.queue.pause(own)
    send = partial(client.post, f"{V1}/experiments/{own}/{action}", headers=keyed("k1"))
    before = service.queue.entry(own)

    def fail(response: Any) -> None:
        raise StorageError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.api.idempotency._answer", fail)
        assert send().status_code == 503
    assert service.queue.entry(own) == before
    assert send().json()["wanted"] == (None if action == "resume" else action)


def test_what_is_more_than_rows_repeats_harmlessly(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a check and a report are done, their answer is lost and not kept: the second try is as good."""
    client, data = service.client(), STRUCTURE.read_bytes()
    path = f"{V1}/files/{hashlib.sha256(data).hexdigest()}/{STRUCTURE.name}"
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.api.idempotency.Receipt.write", _lost)
        assert client.put(path, content=data, headers=keyed("file")).status_code == 503
        assert client.post(f"{SUBMIT}:validate", json=submission(), headers=keyed("check")).status_code == 503
    again = client.put(path, content=data, headers=keyed("file"))
    assert (again.status_code, again.json()["size_bytes"], client.get(path).content) == (200, len(data), data)
    assert client.post(f"{SUBMIT}:validate", json=submission(), headers=keyed("check")).json()["valid"] is True
    assert [path.name for path in (service.catalogue.data_folder / "uploads").iterdir()] == [path.split("/")[-2]]
    with service.catalogue.database.reading() as connection:
        assert len(list(connection.execute(select(schema.upload)))) == 1


def _lost(*arguments: Any) -> None:
    raise StorageError("the disk went away")


def test_a_lock_is_not_taken_away_twice_by_one_request(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleared, then the service died before it could say so; meanwhile somebody stopped the instrument again."""
    client, clear = service.client(), f"{V1}/instruments/simulated/clear"
    client.post(f"{V1}/instruments/simulated/stop", json={"reason": "smoke"})
    service.desk.lost.add("simulated")
    assert client.post(clear, headers=keyed("k1")).status_code == 502
    service.desk.lost.clear()  # known to have failed, so the same key may try again
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.api.idempotency.Receipt.end", _lost)
        assert client.post(clear, headers=keyed("k1")).status_code == 503
    assert service.desk.locks == {}
    client.post(f"{V1}/instruments/simulated/stop", json={"reason": "smoke again"})
    again = client.post(clear, headers=keyed("k1"))
    assert (again.status_code, again.json()["type"]) == (409, "urn:stempilot:problem:cut-off")
    assert service.desk.locks == {"simulated": "local: smoke again"}
    assert client.post(clear, headers=keyed("k2")).json()["locked"] is None
    assert client.post(clear, headers=keyed("k2")).headers["idempotency-replayed"] == "true"


def test_old_answers_go_while_the_service_runs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few at a time, the oldest first, never one that may still be asked for."""
    monkeypatch.setattr("orchestrator.api.idempotency.FORGOTTEN_EVERY", 3)
    client, clock = service.client(), service.catalogue.now
    check = partial(client.post, f"{SUBMIT}:validate", json=submission())

    def kept() -> set[str]:
        with service.catalogue.database.reading() as connection:
            return set(connection.execute(select(schema.idempotency.c.key)).scalars())

    for count in range(8):
        assert check(headers=keyed(f"old-{count}")).status_code == 200
    service.catalogue.now = lambda: clock() + timedelta(days=8)
    assert check(headers=keyed("new-0")).status_code == 200
    assert kept() == {"old-6", "old-7", "new-0"}
    for count in range(1, 4):
        assert check(headers=keyed(f"new-{count}")).status_code == 200
    assert kept() == {f"new-{count}" for count in range(4)}
    assert check(headers=keyed("new-0")).headers["idempotency-replayed"] == "true"


def test_every_write_takes_a_key_and_repeats_its_answer(guarded: Service) -> None:
    client = guarded.client(guarded.token("admin"))
    document = client.get(f"{V1}/openapi.json").json()
    writes = {(method, path) for path, methods in document["paths"].items() for method in methods if method != "get"}
    for method, path in writes - {("head", path) for path in document["paths"]}:
        names = {parameter["name"] for parameter in document["paths"][path][method]["parameters"]}
        assert "Idempotency-Key" in names, (method, path)
    own = submitted(client)
    tries: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", f"/experiments/{own}", {"json": {"priority": 4}}),
        ("POST", f"/experiments/{own}/hold", {}),
        ("POST", "/experiments:validate", {"json": submission()}),
        ("POST", "/instruments/simulated/clear", {}),
        ("DELETE", f"/experiments/{own}", {}),
    ]
    for count, (method, path, options) in enumerate(tries):
        headers = {**ANY, **keyed(f"key-{count}")}
        first, again = (client.request(method, V1 + path, headers=headers, **options) for _ in range(2))
        assert first.status_code < 300, first.text
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers.get("etag") == first.headers.get("etag")
        assert again.headers["idempotency-replayed"] == "true"


def test_a_change_needs_the_version_that_was_read(service: Service) -> None:
    client = service.client()
    own = submitted(client)
    url = f"{V1}/experiments/{own}"
    seen = client.get(url).headers["etag"]
    assert client.get(f"{url}/status").headers["etag"] == seen
    for method in ("patch", "delete"):
        body = {"json": {"priority": 1}} if method == "patch" else {}
        assert client.request(method, url, **body).status_code == 428
        assert client.request(method, url, headers={"If-Match": '"99"'}, **body).status_code == 412
        assert client.request(method, url, headers={"If-Match": "W/x"}, **body).status_code == 422
    changed = client.patch(url, json={"priority": 1, "labels": {"a": "b"}}, headers={"If-Match": seen})
    assert (changed.status_code, changed.json()["priority"]) == (200, 1)
    assert changed.headers["etag"] != seen
    assert client.patch(url, json={"priority": 2}, headers={"If-Match": seen}).status_code == 412
    assert client.post(f"{url}/hold", headers={"If-Match": seen}).status_code == 412
    assert client.post(f"{url}/hold").status_code == 200
    assert service.catalogue.experiment(own).spec["labels"] == {"a": "b"}


def test_a_time_can_be_taken_away_and_a_priority_cannot(service: Service) -> None:
    client = service.client()
    own = submitted(client, not_before="2199-01-01T00:00:00Z", priority=3)
    assert service.queue.entry(own).wait_reason == "not before 2199-01-01 00:00 UTC"
    answer = client.patch(
        f"{V1}/experiments/{own}", json={"not_before": None, "priority": None, "labels": None}, headers=ANY
    )
    assert (answer.json()["not_before"], answer.json()["priority"]) == (None, 3)


def test_windows_that_cannot_be_are_refused(service: Service) -> None:
    for window in (
        {"not_before": "2030-01-02T00:00:00Z", "not_after": "2030-01-01T00:00:00Z"},
        {"not_after": "2020-01-01T00:00:00Z"},
    ):
        answer = service.client().post(SUBMIT, json=submission(**window))
        assert (answer.status_code, "not_after" in answer.text) == (422, True)


def _reached(service: Service, status: str) -> str:
    """An experiment brought to a status by those who may."""
    own = submitted(service.client())
    if status in ("held", "cancelled"):
        {"held": service.queue.hold, "cancelled": service.queue.cancel}[status](own)
    elif status != "queued":
        claim = service.queue.claim("simulated", "worker")
        assert claim is not None
        assert claim.experiment_id == own
        if status != "running":
            service.queue.finish(claim, status, "for a test")
    return own


@pytest.mark.parametrize("status", STATUSES)
def test_actions_do_what_the_table_of_transitions_says(data: Path, status: str) -> None:
    """Each action in each status: done, wished, already so, or a conflict that says what is possible."""
    service = serve(data, check=lambda spec: None)
    client = service.client()
    try:
        for action, moves in ACTIONS.items():
            own = _reached(service, status)
            answer = client.post(f"{V1}/experiments/{own}/{action}", json={"reason": "a test"})
            after = service.queue.entry(own)
            if status == "running" and status in moves:
                assert (answer.status_code, answer.json()["wanted"], after.status) == (202, action, "running")
            elif status in moves:
                assert answer.status_code == 200
                assert after.status == moves[status]
                assert after.status in TRANSITIONS[status]
            elif answer.status_code == 200:  # it is so already
                assert after.status == status
                assert status in moves.values() or (action, status) == ("resume", "running")
            else:
                assert answer.status_code == 409
                assert answer.json()["current_status"] == status
                assert answer.json()["possible"] == list(possible_actions(status))
                assert after.status == status
            if after.status in ("queued", "held", "running"):
                _clear_away(service, own)
    finally:
        service.catalogue.close()


def _clear_away(service: Service, own: str) -> None:
    """Nothing is left that the next claim would take."""
    entry = service.queue.entry(own)
    if entry.status != "running":
        service.queue.cancel(own)
        return
    lease = service.queue.lease("simulated")
    assert lease is not None
    assert lease.holder is not None
    assert lease.expires_at is not None
    claim = Claim(
        experiment_id=own, instrument="simulated", holder=lease.holder, fence=lease.fence, resumes=False,
        expires_at=lease.expires_at,
    )  # fmt: skip
    service.queue.finish(claim, "completed", "for a test")


def test_frames_are_never_deleted(service: Service) -> None:
    client = service.client()
    own, other = with_frames(service), submitted(client)
    kept = client.delete(f"{V1}/experiments/{own}", headers=ANY)
    assert (kept.status_code, "frames are kept" in kept.json()["detail"]) == (409, True)
    assert client.delete(f"{V1}/experiments/{other}", headers=ANY).status_code == 204
    for url in (f"/experiments/{other}", f"/experiments/{other}/status", f"/experiments/{other}/events"):
        assert client.get(V1 + url).status_code == 404
    assert client.post(f"{V1}/experiments/{other}/hold").status_code == 404
    assert [line["id"] for line in client.get(SUBMIT).json()["experiments"]] == [own]


def test_an_experiment_started_without_the_queue_cannot_be_queued_about(service: Service) -> None:
    own = service.catalogue.create_experiment(
        name="embedded", spec=submission()["spec"], seed=0, engine="local", options={}
    )
    client = service.client()
    answer = client.post(f"{V1}/experiments/{own}/cancel")
    assert (answer.status_code, answer.json()["current_status"]) == (409, "running")
    assert client.get(f"{V1}/experiments/{own}").json()["queue"] is None


def test_a_full_disk_is_said_and_looking_goes_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    client = service.client()
    own = submitted(client)
    monkeypatch.setattr(folder, "free_bytes", lambda place: 4096)
    answer = client.post(SUBMIT, json=submission())
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:stempilot:problem:disk-full")
    assert int(answer.headers["retry-after"]) > 0
    assert "4096 bytes are free" in answer.json()["detail"]
    assert client.get(f"{V1}/experiments/{own}").status_code == 200
    ready = client.get(f"{V1}/ready")
    assert (ready.status_code, ready.json()["checks"]["storage"]) == (503, "the disk is full")
    assert "4096 bytes are free" in client.get(f"{V1}/ready/details").json()["checks"]["storage"]
    assert client.post(f"{V1}/stop").status_code == 200


def test_a_database_that_is_full_takes_nothing_half(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself says that there is no room: nothing is there that was not acknowledged, and later it goes on."""
    service = serve(data, check=lambda spec: None)
    client, limit = service.client(), _page_limit(service.catalogue.database)
    try:
        limit(1)
        answers = [client.post(SUBMIT, json=submission()) for _ in range(12)]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {201, 503}
        assert statuses[-1] == 503
        assert answers[-1].json()["type"].endswith("disk-full")
        assert len(service.queue.entries()) == statuses.count(201)
        limit(1_000_000)
        assert client.post(SUBMIT, json=submission()).status_code == 201
    finally:
        service.catalogue.close()


def _page_limit(database: Database) -> Callable[[int], None]:
    """Allow the database that many pages more, as a full disk would, in every connection there is."""

    def limit(more: int) -> None:
        with database.writing() as connection:
            count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {count + more}")

    return limit


def test_an_emergency_stop_is_confirmed_or_fails_loudly(service: Service) -> None:
    client = service.client()
    answer = client.post(f"{V1}/instruments/simulated/stop", json={"reason": "smoke"})
    assert (answer.status_code, service.desk.locks) == (200, {"simulated": "local: smoke"})
    assert client.get(f"{V1}/instruments/simulated/status").json()["locked"] == "local: smoke"
    assert client.post(f"{V1}/instruments/simulated/clear").json()["locked"] is None
    service.desk.lost.add("replay")
    doubtful = client.post(f"{V1}/stop")
    assert (doubtful.status_code, doubtful.json()["type"]) == (502, "urn:stempilot:problem:instrument")
    assert doubtful.json()["instruments"]["simulated"]["beam_blanked"] is True
    assert "replay" in doubtful.json()["detail"]
    assert set(service.desk.locks) == {"simulated", "replay"}
    assert client.post(f"{V1}/instruments/replay/clear").status_code == 502
    assert client.post(f"{V1}/instruments/nion/stop").status_code == 404
    states = {state["name"]: state for state in client.get(f"{V1}/instruments").json()["instruments"]}
    assert (states["replay"]["reachable"], states["simulated"]["reachable"]) == (False, True)
    assert client.get(f"{V1}/instruments/replay").json()["problem"].startswith("replay does not answer")


@pytest.mark.parametrize("path", ["/stop", "/instruments/simulated/stop"])
def test_a_stop_is_never_only_remembered(service: Service, path: str) -> None:
    """The same key twice, cleared in between: the instrument is stopped a second time."""
    client = service.client()
    for _ in range(2):
        answer = client.post(V1 + path, json={"reason": "smoke"}, headers=keyed("stop"))
        assert answer.status_code == 200
        assert "idempotency-replayed" not in answer.headers
        assert service.desk.locks["simulated"].endswith(": smoke")
        assert client.post(f"{V1}/instruments/simulated/clear").status_code == 200
        assert "simulated" not in service.desk.locks


def test_a_stop_needs_no_database(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was known before may stop while the database does not answer; a stranger may not."""
    token = guarded.token("instruments:control")
    stranger = guarded.token("instruments:control", name="eve")
    client = guarded.client(token)
    assert client.post(f"{V1}/stop").status_code == 200
    guarded.desk.locks.clear()

    def fail(database: Database) -> None:
        raise StorageError("the disk went away")

    assert guarded.tokens is not None
    monkeypatch.setattr("orchestrator.api.tokens._REMEMBERED_S", 0.0)
    monkeypatch.setattr(Database, "reading", fail)
    monkeypatch.setattr(Database, "writing", fail)
    assert client.post(f"{V1}/stop", headers=keyed("k1")).status_code == 200
    assert set(guarded.desk.locks) == {"replay", "simulated"}
    assert guarded.client(stranger).post(f"{V1}/stop").status_code == 503
    assert client.post(f"{V1}/instruments/simulated/clear").status_code == 503
