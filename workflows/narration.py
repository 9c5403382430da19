"""What `stempilot serve` tells the person at its terminal: where things are, then what begins and ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from orchestrator.errors import NotFound, StorageError
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from workflows.prefect_server import unreachable_because
from workflows.supervisor import LOG_FOLDER, Role
from workflows.worker import prefect_url

_MOST: Final = 50
_ASK_PREFECT_S: Final = 1.0


@dataclass
class Narration:
    """Says what changed since the last `look`."""

    settings: Settings
    queue: ExperimentQueue
    say: Callable[[str], None]
    _running: dict[str, str] = field(default_factory=dict[str, str])
    _prefect: threading.Thread | None = None

    def welcome(self, url: str, first_token: str | None, roles: Sequence[Role], *, asks: bool) -> None:
        """The address, the first token, and what each process is for."""
        self.say(f"stempilot serves {self.settings.data_folder}")
        self.say(f"  page and API   {url}/")
        if first_token is not None:
            self.say(f"  admin token    {first_token}")
            self.say(
                "                 (shown this once; the page and --server ask for it, commands on this folder do not)"
            )
            self.say(f"  logged in at   {url}/login#token={first_token}")
        elif not asks:
            self.say("                 (no tokens: everybody on this machine may do everything)")
        if not roles:
            self.say("it starts no other process; Ctrl-C ends API and page, and nothing else")
            return
        self.say(f"processes, each with its log in {self.settings.data_folder / LOG_FOLDER}:")
        width = max(len(role.name) for role in roles)
        for role in roles:
            self.say(f"  {role.name:{width}}  {role.purpose}")
        self.say("Ctrl-C stops all of them; stempilot submit SPEC.yaml, in another terminal, adds an experiment")

    def look(self) -> None:
        """Say which experiments began and ended, and when Prefect's server is there."""
        self._look_at_prefect()
        try:
            running = {entry.id: entry.name for entry in self.queue.entries(statuses=("running",), limit=_MOST)}
            for own in running.keys() - self._running.keys():
                self._tell(f"{own[:12]} ({running[own]}) runs")
            for own in self._running.keys() - running.keys():
                entry = self.queue.entry(own)
                self._tell(f"{own[:12]} ({entry.name}) {entry.status}{f': {entry.reason}' if entry.reason else ''}")
        except (StorageError, NotFound) as error:
            self._tell(str(error))
        else:
            self._running = running

    def _look_at_prefect(self) -> None:
        if self._prefect is None and self.settings.serve.prefect:
            self._prefect = threading.Thread(target=self._wait_for_prefect, name="prefect-look", daemon=True)
            self._prefect.start()

    def _wait_for_prefect(self) -> None:
        pause = threading.Event()
        while (url := prefect_url(self.settings)) is None or unreachable_because(url) is not None:
            pause.wait(_ASK_PREFECT_S)
        pages = f", pages at {url.removesuffix('/api')}" if self.settings.serve.prefect_ui else ""
        self._tell(f"Prefect's server answers at {url}{pages}")

    def _tell(self, text: str) -> None:
        self.say(f"{datetime.now().astimezone():%H:%M:%S} {text}")
