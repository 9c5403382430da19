"""The queue as a person at a terminal uses it, here or at a server; what it answers are the API's documents.

`open_desk` chooses: a server's address where one is given, else the data folder. Neighbour: `cli.queue_commands`.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from instruments import InstrumentFault
from orchestrator.catalogue import Catalogue
from orchestrator.client import SERVER_VARIABLE, TOKEN_VARIABLE, Action, Client
from orchestrator.errors import NotFound
from orchestrator.plain_json import to_text
from orchestrator.queue import ExperimentQueue, QueueEntry
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from workflows.emergency_stop import clear, emergency_stop
from workflows.run_options import RunOptions
from workflows.submission import with_uploads
from workflows.validation import check_spec

SHOWN: Final = ("running", "queued", "held", "paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """When and how a submitted experiment may run."""

    priority: int = 0
    not_before: datetime | None = None
    not_after: datetime | None = None
    hold: bool = False


class Desk(Protocol):
    """What a person may do with the queue; every call raises an OrchestratorError."""

    def submit(self, spec: ExperimentSpec, options: RunOptions, when: When) -> dict[str, Any]:
        """The new entry."""
        ...

    def entries(self, statuses: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
        """Entries in the order of execution."""
        ...

    def act(self, action: Action, experiment_id: str, reason: str | None) -> dict[str, Any]:
        """The entry after the action."""
        ...

    def stop(self, instrument: str | None, reason: str) -> list[dict[str, Any]]:
        """Blank and lock one instrument or all; a line for each."""
        ...

    def clear(self, instrument: str | None) -> list[dict[str, Any]]:
        """Take the locks off, after a person has looked; a line for each, which says what is still locked."""
        ...


@dataclass(frozen=True)
class LocalDesk:
    """The queue of a data folder on this machine. A stop needs neither database nor worker nor API."""

    settings: Settings

    def submit(self, spec: ExperimentSpec, options: RunOptions, when: When) -> dict[str, Any]:
        """Checked as `stempilot validate` checks, then durably in the queue."""
        check_spec(spec, self.settings)
        with self._catalogue() as catalogue:
            entry = ExperimentQueue(catalogue).submit(
                name=spec.name,
                spec=with_uploads(spec, catalogue.uploads.keep),
                seed=options.seed,
                options=options.to_dict(),
                submitted_by=getpass.getuser(),
                **asdict(when),
            )
        return plain_entry(entry)

    def entries(self, statuses: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
        """Entries in the order of execution."""
        with self._catalogue(must_exist=True) as catalogue:
            return [plain_entry(entry) for entry in ExperimentQueue(catalogue).entries(statuses=statuses, limit=limit)]

    def act(self, action: Action, experiment_id: str, reason: str | None) -> dict[str, Any]:
        """The entry after the action."""
        with self._catalogue(must_exist=True) as catalogue:
            queue = ExperimentQueue(catalogue)
            actions = {
                "hold": queue.hold, "release": queue.release, "cancel": queue.cancel, "pause": queue.pause,
                "resume": queue.resume,
            }  # fmt: skip
            return plain_entry(actions[action](experiment_id, by=getpass.getuser(), reason=reason))

    def stop(self, instrument: str | None, reason: str) -> list[dict[str, Any]]:
        """Straight to the instruments' stop lines."""
        stops = emergency_stop(self.settings, instrument, by=getpass.getuser(), reason=reason)
        return [stop.model_dump(mode="json") for stop in stops]

    def clear(self, instrument: str | None) -> list[dict[str, Any]]:
        """Take the locks off."""
        return [stop.model_dump(mode="json") for stop in clear(self.settings, instrument, by=getpass.getuser())]

    @contextmanager
    def _catalogue(self, *, must_exist: bool = False) -> Iterator[Catalogue]:
        folder = self.settings.data_folder
        if must_exist and not folder.is_dir():
            raise NotFound(
                f"{folder}: there is no data folder here yet; `stempilot submit` makes one, --data names another"
            )
        with Catalogue.open(folder, url=self.settings.database_url, visitor=True) as catalogue:
            yield catalogue


def plain_entry(entry: QueueEntry) -> dict[str, Any]:
    """An entry as the API shows it."""
    document: dict[str, Any] = json.loads(to_text(asdict(entry)))
    return document


@dataclass(frozen=True)
class RemoteDesk:
    """The queue of a `stempilot serve` somewhere, through its API."""

    url: str
    token: str | None

    def submit(self, spec: ExperimentSpec, options: RunOptions, when: When) -> dict[str, Any]:
        """Checked there, its files uploaded, then durably in the queue."""
        with self._client() as client:
            told = {"seed": options.seed, "baselines": options.baselines, "report": options.report}
            return client.submit(spec, **told, **asdict(when))

    def entries(self, statuses: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
        """Entries in the order of execution."""
        with self._client() as client:
            return client.queue(status=",".join(statuses), limit=limit)

    def act(self, action: Action, experiment_id: str, reason: str | None) -> dict[str, Any]:
        """The entry after the action."""
        with self._client() as client:
            return client.act(action, experiment_id, reason=reason)

    def stop(self, instrument: str | None, reason: str) -> list[dict[str, Any]]:
        """Blank and lock. Raises InstrumentFault naming those that did not confirm it."""
        with self._client() as client:
            return list(client.emergency_stop(instrument, reason=reason).values())

    def clear(self, instrument: str | None) -> list[dict[str, Any]]:
        """Take the locks off."""
        with self._client() as client:
            names = [instrument] if instrument else [state["name"] for state in client.instruments()]
            return [_cleared(client, name) for name in names]

    def _client(self) -> Client:
        return Client(self.url, self.token)


def _cleared(client: Client, name: str) -> dict[str, Any]:
    """A line as `emergency_stop.clear` has it; one that stays locked does not keep the others from being cleared."""
    try:
        state, fault = client.clear(name), None
    except InstrumentFault as error:
        state, fault = client.instrument_status(name), str(error)
    is_mute = fault is not None and not state["reachable"]
    return {
        "instrument": name, "is_reached": not is_mute, "beam_blanked": state["beam_blanked"],
        "is_locked": is_mute or state["locked"] is not None, "is_queue_locked": state["queue_locked"] is not None,
        "message": fault or state["problem"] or "cleared",
    }  # fmt: skip


def open_desk(settings: Settings, server: str | None, environment: Mapping[str, str]) -> Desk:
    """The desk at a server where one is named, by option or by STEMPILOT_SERVER, else that of the data folder."""
    url = server or environment.get(SERVER_VARIABLE)
    return RemoteDesk(url, environment.get(TOKEN_VARIABLE)) if url else LocalDesk(settings)
