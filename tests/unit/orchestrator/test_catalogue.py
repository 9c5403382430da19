"""The catalogue on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from instruments import Frame
from orchestrator.catalogue import Catalogue, Intent
from orchestrator.catalogue.identifiers import new_id
from orchestrator.decisions import Decision
from orchestrator.errors import NotFound, StorageError
from tests.unit.orchestrator import microscope_frames as microscope

SPEC = {
    "name": "census", "specimen": {"material": "WSe2", "preparation_date": "2024-05-01"},
    "instrument": {"name": "simulated"}, "policy": {"name": "raster"},
}  # fmt: skip


@pytest.fixture
def catalogue(catalogue_folder: Path, database_url: str | None) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder, url=database_url) as opened:
        yield opened


def new_experiment(catalogue: Catalogue, **changes: object) -> str:
    values = {"name": "census", "spec": SPEC, "seed": 7, "engine": "local", "options": {"policy": "raster"}}
    return catalogue.create_experiment(**{**values, **changes})


def intend(catalogue: Catalogue, experiment: str, seq: int) -> Intent:
    decision = Decision.of(microscope.suggestion(seq), experiment, seq)
    return catalogue.intend(experiment, decision, microscope.command(f"{experiment}-a{seq}"))


def assert_same_frame(one: Frame, other: Frame) -> None:
    assert {name: (counts.dtype, counts.shape) for name, counts in one.counts.items()} == {
        name: (counts.dtype, counts.shape) for name, counts in other.counts.items()
    }
    for name, counts in one.counts.items():
        np.testing.assert_array_equal(counts, other.counts[name])
    for name in Frame.__dataclass_fields__:
        if name != "counts":
            assert getattr(one, name) == getattr(other, name), name


def test_a_frame_comes_back_exactly(catalogue: Catalogue) -> None:
    intent = intend(catalogue, new_experiment(catalogue), 1)
    frame = microscope.frame(intent.command)
    stored = catalogue.keep(intent, frame)
    assert_same_frame(catalogue.load_frame(stored.id), frame)
    assert stored.path == f"experiments/{intent.experiment_id}/frames/000001_{intent.action_id}.nxs"
    assert (catalogue.data_folder / stored.path).stat().st_size == stored.size_bytes
    assert stored.stage_x_nm == frame.state.stage.x_nm
    assert stored.defocus_nm == 2.1
    assert stored.electrons == frame.electrons


def test_events_and_rows_tell_the_same_story(catalogue: Catalogue) -> None:
    experiment = new_experiment(catalogue)
    done = intend(catalogue, experiment, 1)
    stored = catalogue.keep(done, microscope.frame(done.command))
    catalogue.observe(done, {"score": {"value": 0.5, "std": float("nan")}}, b"\x00arrays\xff")
    refused = intend(catalogue, experiment, 2)
    catalogue.mark(refused, "refused", "stage x 9 nm is above the limit 5 nm")
    waiting = intend(catalogue, experiment, 3)
    half = intend(catalogue, experiment, 4)
    catalogue.keep(half, microscope.frame(half.command, 4))

    kinds = [event.kind for event in catalogue.events(experiment)]
    assert kinds == [
        "created", "intended", "frame_stored", "observed", "intended", "marked", "intended", "intended", "frame_stored",
    ]  # fmt: skip
    assert [event.seq for event in catalogue.events(experiment)] == list(range(1, 10))
    (seen,) = catalogue.events(experiment, kinds=["observed"], with_arrays=True)
    assert seen.arrays == b"\x00arrays\xff"
    assert seen.payload["score"] == {"value": 0.5, "std": None}
    assert (seen.payload["frame_id"], seen.payload["decision_id"]) == (stored.id, done.decision.id)
    assert next(catalogue.events(experiment, kinds=["observed"])).arrays is None

    rows = catalogue.decisions(experiment)
    assert [row.status for row in rows] == ["done", "refused", "intended", "stored"]
    assert rows[0].decision == done.decision
    assert [row.frame_id for row in rows] == [stored.id, None, None, half.frame_id]
    assert rows[1].status_reason == "stage x 9 nm is above the limit 5 nm"
    assert [(intent.action_id, intent.stage) for intent in catalogue.pending(experiment)] == [
        (waiting.action_id, "acquiring"),
        (half.action_id, "stored"),
    ]
    assert catalogue.pending(experiment)[0] == waiting
    assert [frame.id for frame in catalogue.frames(experiment)] == [stored.id, half.frame_id]
    assert catalogue.recover(experiment).is_clean


def test_nothing_is_stored_twice_or_out_of_turn(catalogue: Catalogue) -> None:
    experiment = new_experiment(catalogue)
    intent = intend(catalogue, experiment, 1)
    frame = microscope.frame(intent.command)
    with pytest.raises(StorageError, match="only one that is stored can become done"):
        catalogue.observe(intent, {})
    first = catalogue.keep(intent, frame)
    assert catalogue.keep(intent, frame) == first
    catalogue.observe(intent, {})
    with pytest.raises(StorageError, match="is done"):
        catalogue.observe(intent, {})
    with pytest.raises(StorageError, match="is done"):
        catalogue.mark(intent, "failed", "late")
    with pytest.raises(StorageError, match=r"unique|UNIQUE|duplicate"):
        intend(catalogue, experiment, 1)
    other = intend(catalogue, experiment, 2)
    with pytest.raises(StorageError, match="not of the intent's"):
        catalogue.keep(other, frame)
    catalogue.mark(other, "unknown", "no answer in 30 s")
    with pytest.raises(StorageError, match="does not wait for a frame"):
        catalogue.keep(other, microscope.frame(other.command))
    assert [event.kind for event in catalogue.events(experiment)].count("frame_stored") == 1


def test_events_are_never_changed(catalogue: Catalogue) -> None:
    experiment = new_experiment(catalogue)
    for statement in ("UPDATE event SET kind = 'other'", "DELETE FROM event"):
        with (
            pytest.raises(StorageError, match="events are appended, never changed"),
            catalogue.database.writing() as c,
        ):
            c.execute(text(statement))
    assert [event.kind for event in catalogue.events(experiment)] == ["created"]


def test_experiments_are_found(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="'latest'"):
        catalogue.experiment("latest")
    first = new_experiment(catalogue)
    second = new_experiment(catalogue, name="second")
    child = new_experiment(catalogue, name="raster", parent_id=second)
    assert [row.id for row in catalogue.experiments()] == [second, first]
    assert [row.id for row in catalogue.experiments(include_children=True)] == [child, second, first]
    assert [row.id for row in catalogue.children(second)] == [child]
    assert catalogue.experiment("latest").id == second
    assert catalogue.experiment(first).spec == SPEC
    unique = next(n for n in range(1, 33) if first[:n] != second[:n] and first[:n] != child[:n])
    assert catalogue.experiment(first[:unique]).id == first
    for wrong, message in (
        ("f" * 32, "no experiment"),
        ("%", "no experiment"),
        (first[:4], "begins more than one"),
        ("", "'' begins"),
    ):
        with pytest.raises(NotFound, match=message):
            catalogue.experiment(wrong)


def test_status_and_context_are_kept(catalogue: Catalogue) -> None:
    experiment = new_experiment(catalogue)
    catalogue.begin(experiment, {"versions": {"simulation": "3"}})
    catalogue.set_status(experiment, "completed", "budget spent")
    row = catalogue.experiment(experiment)
    assert (row.status, row.reason) == ("completed", "budget spent")
    assert row.context == {"experiment": "census", "specimen": SPEC["specimen"], "versions": {"simulation": "3"}}
    assert row.created_at.tzinfo is not None
    assert abs(datetime.now(UTC) - row.created_at) < timedelta(hours=1)
    for call in (lambda: catalogue.append("0" * 32, "x", {}), lambda: catalogue.set_status("0" * 32, "failed", None)):
        with pytest.raises(NotFound):
            call()


def test_a_failed_transaction_leaves_nothing(catalogue: Catalogue) -> None:
    experiment = new_experiment(catalogue)
    intend(catalogue, experiment, 1)
    decision = Decision.of(microscope.suggestion(2), experiment, 2)
    with pytest.raises(StorageError):
        catalogue.intend(experiment, decision, microscope.command(f"{experiment}-a1"))  # the action id is taken
    assert [row.decision.seq for row in catalogue.decisions(experiment)] == [1]
    assert [event.kind for event in catalogue.events(experiment)] == ["created", "intended"]


def test_many_events_come_in_order_and_page_by_page(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.catalogue.event_log._PAGE_ROWS", 20)
    experiment = new_experiment(catalogue)
    for number in range(43):
        catalogue.append(experiment, "noted", {"number": number}, arrays=bytes([number]))
    numbers = [event.payload["number"] for event in catalogue.events(experiment, kinds=["noted"])]
    assert numbers == list(range(43))
    arrays = [event.arrays for event in catalogue.events(experiment, after_seq=20, with_arrays=True)]
    assert arrays == [bytes([number]) for number in range(19, 43)]


def test_ids_sort_by_time_and_follow_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.catalogue.identifiers._last", 0)  # put back: ids of later tests are of their time
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    late = new_id(now_ns=4_000_000_000_000_000_000)
    after_the_clock_went_back = new_id()
    assert after_the_clock_went_back > late
    for made in ids[:3]:
        assert (made[12], made[16] in "89ab") == ("7", True)
    assert abs(int(ids[0][:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 3600
