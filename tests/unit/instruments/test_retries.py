"""A busy instrument is asked again, no longer than wanted; any other error is not waited for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from instruments import InstrumentBusy, InstrumentFault, when_free


@dataclass
class Clock:
    """Time that passes by waiting alone."""

    now_s: float = 0.0
    waited: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now_s += seconds


def answer_after(busy_count: int, error: Exception | None = None) -> list[Exception | str]:
    return [*([InstrumentBusy("it exposes")] * busy_count), error or "done"]


def asking(answers: list[Exception | str]) -> str:
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_it_is_asked_again_until_it_is_free() -> None:
    clock, answers = Clock(), answer_after(3)
    assert when_free(lambda: asking(answers), 60.0, clock=clock, wait=clock.wait) == "done"
    assert clock.waited == [0.5] * 3


def test_patience_ends_and_so_does_the_wish() -> None:
    clock, answers = Clock(), answer_after(99)
    with pytest.raises(InstrumentBusy):
        when_free(lambda: asking(answers), 2.0, clock=clock, wait=clock.wait)
    assert clock.now_s == 2.0
    with pytest.raises(InstrumentBusy):
        when_free(lambda: asking(answers), 2.0, clock=clock, wait=clock.wait, is_wanted=lambda: False)
    assert clock.now_s == 2.0


def test_a_fault_is_told_at_once() -> None:
    clock, answers = Clock(), answer_after(0, InstrumentFault("gone"))
    with pytest.raises(InstrumentFault):
        when_free(lambda: asking(answers), 60.0, clock=clock, wait=clock.wait)
    assert clock.waited == []
