"""Work that is begun once and done without any server; what it tells meanwhile."""

from __future__ import annotations

import threading

import pytest

from orchestrator.loop import Control, Ending
from workflows.flows.experiment import Shown, perform
from workflows.flows.telling import Once, Telling
from workflows.prefect_server import api_url, free_port, unreachable_because


def test_work_is_begun_once_and_its_result_is_for_all() -> None:
    begun: list[str] = []
    once = Once(lambda: begun.append(threading.current_thread().name) or 7)
    assert not once.has_begun(0)
    assert [once.begin(), once.begin()] == [True, False]
    assert once.has_begun(0)
    assert once.result.result() == 7
    assert len(begun) == 1
    assert begun[0].startswith("experiment")


def test_an_error_of_the_work_is_its_result() -> None:
    once: Once[int] = Once(lambda: 1 // 0)
    once.begin()
    assert isinstance(once.result.exception(), ZeroDivisionError)


def test_lines_are_taken_once_and_the_oldest_are_dropped() -> None:
    telling = Telling()
    for number in range(700):
        telling.say(str(number))
    lines = telling.take()
    assert (len(lines), lines[0], lines[-1]) == (500, "200", "699")
    assert telling.take() == []


def test_without_a_server_the_work_is_done_and_told_why() -> None:
    url = api_url(free_port())
    because: list[str] = []
    shown = Shown(experiment_id="01ab", name="A census", instrument="left")
    once = perform(lambda: Ending("completed", "done"), shown, Telling(), url, because.append)
    assert once.result.result() == Ending("completed", "done")
    assert because == [unreachable_because(url)]
    assert "does not answer" in because[0]
    assert shown.run_name == "experiment-01ab"


@pytest.mark.parametrize(
    ("wish", "flags", "expected"),
    [
        (None, (), None),
        (None, ("interrupt",), "interrupted"),
        (None, ("interrupt", "pause"), "paused"),
        ("pause", ("interrupt",), "paused"),
        ("cancel", ("pause",), "cancelled"),
        (None, ("pause", "cancel"), "cancelled"),
    ],
)
def test_a_cancel_goes_before_a_pause_before_an_interruption(
    wish: str | None, flags: tuple[str, ...], expected: str | None
) -> None:
    control = Control(wanted=lambda: wish)
    for flag in flags:
        getattr(control, flag).set()
    assert control.reason() == expected
