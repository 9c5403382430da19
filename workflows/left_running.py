"""Experiments that stand as running while no process runs them: killed, and not yet taken up again.

Neighbours: `roles` and the data folder's lock know which processes live, `documents` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.catalogue import holder as writer
from orchestrator.errors import NotFound
from orchestrator.queue import ExperimentQueue
from workflows.roles import holder


def left_running(catalogue: Catalogue, rows: Iterable[ExperimentRow]) -> dict[str, str]:
    """Id of each such experiment -> what to do. Of a database that several computers share, nothing is said.

    Each is read again after its process was looked for: a run that ends in between has written so.
    """
    if catalogue.database.dialect != "sqlite":
        return {}
    seeming = [row for row in rows if row.status == "running" and not _is_run(catalogue, row)]
    return {row.id: _cure(catalogue, row) for row in seeming if catalogue.experiment(row.id).status == "running"}


def _is_run(catalogue: Catalogue, row: ExperimentRow) -> bool:
    """Whether a process may be running it: one that writes in the folder and has its instrument."""
    name = row.spec.get("instrument", {}).get("name")
    if writer(catalogue.data_folder) is None or name is None:
        return name is None
    return any(holder(catalogue.data_folder, f"{role}-{name}") is not None for role in ("instrument", "worker"))


def _cure(catalogue: Catalogue, row: ExperimentRow) -> str:
    begun = row.parent_id or row.id
    try:
        ExperimentQueue(catalogue).entry(begun)
    except NotFound:
        return f"its process is gone; stempilot resume {begun}"
    return "its worker is gone; the next one goes on with it"
