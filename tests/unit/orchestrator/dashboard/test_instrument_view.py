"""Instruments on the page: what they say, and what is shown of one that says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from instruments import InstrumentFault
from orchestrator.dashboard.instrument_view import MUTE, InstrumentBoard, instrument_view


class Desk:
    """Two instruments; `mute` answers only when it is let go, `lost` cannot be reached."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked = {"lost": 0, "mute": 0, "well": 0}

    def names(self) -> list[str]:
        return sorted(self.asked)

    def status(self, name: str) -> Mapping[str, Any]:
        self.asked[name] += 1
        if name == "lost":
            raise InstrumentFault("lost is not running; start it")
        if name == "mute":
            self.let_go.wait()
        return {"name": name, "beam_blanked": True}


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.let_go.set()


def test_a_mute_instrument_keeps_nobody_waiting(desk: Desk) -> None:
    now_s = 0.0
    board = InstrumentBoard(desk, patience_s=2.0, clock=lambda: now_s)
    for now_s in (0.0, 3.0, 6.0):  # noqa: B007 - the board's clock reads it
        states = board.states()
        assert states["mute"] == MUTE
        assert states["well"] == {"name": "well", "beam_blanked": True}
        assert states["lost"] == "lost is not running; start it"
    assert desk.asked == {"lost": 3, "mute": 1, "well": 3}
    desk.let_go.set()
    board.forget()
    assert board.states()["mute"] == {"name": "mute", "beam_blanked": True}


def test_many_lookers_ask_once(desk: Desk) -> None:
    desk.let_go.set()
    board = InstrumentBoard(desk, patience_s=30.0, clock=lambda: 0.0)
    for _ in range(5):
        board.states()
    assert desk.asked == {"lost": 1, "mute": 1, "well": 1}


@pytest.mark.parametrize(
    ("said", "beam", "words"),
    [
        ({"beam_blanked": False, "exposing": "a1"}, "on", "beam on, exposing"),
        ({"beam_blanked": False}, "on", "beam on"),
        ({"beam_blanked": True}, "off", "beam blanked"),
        ({"beam_blanked": None}, "unknown", "beam not known"),
        (MUTE, "unknown", "state not known"),
    ],
)
def test_what_is_not_known_is_never_off(said: Any, beam: str, words: str) -> None:
    view = instrument_view("titan", said, None, {})
    assert (view.beam, view.beam_words) == (beam, words)


def test_a_lock_of_the_instrument_alone_is_shown() -> None:
    view = instrument_view("titan", {"beam_blanked": True, "locked": "smoke, by anna"}, None, {})
    assert view.locked == "smoke, by anna"
