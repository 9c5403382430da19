"""What was found, as words, map and close-ups, of a census that was counted for real."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from orchestrator.answer_file import AnswerSoFar
from orchestrator.dashboard import answers
from orchestrator.dashboard.chronicle import Chronicle, Step
from orchestrator.dashboard.specimen_map import specimen_map
from orchestrator.plain_json import plain
from orchestrator.report.census_view import CensusView
from orchestrator.report.close_ups import CROP_NM
from tests.unit.orchestrator.census_report import census_data, census_run

EXTENT = (-20.0, 20.0, -20.0, 20.0)


@pytest.fixture(scope="module")
def answer() -> AnswerSoFar:
    data = census_data()
    return AnswerSoFar(frame_count=5, summary=data.summary, maps=data.maps)


def steps() -> tuple[Step, ...]:
    """The census's frames as its journal would tell them."""
    return tuple(
        Step(
            seq=seq, id=f"d{seq}", point={}, reason={}, prediction={}, command=plain(frame.requested),
            frame_id=f"frame-{seq - 1}", path="", intended_at=datetime(2026, 11, 2, tzinfo=UTC), status="done",
            dose_e_per_a2=frame.dose_e_per_a2, electrons=frame.electrons, started_s=frame.started_s,
            ended_s=frame.ended_s,
        )
        for seq, frame in enumerate(census_run()[1].values(), start=1)
    )  # fmt: skip


def test_the_headline_counts_what_the_summary_counts(answer: AnswerSoFar) -> None:
    line = answers.headline(answer.summary)
    assert line is not None
    named = [int(number) for number, _ in re.findall(r"(\d+) (V_Se2|V_Se|O_Se|Mo_W)\b", line)]
    assert int(line.split()[0]) == answer.summary["confirmed"] == sum(named)
    assert answers.headline({}) is None


def test_the_surest_finds_are_in_the_frames_that_show_them(answer: AnswerSoFar) -> None:
    view = CensusView.of_answer(answer.summary, answer.maps)
    assert view is not None
    frames = list(census_data().frames)
    by_id = {frame.id: frame for frame in frames}
    finds = answers.surest_finds(answer, frames)
    assert len(finds) == 6
    errors = [float(view.error_probability[find.row]) for find in finds]
    assert errors == sorted(errors)
    for find in finds:
        shown = by_id[find.frame_id]
        whole = [one for one in frames if one.purpose != "survey" and view.inside(one, CROP_NM / 2)[find.row]]
        assert shown in whole
        assert shown.dose_e_per_a2 == max(one.dose_e_per_a2 for one in whole)
    assert answers.surest_finds(answer, []) == []
    assert answers.surest_finds(None, frames) == []


def test_the_map_puts_everything_where_it_is(answer: AnswerSoFar) -> None:
    told = steps()
    drawn = specimen_map(Chronicle(steps=told), EXTENT, answer, ground_url="/ground.png", is_running=True)
    view = CensusView.of_answer(answer.summary, answer.maps)
    assert view is not None
    px_per_nm = 720 / 40
    found = re.search(r'<g fill="[^"]+" color="[^"]+" class="find">(<circle.*?)</g>', str(drawn.markup))
    assert found is not None
    circles = np.array([[float(x), float(y)] for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', found[1])])
    mask = view.of_species(0)
    expected = np.stack([(view.x_nm[mask] + 20) * px_per_nm, (20 - view.y_nm[mask]) * px_per_nm], axis=1)
    np.testing.assert_allclose(circles, expected, atol=0.06)
    assert str(drawn.markup).count("<title>decision") == len(told)
    words = {entry.words for entry in drawn.legend}
    assert f"V_Se: {int(mask.sum())}" in words
    assert "last frame" in words
    assert f"{len(told) - 1} other fields" in drawn.sentence


def test_the_map_says_what_is_exposed_now(answer: AnswerSoFar) -> None:
    before = steps()
    waiting = Chronicle(steps=(*before[:-1], _asked(before[-1])))
    for is_running, words in ((True, "exposing now"), (False, "not finished")):
        drawn = specimen_map(waiting, EXTENT, answer, ground_url=None, is_running=is_running)
        assert words in {entry.words for entry in drawn.legend}
        assert 'class="next"' in str(drawn.markup)


def _asked(step: Step) -> Step:
    return Step(
        seq=step.seq, id=step.id, point={}, reason={}, prediction={}, command=step.command, frame_id=step.frame_id,
        path="", intended_at=step.intended_at,
    )  # fmt: skip


def test_maps_of_elements_are_named(answer: AnswerSoFar) -> None:
    maps = {"x_nm": np.zeros(2), "rate_Fe_Ka": np.ones((2, 2)), "rate_std_Fe_Ka": np.ones((2, 2)), "survey": np.ones(1)}
    elements = AnswerSoFar(frame_count=1, summary={}, maps=maps)
    assert [name for name, _ in answers.map_names(elements)] == ["rate_Fe_Ka", "rate_std_Fe_Ka"]
    assert answers.map_names(answer) == []
