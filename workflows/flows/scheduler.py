"""The process that obeys schedules: it runs each due flow run, which submits one experiment to our queue, once.

Killed at any moment and started again, it neither repeats nor loses one: the submission and the moment it was due are
one transaction, and flow runs that were begun are looked up before anything else. It makes the coming flow runs itself:
the service of Prefect's server that should does nothing with SQLAlchemy 2.1; where it works, the two do not disturb
each other, because a moment is submitted once whichever flow run comes first. Neighbour: `schedule`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, insert, select

from orchestrator.catalogue import Catalogue, schema
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.plain_json import to_text
from orchestrator.queue import ExperimentQueue, QueueEntry
from orchestrator.settings import Settings
from workflows.flows.schedule import MOST, Order, ScheduleBook, ask
from workflows.prefect_server import unreachable_because

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

POLL_S: Final = 1.0
_IDLE_POLL_S: Final = 5.0
"""While there is no schedule at all: asking costs the server and this process some ten milliseconds each time."""
_COMING_COUNT: Final = 2
_SUBMITTER: Final = "schedule"  # in the table of writes that must not happen twice
log = logging.getLogger(__name__)


@dataclass
class Submitter:
    """Puts what is due into the queue; what is due at one moment never twice."""

    catalogue: Catalogue
    queue: ExperimentQueue

    def submit(self, due: str, order: Order) -> str:
        """The experiment due then: the one that was submitted before, or a new one, durably in the queue."""
        if (known := self.submitted(due)) is not None:
            return known
        body = hashlib.sha256(to_text(order.spec).encode()).hexdigest()

        def also(connection: Connection, entry: QueueEntry) -> None:
            connection.execute(
                insert(schema.idempotency).values(
                    token_id=_SUBMITTER, key=due, method="SUBMIT", path="schedule", body_sha256=body,
                    status=201, headers={"experiment": entry.id}, created_at=self.catalogue.now(),
                )
            )  # fmt: skip

        try:
            entry = self.queue.submit(
                name=str(order.spec["name"]),
                spec=order.spec,
                seed=order.seed,
                options={**order.options, "schedule": due},
                priority=order.priority,
                submitted_by=order.submitted_by,
                also=also,
            )
        except StorageError:  # somebody else submitted it at the same moment, unless something is wrong
            known = self.submitted(due)
            if known is None:
                raise
            return known
        return entry.id

    def submitted(self, due: str) -> str | None:
        """The experiment that was submitted for this moment, or None."""
        table = schema.idempotency
        query = select(table.c.headers).where(table.c.token_id == _SUBMITTER, table.c.key == due)
        with self.catalogue.database.reading() as connection:
            headers = connection.execute(query).scalar()
        return None if headers is None else str(headers["experiment"])


@dataclass
class Scheduler:
    """Looks every second, or less often without schedules, for flow runs due at whatever Prefect server there is."""

    submitter: Submitter
    book: Callable[[], ScheduleBook | None]
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    _said: str | None = None
    _pause_s: float = POLL_S
    _announced: set[str] = field(default_factory=set[str])

    def run(self) -> None:
        """Until `stop` is set."""
        while not self.stop.is_set():
            book = self.book()
            silence = "no Prefect server is known here" if book is None else unreachable_because(book.url)
            if book is not None and silence is None:
                try:
                    self._obey(book)
                except OrchestratorError as error:
                    silence = str(error)
            self._say_once(silence)
            self.stop.wait(self._pause_s)

    def _obey(self, book: ScheduleBook) -> None:
        is_empty = book.is_empty()
        self._pause_s = _IDLE_POLL_S if is_empty else POLL_S
        if not is_empty:
            ask(book.url, partial(self._look, book))

    def _say_once(self, text: str | None) -> None:
        if text is not None and text != self._said:
            self.say(f"waits: {text}")
        self._said = text

    async def _look(self, book: ScheduleBook, client: PrefectClient) -> None:
        deployments = {deployment.id: deployment for deployment in await book.deployments(client)}
        for deployment in deployments.values():
            await self._announce(client, deployment)
        for run in await _begun(client, list(deployments)):
            await self._go_on(client, run, _order(deployments[_own(run)].parameters, run))
        now = datetime.now(UTC)
        due = await client.get_scheduled_flow_runs_for_deployments(list(deployments), scheduled_before=now)
        for run in sorted(due, key=lambda run: run.expected_start_time or now):
            order = _order(deployments[_own(run)].parameters, run)
            late = now - (run.expected_start_time or now)
            if late > timedelta(seconds=order.late_s):
                await self._miss(client, run, late)
            else:
                await self.begin(client, run, order)

    async def _announce(self, client: PrefectClient, deployment: DeploymentResponse) -> None:
        """Make the flow runs of the next moments of a schedule; one that is there stays as it is."""
        from prefect.states import Scheduled

        if deployment.paused:
            return
        for entry in deployment.schedules:
            for moment in await _coming(entry.schedule) if entry.active else ():
                key = f"due {deployment.id} {moment.isoformat()}"
                if key not in self._announced:
                    await client.create_flow_run_from_deployment(
                        deployment.id, state=Scheduled(scheduled_time=moment), idempotency_key=key
                    )
                    self._announced.add(key)

    async def begin(self, client: PrefectClient, run: FlowRun, order: Order) -> None:
        """Take a flow run that is due: begun at the server, submitted, completed.

        Not through Prefect's flow engine, which waits without end for news of a flow run that is removed meanwhile.
        """
        from prefect.client.schemas.responses import SetStateStatus
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Pending, Running

        for state in (Pending(), Running()):
            try:
                answer = await client.set_flow_run_state(run.id, state)
            except ObjectNotFound:
                self.say(f"schedule: {run.name} was removed when it was due; nothing is submitted")
                return
            if answer.status is not SetStateStatus.ACCEPT:
                log.info("flow run %s may not begin yet: %s", run.name, answer.details)
                return
        own = self.submitter.submit(_due(run), order)
        await self._complete(client, run, own)
        self.say(f"schedule: submitted {own} ({order.spec['name']})")

    async def _go_on(self, client: PrefectClient, run: FlowRun, order: Order) -> None:
        """A flow run that was begun when this process, or another before it, ended."""
        own = self.submitter.submit(_due(run), order)
        await self._complete(client, run, own)
        self.say(f"schedule: {run.name} was begun before; its experiment is {own}")

    async def _complete(self, client: PrefectClient, run: FlowRun, own: str) -> None:
        """Tell the server; a flow run that was removed meanwhile has nobody left to tell."""
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Completed

        with suppress(ObjectNotFound):
            await client.set_flow_run_state(run.id, Completed(message=f"submitted {own}"), force=True)

    async def _miss(self, client: PrefectClient, run: FlowRun, late: timedelta) -> None:
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Cancelled

        text = f"missed: it was due {late.total_seconds():.0f} s ago, when nobody obeyed schedules"
        with suppress(ObjectNotFound):
            await client.set_flow_run_state(run.id, Cancelled(name="Missed", message=text), force=True)
        self.say(f"schedule: {run.name} {text}")


def _own(run: FlowRun) -> Any:
    if run.deployment_id is None:
        raise OrchestratorError(f"flow run {run.id} belongs to no deployment")
    return run.deployment_id


def _due(run: FlowRun) -> str:
    """The moment of a schedule that a flow run is for; a run started by hand is its own."""
    if run.expected_start_time is None or (not run.auto_scheduled and run.idempotency_key is None):
        return str(run.id)
    return f"{run.deployment_id} {run.expected_start_time.astimezone(UTC).isoformat()}"


async def _coming(schedule: Any) -> Sequence[datetime]:
    """The next moments of a schedule."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    kind = CronSchedule if "cron" in type(schedule).model_fields else IntervalSchedule
    return await kind.model_validate(schedule.model_dump()).get_dates(_COMING_COUNT, start=datetime.now(UTC))


