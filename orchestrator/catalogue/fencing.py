"""Who may still write about an experiment: only the holder of its instrument's lease, which the queue grants."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, select

from orchestrator.catalogue import schema
from orchestrator.errors import LeaseLost


class Fence(Protocol):
    """What a worker was given with its lease; a later holder of the instrument has a greater `fence`."""

    @property
    def instrument(self) -> str:
        """The instrument that is leased."""
        ...

    @property
    def experiment_id(self) -> str:
        """The experiment that is protected."""
        ...

    @property
    def fence(self) -> int:
        """The number that only grows."""
        ...


def check(connection: Connection, fence: Fence) -> None:
    """Hold the lease's row until the transaction ends. Raises LeaseLost where it is not this fence's any more."""
    table = schema.instrument_lease
    query = select(table.c.fence, table.c.holder, table.c.experiment_id).where(table.c.instrument == fence.instrument)
    row = connection.execute(query.with_for_update(read=True)).mappings().first()
    if row is not None and (row["fence"], row["experiment_id"]) == (fence.fence, fence.experiment_id):
        return
    raise lost(fence, None if row is None else row["fence"], None if row is None else row["holder"])


def lost(fence: Fence, found: int | None, holder: str | None) -> LeaseLost:
    """The error that says who has the instrument instead."""
    now_with = f"{holder} has it now" if holder else "nobody has it now"
    return LeaseLost(
        f"the lease of {fence.instrument} for experiment {fence.experiment_id} (fence {fence.fence}) is lost: "
        f"{now_with} (fence {found if found is not None else 'none'}); nothing was written, leave the instrument alone"
    )
