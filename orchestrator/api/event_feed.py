"""Who waits for events of which experiment: one cheap look at the database serves all. Neighbour: `event_routes`."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from orchestrator.catalogue import Catalogue, schema

LOOK_EVERY_S: Final = 0.25


class EventFeed:
    """Wakes streams when the journal of their experiment has grown, whichever process wrote there."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._waiting: dict[str, set[tuple[int, asyncio.Event]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, experiment_id: str, after_seq: int, timeout_s: float) -> bool:
        """Whether something later than `after_seq` was written, within the time."""
        own = (after_seq, asyncio.Event())
        self._waiting.setdefault(experiment_id, set()).add(own)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(timeout_s):
                await own[1].wait()
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting.get(experiment_id, set())
            waiting.discard(own)
            if not waiting:
                self._waiting.pop(experiment_id, None)
        return True

    async def _look(self) -> None:
        """Look every quarter of a second, as long as anybody waits."""
        while self._waiting:
            newest = await run_in_threadpool(self._newest, list(self._waiting))
            for experiment_id, seq in newest.items():
                for after_seq, arrived in self._waiting.get(experiment_id, ()):
                    if seq > after_seq:
                        arrived.set()
            await asyncio.sleep(LOOK_EVERY_S)

    def _newest(self, experiment_ids: list[str]) -> dict[str, int]:
        table = schema.event
        query = select(table.c.experiment_id, func.max(table.c.seq)).group_by(table.c.experiment_id)
        with self._catalogue.database.reading() as connection:
            rows = connection.execute(query.where(table.c.experiment_id.in_(experiment_ids)))
            return {experiment_id: int(seq) for experiment_id, seq in rows}
