"""Who runs the squares of a survey: this process, one after another, or the queue with its workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from instruments import InstrumentError
from orchestrator.catalogue import Catalogue
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.loop import Control
from orchestrator.queue import ExperimentQueue
from orchestrator.spec import ExperimentSpec
from policies import PolicyError
from workflows.embedded import InstrumentLocked
from workflows.session import RunOptions, Session
from workflows.submission import with_uploads

_POLL_S: Final = 1.0
_UNDER_WAY: Final = ("queued", "held", "running")


@dataclass
class EmbeddedRunner:
    """Runs squares in this process, with the session that `stempilot run` would use; `ended` hears of each."""

    session: Session
    options: RunOptions
    ended: Callable[[str], None]

    @property
    def takes_many(self) -> bool:
        """One after another."""
        return False

    def submit(self, spec: ExperimentSpec, parent_id: str, until: datetime | None) -> str:
        """The row of a child, not begun yet."""
        del until  # the spec's stop.until says it
        return self.session.catalogue.create_experiment(
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            seed=self.options.seed,
            engine=self.options.engine,
            options=self.options.to_dict(),
            parent_id=parent_id,
        )

    def attend(self, experiment_ids: list[str]) -> None:
        """Run them to their ends, or until a person wants otherwise; an error ends one, and is its reason."""
        for experiment_id in experiment_ids:
            if self.wanted() is not None:
                return
            try:
                self.session.take(experiment_id)
                self.ended(experiment_id)
            except (StorageError, InstrumentLocked):
                raise  # the next square could not be kept, or not be begun, either
            except (OrchestratorError, InstrumentError, PolicyError) as error:
                self._end(experiment_id, error)

    def _end(self, experiment_id: str, error: Exception) -> None:
        """Refused before it began, or failed on the way."""
        catalogue = self.session.catalogue
        began = bool(catalogue.decisions(experiment_id))
        if catalogue.experiment(experiment_id).status == "running":
            catalogue.set_status(experiment_id, "failed" if began else "refused", str(error))

    def wanted(self) -> str | None:
        """What Ctrl-C or a signal asked for."""
        return self.session.control.reason()


@dataclass
class QueueRunner:
    """Has the queue run squares: they go on without this process, which only decides what comes next."""

    catalogue: Catalogue
    queue: ExperimentQueue
    options: RunOptions
    submitted_by: str | None = None
    priority: int = 0
    control: Control = field(default_factory=Control)

    @property
    def takes_many(self) -> bool:
        """They wait in the queue."""
        return True

    def submit(self, spec: ExperimentSpec, parent_id: str | None, until: datetime | None) -> str:
        """A child in the queue, cancelled there if it has not begun by the end."""
        entry = self.queue.submit(
            name=spec.name,
            spec=with_uploads(spec, self.catalogue.uploads.keep),
            seed=self.options.seed,
            options=self.options.to_dict(),
            priority=self.priority,
            not_after=until,
            submitted_by=self.submitted_by,
            parent_id=parent_id,
        )
        return entry.id

    def attend(self, experiment_ids: list[str]) -> None:
        """Wait until one of them is no longer under way, or a person wants something else."""
        while self.wanted() is None:
            self.queue.entries(statuses=("queued",), limit=1)  # cancels what is overdue
            if any(self.catalogue.experiment(own).status not in _UNDER_WAY for own in experiment_ids):
                return
            time.sleep(_POLL_S)

    def wanted(self) -> str | None:
        """What Ctrl-C or a signal asked for: the squares in the queue go on without us."""
        return self.control.reason()