def _order(parameters: Mapping[str, Any], run: FlowRun) -> Order:
    return Order(**{**parameters, **run.parameters})


async def _begun(client: PrefectClient, deployments: list[Any]) -> list[FlowRun]:
    """Flow runs that seem to be on their way: this process has none while it looks."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    return await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployments)),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CRASHED])
            )
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=MOST,
    )


def run_scheduler(settings: Settings, say: Callable[[str], None]) -> None:
    """Be the scheduler of a data folder until SIGTERM or Ctrl-C. Raises DataFolderBusy for a second one."""
    import os
    import signal

    from workflows.prefect_server import quiet_environment
    from workflows.roles import RoleLock
    from workflows.worker import prefect_url

    os.environ.update(quiet_environment(settings.data_folder / "prefect"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def book() -> ScheduleBook | None:
        url = prefect_url(settings)
        return None if url is None else ScheduleBook(url, settings.data_folder)

    with (
        RoleLock(settings.data_folder, "scheduler"),
        Catalogue.open(settings.data_folder, url=settings.database_url, shared=True) as catalogue,
    ):
        say(f"scheduler: process {os.getpid()}, ready")
        scheduler = Scheduler(Submitter(catalogue, ExperimentQueue(catalogue)), book, say, stop)
        # Not in the main thread, where signals are handled: `stop` cannot be set by the thread that waits for it.
        with ThreadPoolExecutor(1, "scheduler") as thread:
            thread.submit(scheduler.run).result()
    say("scheduler: ended")
