"""The journal as the loop uses it, and what a later process reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.decisions import Decision
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.journal import Journal
from orchestrator.objectives.objective import FrameFacts, Score
from orchestrator.plain_json import plain, to_text
from policies import Cost, Suggestion
from tests.unit.orchestrator import microscope_frames as microscope


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder) as opened:
        yield opened


@pytest.fixture
def journal(catalogue: Catalogue) -> Journal:
    return Journal(catalogue, catalogue.create_experiment(name="n", spec={}, seed=1, engine="local", options={}))


def step(journal: Journal, ordinal: int) -> tuple[Suggestion, FeatureSet]:
    """intend, keep, observe, as the loop does."""
    suggestion = microscope.suggestion(ordinal)
    intent, command = journal.intend(suggestion, microscope.command)
    frame = journal.keep(intent, microscope.frame(command, ordinal))
    features = FeatureSet(
        extractor="survey",
        action_id=frame.action_id,
        values={"clean_fraction": Feature(value=0.5, std=float("nan"))},
        arrays={"clean_map": np.full((2, 3), ordinal, np.float32)},
    )
    score = Score(value=float(ordinal), std=0.5, statement="half", outcomes={"score": (float(ordinal), 0.5)})
    journal.observe(intent, FrameFacts.of(frame), features, score)
    return suggestion, features


def test_every_step_is_read_back_with_what_led_to_it(catalogue: Catalogue, journal: Journal) -> None:
    taken = [step(journal, ordinal) for ordinal in range(3)]
    refused = microscope.suggestion(3)
    journal.mark(journal.intend(refused, microscope.command)[0], "refused", "too far")
    waiting = journal.intend(microscope.suggestion(4), microscope.command)[0]

    past = list(Journal(catalogue, journal.experiment_id).past())
    assert [one.suggestion for one in past] == [
        *(suggestion for suggestion, _ in taken),
        refused,
        microscope.suggestion(4),
    ]
    assert [one.intent.stage for one in past] == ["done", "done", "done", "refused", "acquiring"]
    for (_, features), one in zip(taken, past, strict=False):
        assert one.observation is not None
        assert one.observation.arrays is not None
        again = FeatureSet.from_bytes(one.observation.arrays)
        np.testing.assert_array_equal(again.arrays["clean_map"], features.arrays["clean_map"])
        assert one.frame is not None
        assert one.observation.payload["frame_id"] == one.frame.id
        facts = FrameFacts(**one.observation.payload["facts"])
        assert facts.electrons == one.frame.electrons
    assert past[1].observation.payload["score"]["outcomes"] == {"score": [1.0, 0.5]}
    assert past[0].observation.payload["features"]["clean_fraction"]["std"] is None
    assert (past[3].frame, past[3].observation, past[3].reason) == (None, None, "too far")
    assert past[4].intent == waiting
    assert [one.observation.arrays for one in journal.past(with_arrays=False) if one.observation] == [None] * 3


def test_what_was_spent_is_counted_once_and_survives(catalogue: Catalogue, journal: Journal) -> None:
    for ordinal in range(2):
        step(journal, ordinal)
    intent, command = journal.intend(microscope.suggestion(2), microscope.command)
    frame = microscope.frame(command, 2)
    for _ in range(2):
        journal.keep(intent, frame)
    stored = catalogue.frames(journal.experiment_id)
    later = Journal(catalogue, journal.experiment_id[:31])
    for one in (journal, later):
        assert one.frame_count == 3
        assert one.electrons == pytest.approx(sum(frame.electrons for frame in stored), rel=1e-12)
        assert one.instrument_time_s == pytest.approx(sum(f.ended_s - f.started_s for f in stored), rel=1e-12)


def test_action_ids_are_new_after_a_restart_and_differ_between_experiments(
    catalogue: Catalogue, journal: Journal
) -> None:
    other = Journal(catalogue, catalogue.create_experiment(name="o", spec={}, seed=1, engine="local", options={}))
    ids = [one.intend(microscope.suggestion(0), microscope.command)[1].action_id for one in (journal, other, journal)]
    again = Journal(catalogue, journal.experiment_id)
    ids.append(again.intend(microscope.suggestion(1), microscope.command)[1].action_id)
    assert len(set(ids)) == 4
    assert ids[3] == f"{journal.experiment_id}-a000003"


def test_closing_says_how_it_ended(catalogue: Catalogue, journal: Journal) -> None:
    step(journal, 0)
    journal.note("baseline_refused", {"policy": "random"})
    journal.close("completed", "budget spent: 1 of 1 frames")
    row = catalogue.experiment(journal.experiment_id)
    assert (row.status, row.reason) == ("completed", "budget spent: 1 of 1 frames")
    noted, closed, _ = list(catalogue.events(journal.experiment_id))[-3:]
    assert (noted.kind, noted.payload) == ("baseline_refused", {"policy": "random"})
    assert (closed.kind, closed.payload["frames"], closed.payload["decisions"]) == ("closed", 1, 1)


def test_a_decision_keeps_a_suggestion_whatever_its_numbers() -> None:
    suggestion = Suggestion(
        id="s",
        point={"x_nm": np.float64(0.1)},
        prediction={"score": (float("inf"), 1.0)},
        cost=Cost(electrons=1.0, seconds=2.0),
    )
    again = Decision.of(suggestion, "e", 1).suggestion()
    assert (again.id, again.point, again.cost) == ("s", {"x_nm": 0.1}, suggestion.cost)
    assert np.isnan(again.prediction["score"][0])
    assert again.prediction["score"][1] == 1.0


def test_plain_refuses_what_has_no_json_form() -> None:
    assert to_text({"é": (1, np.int8(2), Path("a/b"))}) == '{"é":[1,2,"a/b"]}'
    numbers = {"a": [np.nan, np.inf, 0.1, np.float32(0.1)], "b": np.float64(0.1), "c": np.arange(3)}
    for value in (
        numbers,
        {np.int64(3): {1, 2}},
        [True, None, {"when": date(2026, 11, 21)}],
    ):  # written without a copy where that is possible, and no differently
        assert json.loads(to_text(value)) == plain(value)
    for value in (b"bytes", object(), 1j):
        with pytest.raises(TypeError, match=f"{type(value).__name__} has no JSON form"):
            plain({"value": value})
