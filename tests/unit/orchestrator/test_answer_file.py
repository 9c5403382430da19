"""The answer so far, for whoever looks on: seldom enough, whole or not at all, never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.answer_file import AnswerKeeper, AnswerSoFar, answer_path, read_answer, write_answer
from orchestrator.loop import Spent
from orchestrator.objectives.objective import FrameFacts, Score


class Counting:
    """An objective whose answer is how often it was asked; asking takes two seconds of its clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asked = 0

    def summary(self) -> dict[str, Any]:
        self.asked += 1
        self.now_s += 2.0
        return {"asked": self.asked, "high": float("inf")}

    def maps(self) -> dict[str, np.ndarray]:
        return {"clean": np.eye(2), "call_birth": np.array(["a#0", ""])}

    def update(self, point: Any, facts: FrameFacts, features: Any) -> Score:
        raise AssertionError("looking on changes nothing")

    def stop_reason(self) -> str | None:
        return None


def scored(keeper: AnswerKeeper, frames: int) -> None:
    keeper("scored", {"spent": Spent(frames=frames)})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = answer_path(tmp_path, "e1")
    write_answer(path, AnswerSoFar(frame_count=3, summary={"high": float("inf"), "n": 2}, maps=Counting().maps()))
    answer = read_answer(path)
    assert answer is not None
    assert (answer.frame_count, answer.summary) == (3, {"high": None, "n": 2})
    np.testing.assert_array_equal(answer.maps["clean"], np.eye(2))
    assert answer.maps["call_birth"].tolist() == ["a#0", ""]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_it_takes_a_twentieth_of_the_time_at_most(tmp_path: Path) -> None:
    objective = Counting()
    keeper = AnswerKeeper(tmp_path / "answer.npz", objective, lambda: objective.now_s)
    for frame in range(1, 1001):
        objective.now_s += 0.5
        scored(keeper, frame)
    assert objective.asked >= 5
    assert 2.0 * objective.asked <= objective.now_s / 20 + 2.0
    keeper.keep()
    answer = read_answer(tmp_path / "answer.npz")
    assert answer is not None
    assert answer.frame_count == 1000


def test_what_is_no_frame_is_nothing_new(tmp_path: Path) -> None:
    objective = Counting()
    AnswerKeeper(tmp_path / "answer.npz", objective, lambda: objective.now_s)("refused", {})
    assert objective.asked == 0


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "e1").write_text("not a folder")
    objective = Counting()
    keeper = AnswerKeeper(tmp_path / "e1" / "answer.npz", objective, lambda: objective.now_s)
    scored(keeper, 1)
    scored(keeper, 2)
    assert objective.asked == 1


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half of a file", b"text"])
def test_what_cannot_be_read_is_no_answer(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "answer.npz"
    if content is not None:
        path.write_bytes(content)
    assert read_answer(path) is None
