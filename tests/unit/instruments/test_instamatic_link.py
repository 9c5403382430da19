"""The line to an instamatic server: replies without frames, of the wrong kind, of another client, or late."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from instruments import CommandRefused, InstrumentBusy, LinkLost, ResultUnknown, Unsupported
from instruments.adapters.instamatic_link import InstamaticLink, flag, nothing, number, numbers, word

Reply = Callable[[dict[str, Any]], list[bytes]]
"""What a server sends for a request, in pieces."""


def echoed(request: dict[str, Any]) -> list[bytes] | None:
    """The reply of a good server to a greeting; None for any other request."""
    name = request["func_name"]
    if not name.startswith("echo_"):
        return None
    return [json.dumps([500, ["AttributeError", [f"no attribute {name!r}"]]]).encode()]


@contextmanager
def served(reply: Reply, *, greets: bool = True) -> Iterator[int]:
    """A server that takes one connection after another, as long as the test runs."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with plain, suppress(OSError):
                while data := plain.recv(1024):
                    request = json.loads(data)
                    for piece in (echoed(request) if greets else None) or reply(request):
                        plain.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextmanager
def linked(reply: Reply, answer_s: float = 5.0, *, greets: bool = True) -> Iterator[InstamaticLink]:
    with served(reply, greets=greets) as port:
        link = InstamaticLink("127.0.0.1", port, answer_s)
        try:
            yield link
        finally:
            link.close()


def says(status: int, value: Any) -> Reply:
    return lambda _: [json.dumps([status, value]).encode()]


def test_a_reply_in_pieces_with_lists_in_it_is_read_to_its_end() -> None:
    text = json.dumps([200, [1, 2, 3, -0.5, 1e-3]]).encode()
    with linked(lambda _: [text[:9], text[9:14], text[14:]]) as link:
        assert link.ask("getStagePosition", numbers(5)) == (1.0, 2.0, 3.0, -0.5, 1e-3)
        assert link.ask("getStagePosition", numbers(5))[0] == 1.0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (nothing, 0),
        (flag, "up"),
        (flag, 7),
        (word, 3),
        (number, True),
        (number, None),
        (numbers(2), [1]),
        (numbers(2), 4),
        (number, float("nan")),
        (numbers(2), [1.0, float("inf")]),
        (numbers(2), [1.0, "2"]),
    ],
)
def test_a_reply_of_another_kind_is_not_taken(kind: Callable[[Any], Any], value: Any) -> None:
    with linked(says(200, value)) as link, pytest.raises(LinkLost, match="is another client connected"):
        link.ask("anything", kind)


@pytest.mark.parametrize(
    ("raised", "error"),
    [("TEMValueError", CommandRefused), ("AttributeError", Unsupported), ("NotImplementedError", Unsupported)],
)
def test_what_the_server_raises_has_its_meaning(raised: str, error: type[Exception]) -> None:
    with linked(says(500, [raised, ["no such thing"]])) as link, pytest.raises(error, match="no such thing"):
        link.ask("setScreenPosition", nothing, "sideways")


def test_a_server_that_does_not_echo_is_not_used() -> None:
    asked: list[str] = []

    def reply(request: dict[str, Any]) -> list[bytes]:
        asked.append(request["func_name"])
        return [json.dumps([200, None]).encode()] * 4

    with linked(reply, greets=False) as link, pytest.raises(LinkLost, match="is another client connected"):
        link.ask("setBeamBlank", nothing, False)
    assert "setBeamBlank" not in asked


def test_answers_to_others_before_the_echo_are_passed_over() -> None:
    def reply(request: dict[str, Any]) -> list[bytes]:
        others = [json.dumps([200, "up"]).encode()] if request["func_name"].startswith("echo_") else []
        return [*others, *(echoed(request) or [json.dumps([200, 5]).encode()])]

    with linked(reply, greets=False) as link:
        assert link.ask("getSpotSize", number) == 5.0


def test_a_server_that_pickles_is_named() -> None:
    with linked(lambda _: [b"\x80\x04K\x01."], greets=False) as link, pytest.raises(LinkLost, match="json"):
        link.ask("getSpotSize", number)


def test_a_request_too_long_for_the_server_is_not_sent() -> None:
    with linked(says(200, None)) as link, pytest.raises(CommandRefused, match="1024"):
        link.ask("setScreenPosition", nothing, "x" * 1024)


def test_a_stop_breaks_off_the_call_that_holds_the_line() -> None:
    """The server never answers the first call; the stop does not wait for it longer than its own patience."""
    is_asked = threading.Event()

    def reply(request: dict[str, Any]) -> list[bytes]:
        if request["func_name"] == "hang":
            is_asked.set()
            return []
        return [json.dumps([200, None]).encode()]

    errors: list[Exception] = []
    with linked(reply, answer_s=0.5) as link:

        def hang() -> None:
            try:
                link.ask("hang", nothing)
            except (LinkLost, InstrumentBusy) as error:
                errors.append(error)

        hanging = threading.Thread(target=hang)
        hanging.start()
        assert is_asked.wait(60)
        link.at_once("setBeamBlank", nothing, True)
        hanging.join()
    assert len(errors) == 1


def test_one_owner_at_a_time_and_the_next_after_it() -> None:
    with served(says(200, None)) as port:
        first = InstamaticLink("127.0.0.1", port, 5.0)
        with pytest.raises(InstrumentBusy, match="close the other one"):
            InstamaticLink("127.0.0.1", port, 5.0)
        first.close()
        first.close()
        InstamaticLink("127.0.0.1", port, 5.0).close()


def test_an_unblank_whose_answer_was_lost_is_not_sent_again() -> None:
    sent: list[Any] = []

    def breaks_off(request: dict[str, Any]) -> list[bytes]:
        sent.append(request["args"])
        raise OSError("broken off")

    with linked(breaks_off) as link:
        with pytest.raises(ResultUnknown):
            link.ask("setBeamBlank", nothing, False)
        assert sent == [[False]]
        with pytest.raises(LinkLost):
            link.ask("setBeamBlank", nothing, True)
        assert sent == [[False], [True], [True]]
