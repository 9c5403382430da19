"""The desk at a server: what is still locked after somebody cleared a stop is said, and is no success."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from orchestrator.client import Client
from tests.unit.orchestrator.api.serving import URL, Service, accept, serve
from workflows.cli.queue_commands import estop
from workflows.desk import RemoteDesk


@pytest.fixture
def service(catalogue_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service without tokens, which every client of a desk reaches."""
    service = serve(catalogue_folder, check=accept)

    def answer(request: httpx.Request) -> httpx.Response:
        said = service.client().request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(said.status_code, content=said.content, headers=dict(said.headers))

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr("workflows.desk.Client", lambda url, token: Client(url, token, transport=transport))
    yield service
    service.catalogue.close()


def cleared(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> tuple[int, str]:
    """Exit status of `stempilot estop --clear --server URL`, and what it printed."""
    with pytest.raises(typer.Exit) as ended:
        estop(clear=True, server=URL, as_json=as_json)
    return ended.value.exit_code, capsys.readouterr().out


def test_what_is_still_locked_is_said(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.desk.emergency_stop(None, "anna", "smoke")
    service.queue.lock_instrument("replay", "anna", "smoke")  # which this service's instruments do not take away
    service.desk.lost.add("simulated")
    status, text = cleared(capsys, as_json=True)
    lines: dict[str, dict[str, Any]] = {line["instrument"]: line for line in json.loads(text)["instruments"]}
    known = ("is_reached", "beam_blanked", "is_locked", "is_queue_locked")
    assert [lines["replay"][name] for name in known] == [True, True, False, True]
    assert [lines["simulated"][name] for name in known] == [False, None, True, False]
    assert "simulated does not answer" in lines["simulated"]["message"]
    assert status == 4
    status, text = cleared(capsys, as_json=False)
    assert "replay: beam blanked, not locked, though the queue is: nothing starts; cleared" in text
    service.queue.unlock_instrument("replay", "anna")
    assert cleared(capsys, as_json=False)[0] == 4
    service.desk.lost.clear()
    status, text = cleared(capsys, as_json=False)
    assert status == 0
    assert text.splitlines() == [f"{name}: beam blanked, not locked; cleared" for name in ("replay", "simulated")]


def test_one_instrument_alone_is_cleared(service: Service) -> None:
    service.desk.emergency_stop(None, "anna", "smoke")
    (line,) = RemoteDesk(URL, None).clear("replay")
    assert (line["instrument"], line["is_locked"], line["is_queue_locked"]) == ("replay", False, False)
    assert service.desk.locks == {"simulated": "anna: smoke"}
