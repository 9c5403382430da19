"""Tokens, kept answers and uploads on PostgreSQL: what the other tests of this folder say of SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.catalogue import schema
from orchestrator.errors import StorageError
from tests.unit.orchestrator.api.serving import STRUCTURE, V1, Service, accept, serve, submission, submitted, upload

SUBMIT = f"{V1}/experiments"


@pytest.fixture
def guarded(tmp_path: Path, postgresql_database: str) -> Iterator[Service]:
    """A service with tokens on PostgreSQL."""
    service = serve(tmp_path / "data", check=accept, with_tokens=True, url=postgresql_database)
    assert service.catalogue.database.dialect == "postgresql"
    yield service
    service.catalogue.close()


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key, "If-Match": "*"}


def kept(service: Service) -> set[str]:
    """Keys whose answers are kept."""
    with service.catalogue.database.reading() as connection:
        return set(connection.execute(select(schema.idempotency.c.key)).scalars())


def test_tokens_and_files(guarded: Service) -> None:
    admin = guarded.client(guarded.token("admin"))
    expires = (guarded.catalogue.now() + timedelta(days=1)).isoformat()
    body = {"name": "bob", "scopes": ["read", "experiments:write"], "expires_at": expires}
    made = [admin.post(f"{V1}/tokens", json=body, headers=keyed("t1")) for _ in range(2)]
    assert made[1].json() == {**made[0].json(), "secret": None}
    bob = guarded.client(made[0].json()["secret"])
    assert bob.get(f"{V1}/whoami").json() == {"name": "bob", "scopes": ["experiments:write", "read"], "tokens": True}
    assert upload(bob) == upload(bob)
    with guarded.catalogue.database.reading() as connection:
        (row,) = connection.execute(select(schema.upload)).mappings()
    assert (row["name"], row["size_bytes"]) == (STRUCTURE.name, STRUCTURE.stat().st_size)
    for _ in range(2):
        assert admin.delete(f"{V1}/tokens/{made[0].json()['id']}", headers=keyed("t2")).status_code == 204
    assert bob.get(f"{V1}/whoami").status_code == 401
    assert guarded.client(made[0].json()["secret"][:-1] + "x").get(f"{V1}/whoami").status_code == 401


def test_effect_and_answer_are_one_transaction(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    client = guarded.client(guarded.token("admin"))
    own = submitted(client)

    def fail(response: Any) -> None:
        raise StorageError("the server went away")

    writes = [("POST", SUBMIT, {"json": submission()}), ("PATCH", f"{SUBMIT}/{own}", {"json": {"priority": 3}}),
              ("POST", f"{SUBMIT}/{own}/hold", {}), ("DELETE", f"{SUBMIT}/{own}", {})]  # fmt: skip
    for count, (method, path, options) in enumerate(writes):
        send = partial(client.request, method, path, headers=keyed(f"k{count}"), **options)
        before = guarded.queue.entries()
        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.api.idempotency._answer", fail)
            assert send().status_code == 503
        assert guarded.queue.entries() == before
        done, again = send(), send()
        assert done.status_code < 300
        assert (again.content, again.headers["idempotency-replayed"]) == (done.content, "true")
    assert kept(guarded) == {f"k{count}" for count in range(len(writes))}
    clock = guarded.catalogue.now
    guarded.catalogue.now = lambda: clock() + timedelta(days=8)
    assert guarded.app.state.replies.forget_old(most=2) == 2
    assert kept(guarded) == {"k2", "k3"}
    assert guarded.app.state.replies.forget_old() == 2


def test_two_services_on_one_database_make_one_experiment_of_one_key(
    tmp_path: Path, guarded: Service, postgresql_database: str
) -> None:
    """Both work it out at the same time: one is stored, the other is asked to come again, and told of it."""
    both_are_there = threading.Barrier(2)

    def wait_for_the_other(spec: object) -> None:
        del spec
        both_are_there.wait(60)

    services = [serve(tmp_path / "data", check=wait_for_the_other, url=postgresql_database) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(lambda service: service.client().post(SUBMIT, json=submission(), headers=keyed("k")), services)
            )
        assert sorted(answer.status_code for answer in answers) == [201, 503]
        (entry,) = guarded.queue.entries()
        for service in services:
            again = service.client().post(SUBMIT, json=submission(), headers=keyed("k"))
            assert (again.json()["id"], again.headers["idempotency-replayed"]) == (entry.id, "true")
    finally:
        for service in services:
            service.catalogue.close()
