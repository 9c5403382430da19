"""Following a journal over lines that break: every event once, and no giving up while the service answers well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.client import Client
from orchestrator.client_stream import events_of
from orchestrator.errors import NotFound, Unreachable


def sent(seq: int, **payload: Any) -> str:
    return f"id: {seq}\nevent: note\ndata: {json.dumps({'seq': seq, **payload}, ensure_ascii=False)}\n\n"


class Broken(httpx.SyncByteStream):
    """A body that ends in the middle of the connection."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[bytes]:
        yield from (text.encode() for text in self.texts)
        raise httpx.ReadError("connection reset")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.client.wait_s", lambda trial: 0.0)


def test_lines_end_at_line_feeds_alone() -> None:
    texts = [
        sent(1, said="one\u2028two\x85three"),
        ": still here\n\n",
        sent(2)[:9],
        sent(2)[9:],
        "event: end\ndata: {}\n\n",
    ]
    answer = httpx.Response(200, content=(text.encode() for text in texts))
    assert list(events_of(answer)) == [{"seq": 1, "said": "one\u2028two\x85three"}, {"seq": 2}, None]


def test_streams_that_break_without_news_are_no_failures() -> None:
    """Twenty connections cut before anything happened, then an event: a proxy that ends what is silent."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["last-event-id"])
        if len(asked) <= 20:
            return httpx.Response(200, stream=Broken("retry: 1000\n\n", sent(4) if len(asked) == 10 else ""))
        return httpx.Response(204)

    with Client("http://127.0.0.1:9", transport=httpx.MockTransport(answer)) as client:
        assert list(client.follow("0" * 32, after=3)) == [{"seq": 4}]
    assert asked == ["3"] * 10 + ["4"] * 11


def test_a_stream_that_just_ends_is_asked_for_again() -> None:
    answers = [httpx.Response(200, text=sent(1)), httpx.Response(200, text=sent(2) + "event: end\ndata: {}\n\n")]
    with Client("http://127.0.0.1:9", transport=httpx.MockTransport(lambda request: answers.pop(0))) as client:
        assert [event["seq"] for event in client.follow("0" * 32)] == [1, 2]


def test_a_service_that_does_not_answer_is_given_up_and_a_refusal_is_said() -> None:
    count = 0

    def nobody(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise httpx.ConnectError("refused", request=request)

    with (
        Client("http://127.0.0.1:9", transport=httpx.MockTransport(nobody)) as client,
        pytest.raises(Unreachable, match="the last event seen was 3"),
    ):
        list(client.follow("0" * 32, after=3))
    assert count == 6
    told = {"type": "urn:stempilot:problem:not-found", "detail": "no experiment"}
    gone = httpx.MockTransport(lambda request: httpx.Response(404, json=told))
    with Client("http://127.0.0.1:9", transport=gone) as client, pytest.raises(NotFound, match="no experiment"):
        list(client.follow("0" * 32))
