"""What is too much of one client is told when to come again, and nobody else suffers for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestrator.api.limits import REFUSALS_AT_ONCE, WRITES_AT_ONCE, Allowance, Limits
from orchestrator.client import Client
from orchestrator.errors import TooManyRequests
from tests.unit.orchestrator.api.serving import V1, Service, accept, serve, submission

CHECK = f"{V1}/experiments:validate"


@pytest.fixture
def clock() -> list[float]:
    """Seconds on a clock that a test moves."""
    return [100.0]


@pytest.fixture
def limited(data: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service with tokens, three writes at once, then two a second."""
    monkeypatch.setattr("orchestrator.api.limits.WRITES_AT_ONCE", 3)
    (data / "stempilot.toml").write_text("[serve]\nwrites_per_s = 2.0\n")
    service = serve(data, check=accept, with_tokens=True)
    service.app.state.limits = Limits(service.app.state.services.settings.serve.writes_per_s, lambda: clock[0])
    yield service
    service.catalogue.close()


def test_an_allowance_is_used_up_and_grows_again() -> None:
    now = [0.0]
    allowance = Allowance(2, 0.5, lambda: now[0])
    assert [allowance.take("anna") for _ in range(3)] == [0.0, 0.0, 2.0]
    assert allowance.take("bob") == 0.0
    now[0] = 1.5
    assert allowance.take("anna") == pytest.approx(0.5)
    now[0] = 2.0
    assert [allowance.take("anna"), allowance.take("anna")] == [0.0, 2.0]
    now[0] = 1e6
    assert [allowance.take("anna") for _ in range(3)] == [0.0, 0.0, 2.0]
    assert [Allowance(1, 0.0, lambda: 0.0).take("anna") for _ in range(9)] == [0.0] * 9


def test_writes_are_counted_for_each_token(limited: Service, clock: list[float]) -> None:
    anna, bob = (limited.client(limited.token("admin", name=name)) for name in ("anna", "bob"))
    answers = [anna.post(CHECK, json=submission()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["type"] == "urn:stempilot:problem:too-many"
    assert (answers[-1].headers["retry-after"], "2 a second" in answers[-1].json()["detail"]) == ("1", True)
    assert anna.get(f"{V1}/queue").status_code == 200
    assert bob.post(CHECK, json=submission()).status_code == 200
    for _ in range(5):
        assert anna.post(f"{V1}/stop").status_code == 200
    clock[0] += 0.5
    assert [anna.post(CHECK, json=submission()).status_code for _ in range(2)] == [200, 429]


def test_without_tokens_writes_are_counted_for_each_address(service: Service) -> None:
    limits = service.app.state.limits = Limits(20.0, lambda: 0.0)
    client = service.client()

    def write() -> int:
        return client.post(f"{V1}/experiments/{'0' * 32}/hold").status_code

    assert write() == 404
    for _ in range(WRITES_AT_ONCE - 2):
        limits.count_write("testclient")  # what the requests between the first and the last ones would do
    assert [write() for _ in range(2)] == [404, 429]


def test_tokens_that_open_nothing_are_counted_for_their_address(limited: Service, clock: list[float]) -> None:
    wrong = limited.client(f"stempilot_{'0' * 32}_{'0' * 64}")
    good = limited.client(limited.token("read", "instruments:control"))

    def ask() -> Any:
        return wrong.get(f"{V1}/whoami")

    assert [ask().status_code for _ in range(REFUSALS_AT_ONCE + 1)] == [401] * REFUSALS_AT_ONCE + [429]
    assert ask().headers["retry-after"] == "6"
    assert wrong.post(f"{V1}/stop").status_code == 401  # whoever may stop is found out, whatever happened before
    assert good.get(f"{V1}/whoami").status_code == 200
    assert limited.client().get(f"{V1}/whoami").status_code == 401
    clock[0] += 6.0
    assert [ask().status_code for _ in range(2)] == [401, 429]


def test_the_login_page_is_no_way_around_it(limited: Service) -> None:
    client = limited.client()
    form = client.get("/login").text.partition('name="csrf" value="')[2].partition('"')[0]
    answers = [client.post("/login", data={"csrf": form, "token": f"guess-{count}"}) for count in range(11)]
    assert [answer.status_code for answer in answers] == [401] * REFUSALS_AT_ONCE + [429]


def test_the_client_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("orchestrator.client.time", SimpleNamespace(sleep=waited.append))
    told = {"type": "urn:stempilot:problem:too-many", "title": "", "status": 429, "detail": "come again in 3 s"}
    answers = [httpx.Response(429, json=told, headers={"Retry-After": "3"}), httpx.Response(200, json={"name": "anna"})]
    transport = httpx.MockTransport(lambda request: answers.pop(0))
    with Client("http://127.0.0.1:9", transport=transport) as client:
        assert client.whoami() == {"name": "anna"}
    assert waited == [3.0]
    late = httpx.MockTransport(lambda request: httpx.Response(429, json=told, headers={"Retry-After": "60"}))
    with Client("http://127.0.0.1:9", transport=late) as client, pytest.raises(TooManyRequests, match="in 3 s"):
        client.whoami()
