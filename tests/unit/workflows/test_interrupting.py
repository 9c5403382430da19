"""Signals around a run: what they raise, and that they mean afterwards what they meant before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from orchestrator.loop import Control
from workflows.interrupting import interruptible, terminable


@pytest.fixture(autouse=True)
def nobody_takes_it() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def nothing() -> None:
    """No microscope is here."""


def test_sigterm_is_ctrl_c_while_nobody_else_takes_it() -> None:
    with pytest.raises(KeyboardInterrupt), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_who_takes_it_already_keeps_it() -> None:
    control, said = Control(), list[str]()
    with interruptible(control, nothing, said.append), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert control.interrupt.is_set()
    assert said == ["interrupted: finishing this frame, then blanking and saving (Ctrl-C again aborts at once)"]


def test_the_second_one_leaves_without_a_word_also_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised where the catalogue is being closed; after a run that nobody interrupted all is as before."""
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with interruptible(Control(), nothing, list[str]().append):
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interruptible(Control(), nothing, list[str]().append):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert left == [130]


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
