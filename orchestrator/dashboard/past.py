"""Experiments that have ended, a page at a time, newest first; large columns stay unread. Neighbour: `queue_view`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, func, or_, select

from orchestrator import events
from orchestrator.catalogue import Catalogue, schema
from orchestrator.dashboard.answers import headline
from orchestrator.dashboard.kept import Kept

PAGE_LENGTH: Final = 20
ENDED: Final = ("completed", "failed", "cancelled", "refused")
_KEPT_COUNT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PastExperiment:
    """One experiment that has ended, or was left by a process that is gone; `headline` is its answer in one line."""

    id: str
    name: str
    status: str
    reason: str | None
    instrument: str | None
    ended_at: datetime
    headline: str | None
    frame_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPage:
    """Some of them; `older_before` continues the list, None at its end."""

    experiments: tuple[PastExperiment, ...]
    total: int
    older_before: str | None
    is_first: bool


class PastExperiments:
    """Pages of ended experiments; what an ended one answered is read once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._answers = Kept[tuple[str | None, int | None]](_KEPT_COUNT)

    def page(self, before: str | None = None) -> PastPage:
        """The newest, or those older than the id `before`."""
        table, queued = schema.experiment, schema.queue_entry
        is_past = and_(
            table.c.parent_id.is_(None), table.c.removed_at.is_(None),
            or_(table.c.status.in_(ENDED), queued.c.experiment_id.is_(None)),
        )  # fmt: skip
        joined = table.outerjoin(queued, queued.c.experiment_id == table.c.id)
        columns = [table.c[name] for name in ("id", "name", "status", "reason", "instrument", "updated_at")]
        query = select(*columns).select_from(joined).where(is_past).order_by(table.c.id.desc()).limit(PAGE_LENGTH + 1)
        if before is not None:
            query = query.where(table.c.id < before)
        with self._catalogue.database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            total = connection.execute(select(func.count()).select_from(joined).where(is_past)).scalar_one()
        shown = rows[:PAGE_LENGTH]
        return PastPage(
            experiments=tuple(self._experiment(dict(row)) for row in shown),
            total=total,
            older_before=shown[-1]["id"] if len(rows) > PAGE_LENGTH else None,
            is_first=before is None,
        )

    def _experiment(self, row: dict[str, Any]) -> PastExperiment:
        ended_at = row.pop("updated_at")
        answer, frame_count = self._answer(row["id"], ended_at)
        return PastExperiment(**row, ended_at=ended_at, headline=answer, frame_count=frame_count)

    def _answer(self, experiment_id: str, ended_at: datetime) -> tuple[str | None, int | None]:
        def read() -> tuple[str | None, int | None]:
            closed: dict[str, Any] = {}
            for event in self._catalogue.events(experiment_id, kinds=(events.CLOSED,)):
                closed = event.payload
            return headline(closed.get("summary") or {}), closed.get("frames")

        return self._answers.get((experiment_id, ended_at), read)
