"""Schedules: a Prefect deployment of the flow `submit`, which puts an experiment into our queue when it is due.

Prefect says when; the queue does everything else. A flow run submits once, whatever is killed in between: its id is
written in the transaction of the submission. Neighbours: `scheduler`, the process that obeys; `cli.schedule_commands`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from orchestrator.errors import NotFound, OrchestratorError, SpecError
from workflows.flows.names import SUBMIT
from workflows.prefect_server import is_encrypted

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

T = TypeVar("T")
TAG: Final = "stempilot-schedule"
LATE_S: Final = 3600.0
MOST: Final = 200  # what Prefect's API gives at once
ASK_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a due run submits; the parameters of the deployment."""

    spec: Mapping[str, Any]
    seed: int
    options: Mapping[str, Any]
    priority: int = 0
    late_s: float = LATE_S
    submitted_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule as `schedule list` shows it; `upcoming` are the next times, ISO 8601."""

    name: str
    id: str
    experiment: str
    instrument: str
    when: str
    priority: int
    is_active: bool
    upcoming: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class ScheduleBook:
    """The schedules of one data folder at one Prefect server. Every call raises OrchestratorError if it is silent."""

    url: str
    data_folder: Path

    @property
    def tags(self) -> list[str]:
        """What marks a deployment as one of this data folder's."""
        return [TAG, f"data={self.data_folder}"]

    def add(self, name: str, order: Order, when: CronSchedule | IntervalSchedule) -> Schedule:
        """A new schedule. Raises SpecError where there is one of that name."""

        async def adding(client: PrefectClient) -> Schedule:
            from prefect.client.schemas.actions import DeploymentScheduleCreate

            if any(found.name == name for found in await self.deployments(client)):
                raise SpecError(f"there is a schedule {name!r} already; `stempilot schedule remove {name}` first")
            flow_id = await client.create_flow_from_name(SUBMIT)
            own = await client.create_deployment(
                flow_id, name, schedules=[DeploymentScheduleCreate(schedule=when, active=True)],
                parameters=asdict(order), tags=self.tags, enforce_parameter_schema=False,
                description=f"submits {order.spec['name']} to the queue",
            )  # fmt: skip
            return await _shown(client, await client.read_deployment(own))

        return self.ask(adding)

    def list(self) -> list[Schedule]:
        """All of them, by name."""

        async def listing(client: PrefectClient) -> list[Schedule]:
            found = [await _shown(client, deployment) for deployment in await self.deployments(client)]
            return sorted(found, key=lambda schedule: schedule.name)

        return self.ask(listing)

    def remove(self, name: str) -> None:
        """Take one away; what it has submitted stays. Raises NotFound."""

        async def removing(client: PrefectClient) -> None:
            for deployment in await self.deployments(client):
                if deployment.name == name:
                    await client.delete_deployment(deployment.id)
                    return
            raise NotFound(f"no schedule is called {name!r}; `stempilot schedule list` shows them")

        self.ask(removing)

    def is_empty(self) -> bool:
        """Whether there is no schedule; asked without Prefect's client, whose import costs more than a second."""
        which = {"deployments": {"tags": {"all_": self.tags}}}
        try:
            answer = httpx.post(
                f"{self.url}/deployments/count", json=which, timeout=ASK_TIMEOUT_S, trust_env=False,
                verify=is_encrypted(self.url),
            )  # fmt: skip
            return int(answer.raise_for_status().text) == 0
        except (httpx.HTTPError, ValueError) as error:
            raise OrchestratorError(f"Prefect's server at {self.url}: {error or type(error).__name__}") from error

    async def deployments(self, client: PrefectClient) -> list[DeploymentResponse]:
        """This data folder's deployments."""
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
        from prefect.client.schemas.sorting import DeploymentSort

        chosen = DeploymentFilter(tags=DeploymentFilterTags(all_=self.tags))
        return await client.read_deployments(deployment_filter=chosen, sort=DeploymentSort.NAME_ASC, limit=MOST)

    def ask(self, question: Any) -> Any:
        """Run `question(client)` against the server."""
        return ask(self.url, question)


def ask(url: str, question: Any) -> Any:
    """The answer of an async function of a client. Raises OrchestratorError where the server does not give one."""
    from prefect import get_client
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    async def asking() -> Any:
        async with get_client() as client:
            return await question(client)

    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            return _completed(asking())
        except (httpx.HTTPError, PrefectException) as error:
            reason = str(error) if str(error) not in ("", "None") else type(error).__name__
            raise OrchestratorError(f"Prefect's server at {url}: {reason}; `stempilot serve` starts one") from error


def _completed(question: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(question)


def schedule_of(cron: str | None, every_s: float | None, timezone: str | None) -> CronSchedule | IntervalSchedule:
    """When: a cron line (local to `timezone`, UTC without one) or an interval from now on. Raises SpecError."""
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    if (cron is None) == (every_s is None):
        raise SpecError("say when: --cron '0 22 * * *' or --every 3600 (seconds), one of them")
    try:
        if cron is not None:
            return CronSchedule(cron=cron, timezone=timezone or "UTC")
        return IntervalSchedule(
            interval=timedelta(seconds=every_s or 0.0), anchor_date=datetime.now(UTC), timezone=timezone or "UTC"
        )
    except ValueError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3]) or str(error)
        what = f"--cron {cron!r}" if cron is not None else f"--every {every_s:g} s"
        raise SpecError(f"{what} or --timezone {timezone!r} cannot be used: {reason}") from error


async def _shown(client: PrefectClient, deployment: DeploymentResponse) -> Schedule:
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    coming = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=3,
    )
    spec = deployment.parameters.get("spec", {})
    return Schedule(
        name=deployment.name,
        id=str(deployment.id),
        experiment=str(spec.get("name", "")),
        instrument=str(spec.get("instrument", {}).get("name", "")),
        when="; ".join(_words(entry.schedule) for entry in deployment.schedules),
        priority=int(deployment.parameters.get("priority", 0)),
        is_active=not deployment.paused and any(entry.active for entry in deployment.schedules),
        upcoming=tuple(
            run.expected_start_time.isoformat(timespec="seconds") for run in coming if run.expected_start_time
        ),
    )


def _words(schedule: Any) -> str:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    if isinstance(schedule, CronSchedule):
        return f"cron {schedule.cron} ({schedule.timezone or 'UTC'})"
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval.total_seconds():g} s"
    return str(schedule)
