"""Who lost the lease writes nothing any more: no row, no event, no file; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.catalogue import catalogue as catalogue_module
from orchestrator.catalogue.frame_files import write_beside
from orchestrator.decisions import Decision
from orchestrator.errors import LeaseLost
from orchestrator.queue import Claim, ExperimentQueue
from tests.unit.orchestrator import microscope_frames as microscope
from tests.unit.orchestrator.test_catalogue import intend
from tests.unit.orchestrator.test_queue import Clock, submit


class Worker:
    """A worker's own view of the shared folder."""

    def __init__(self, folder: Path, url: str | None, clock: Clock, name: str) -> None:
        self.name = name
        self.catalogue = Catalogue.open(folder, url=url, shared=True, now=clock)
        self.queue = ExperimentQueue(self.catalogue)

    def claim(self) -> Claim:
        claim = self.queue.claim("haadf", self.name)
        assert claim is not None
        self.catalogue.fenced_by(claim)
        return claim


@pytest.fixture
def workers(catalogue_folder: Path, database_url: str | None) -> Iterator[tuple[Worker, Worker, Clock]]:
    clock = Clock()
    first, second = (Worker(catalogue_folder, database_url, clock, name) for name in ("w1", "w2"))
    with first.catalogue, second.catalogue:
        yield first, second, clock


def test_the_zombie_s_writes_are_refused_whole(workers: tuple[Worker, Worker, Clock]) -> None:
    zombie, successor, clock = workers
    own = submit(zombie.queue).id
    zombie.claim()
    stored = intend(zombie.catalogue, own, 1)
    zombie.catalogue.keep(stored, microscope.frame(stored.command))
    waiting = intend(zombie.catalogue, own, 2)
    clock.advance(11)
    zombie.catalogue.append(own, "noted", {"late": "but nobody else has it"})
    successor.claim()
    before = [event.kind for event in successor.catalogue.events(own)]
    frames = successor.catalogue.data_folder / f"experiments/{own}/frames"
    files = sorted(path.name for path in frames.iterdir())
    attempts: list[Callable[[], object]] = [
        lambda: zombie.catalogue.append(own, "noted", {}),
        lambda: zombie.catalogue.begin(own, {"versions": {}}),
        lambda: zombie.catalogue.set_status(own, "completed", "no"),
        lambda: zombie.catalogue.keep(waiting, microscope.frame(waiting.command)),
        lambda: zombie.catalogue.observe(stored, {}),
        lambda: zombie.catalogue.mark(waiting, "unknown", "no"),
        lambda: intend(zombie.catalogue, own, 3),
        lambda: zombie.catalogue.recover(own),
        lambda: zombie.catalogue.create_experiment(
            name="baseline", spec={}, seed=1, engine="rehearsal", options={}, parent_id=own
        ),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost, match=r"\(fence 1\) is lost: w2 has it now \(fence 2\)"):
            attempt()
    assert [event.kind for event in successor.catalogue.events(own)] == before
    assert sorted(path.name for path in frames.iterdir()) == files
    assert successor.catalogue.experiment(own).status == "running"
    assert [intent.stage for intent in successor.catalogue.pending(own)] == ["stored", "acquiring"]


def test_a_zombie_in_the_middle_of_storing_does_not_replace_its_successor_s_file(
    workers: tuple[Worker, Worker, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked, has written its bytes beside, then stands still; meanwhile another takes over and stores."""
    zombie, successor, clock = workers
    own = submit(zombie.queue).id
    zombie.claim()
    intent = intend(zombie.catalogue, own, 1)
    frame = microscope.frame(intent.command)

    def stand_still(path: Path, data: bytes) -> Path:
        temporary = write_beside(path, data)
        monkeypatch.undo()
        clock.advance(11)
        successor.claim()
        successor.catalogue.keep(intent, frame)
        return temporary

    monkeypatch.setattr(catalogue_module, "write_beside", stand_still)
    with pytest.raises(LeaseLost):
        zombie.catalogue.keep(intent, frame)
    (kept,) = successor.catalogue.frames(own)
    assert successor.catalogue.load_frame(kept.id).action_id == intent.action_id  # its checksum still holds
    folder = (successor.catalogue.data_folder / kept.path).parent
    assert [path.name for path in folder.iterdir()] == [Path(kept.path).name]


def test_other_experiments_are_nobody_s_business(workers: tuple[Worker, Worker, Clock]) -> None:
    zombie, successor, clock = workers
    submit(zombie.queue)
    zombie.claim()
    clock.advance(11)
    successor.claim()
    alone = zombie.catalogue.create_experiment(name="n", spec={}, seed=1, engine="local", options={})
    decision = Decision.of(microscope.suggestion(1), alone, 1)
    zombie.catalogue.intend(alone, decision, microscope.command("a1"))
    assert zombie.catalogue.decisions(alone)[0].status == "intended"


def test_a_new_claim_of_the_same_worker_counts_again(workers: tuple[Worker, Worker, Clock]) -> None:
    worker, other, clock = workers
    own = submit(worker.queue).id
    worker.claim()
    clock.advance(11)
    other.queue.finish(other.claim(), "paused", "paused by a person")
    with pytest.raises(LeaseLost, match="nobody has it now"):
        worker.catalogue.append(own, "noted", {})
    worker.queue.resume(own)
    worker.claim()
    worker.catalogue.append(own, "noted", {})
    with pytest.raises(LeaseLost):
        other.catalogue.append(own, "noted", {})
