"""The flow `experiment` at a Prefect server: it calls the work and shows its state, its lines and how far it is.

It decides nothing. Where the server does not answer, or does not begin the run within seconds, the work begins without
it and is shown later; when the server dies on the way, the work does not notice. Neighbours: `telling`, `worker`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import httpx

from orchestrator.loop import Ending
from workflows.flows.names import EXPERIMENT
from workflows.flows.telling import Once, Telling
from workflows.prefect_server import unreachable_because

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

BEGIN_WITHIN_S: Final = 5.0
_LOOK_S, _ARTEFACT_EVERY_S, _PATIENCE_S = 0.5, 10.0, 5.0
_THREAD_NAME, _MOST_LEFT_OVER = "prefect-flow", 20
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the server is told of the experiment when its flow run begins."""

    experiment_id: str
    name: str
    instrument: str
    flow: str = EXPERIMENT

    @property
    def run_name(self) -> str:
        """The flow run's name."""
        return f"{self.flow}-{self.experiment_id}"


def perform(
    work: Callable[[], Ending], shown: Shown, telling: Telling, url: str, without: Callable[[str], None]
) -> Once[Ending]:
    """Do the work in a thread, by a flow run if the server at `url` begins one in time; returns when it has begun.

    Else the work begins without, `without` is told why, and the server shows it from when it is there. What the server
    does has no effect on the work.
    """
    once = Once(work)
    because = unreachable_because(url)
    threading.Thread(target=_show, args=(once, shown, telling, url), name=_THREAD_NAME, daemon=True).start()
    if because is None:
        if once.has_begun(BEGIN_WITHIN_S):
            return once
        because = f"Prefect's server at {url} did not begin the flow run within {BEGIN_WITHIN_S:.0f} s"
    if once.begin():
        without(because)
    return once


def wait_for_last_words(timeout_s: float = _PATIENCE_S) -> None:
    """Give flow runs whose work is done a moment to tell the server."""
    until_s = time.monotonic() + timeout_s
    for thread in threading.enumerate():
        if thread.name == _THREAD_NAME:
            thread.join(max(0.0, until_s - time.monotonic()))


def _show(once: Once[Ending], shown: Shown, telling: Telling, url: str) -> None:
    """Run the flow as soon as the server is there; one that is lost on the way is a line in the log, nothing more."""
    while unreachable_because(url) is not None:
        if once.has_begun(_LOOK_S) and _is_done(once):
            return
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            asyncio.run(_experiment_flow(once, shown, telling))
        except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
            log.warning("Prefect's server lost sight of %s: %s", shown.run_name, error)


async def _experiment_flow(once: Once[Ending], shown: Shown, telling: Telling) -> None:
    from prefect import flow, tags

    # Prefect would print at the terminal what is meant for its server.
    flow_runs = logging.getLogger("prefect.flow_runs")
    flow_runs.propagate = False
    flow_runs.setLevel(logging.INFO)

    @flow(name=shown.flow, flow_run_name=shown.run_name, validate_parameters=False, log_prints=False)
    async def experiment(experiment_id: str, name: str, instrument: str) -> State[Any]:
        del experiment_id, name, instrument  # for people who look at the run
        once.begin()
        await _patiently(_close_left_over(shown.run_name))
        await _follow(once, telling)
        return _state_of(once)

    with tags("stempilot", shown.instrument):
        run: Any = experiment  # its type does not know of `return_state`
        await run(shown.experiment_id, shown.name, shown.instrument, return_state=True)


async def _follow(once: Once[Ending], telling: Telling) -> None:
    """Send lines as they come and the progress now and then, until the work is done."""
    from prefect import get_run_logger

    logger = get_run_logger()
    artefact = _Artefact(telling)
    is_done = False
    while not is_done:
        is_done = await asyncio.to_thread(_is_done, once)
        for line in telling.take():
            logger.info(line)
        await artefact.update(is_last=is_done)


def _is_done(once: Once[Ending]) -> bool:
    """Whether the work is done, asked after a moment."""
    return bool(wait([once.result], timeout=_LOOK_S).done)


class _Artefact:
    """The progress artefact of a run: percent of the budget, and the score in words; at most every ten seconds."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._id: UUID | None = None
        self._not_before_s = 0.0

    async def update(self, *, is_last: bool) -> None:
        if not is_last and (time.monotonic() < self._not_before_s or not self._telling.statement):
            return
        self._not_before_s = time.monotonic() + _ARTEFACT_EVERY_S
        await _patiently(self._write(100.0 * self._telling.fraction, self._telling.statement or "nothing exposed"))

    async def _write(self, percent: float, statement: str) -> None:
        from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

        if self._id is None:
            self._id = await acreate_progress_artifact(percent, key="progress", description=statement)
        else:
            await aupdate_progress_artifact(self._id, percent, description=statement)


async def _patiently(telling: Any) -> None:
    """Wait for a server's answer, but not for long, and not for a right one."""
    from prefect.exceptions import PrefectException

    try:
        await asyncio.wait_for(telling, _PATIENCE_S)
    except (TimeoutError, httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
        log.info("Prefect's server did not take an update: %s", error or type(error).__name__)


async def _close_left_over(run_name: str) -> None:
    """Earlier runs of this experiment that seem to go on: their worker is dead, or it would have the instrument."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.context import FlowRunContext
    from prefect.states import Crashed

    context = FlowRunContext.get()
    own = context.flow_run.id if context is not None and context.flow_run is not None else None
    async with get_client() as client:
        runs = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_name])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=_MOST_LEFT_OVER,
        )
        for run in runs:
            if run.id != own and (run.state is None or not run.state.is_final()):
                gone = Crashed(message="its worker was lost; the experiment goes on in another flow run")
                await client.set_flow_run_state(run.id, gone, force=True)


def _state_of(once: Once[Ending]) -> State[Any]:
    """How the work ended, in Prefect's words."""
    from prefect.states import Cancelled, Completed, Crashed, Failed

    error = once.result.exception()
    if error is not None:
        return Crashed(message=f"{type(error).__name__}: {error}")
    ending = once.result.result()
    if ending.status == "completed":
        return Completed(message=ending.reason)
    if ending.status in ("cancelled", "paused", "interrupted"):
        return Cancelled(name=ending.status.capitalize(), message=ending.reason)
    return Failed(name=ending.status.capitalize(), message=ending.reason)
