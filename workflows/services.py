"""What the API is handed: the queue and catalogue of this data folder, the checks, the report, the instruments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from instruments import ConfigurationError, InstrumentFault
from instruments.remote import StopLine, endpoint_path
from orchestrator.api import Services, Tokens
from orchestrator.catalogue import Catalogue
from orchestrator.plain_json import plain
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import BUILT_IN, Settings
from orchestrator.versions import versions
from workflows.documents import experiment_document
from workflows.emergency_stop import clear, emergency_stop
from workflows.reporting import write_report
from workflows.roles import run_folder
from workflows.validation import check_spec


def build_services(settings: Settings, catalogue: Catalogue, tokens: Tokens | None) -> Services:
    """Everything `create_app` needs; `tokens` None: everybody who reaches the service may do everything."""
    queue = ExperimentQueue(catalogue)
    return Services(
        catalogue=catalogue,
        queue=queue,
        settings=settings,
        check_spec=partial(check_spec, settings=settings),
        write_report=partial(write_report, catalogue, settings),
        experiment_document=partial(experiment_document, catalogue),
        instruments=StopLineDesk(settings, queue),
        tokens=tokens,
        version=versions()["stempilot"],
    )


@dataclass(frozen=True)
class StopLineDesk:
    """The configured instruments, each asked on its stop line: no worker is needed, no exposure is waited for."""

    settings: Settings
    queue: ExperimentQueue

    def names(self) -> list[str]:
        """Names of the configured instruments, sorted."""
        return sorted(self.settings.instruments)

    def capabilities(self, name: str) -> Mapping[str, Any]:
        """Of what is loaded; of a simulated one also before. Raises InstrumentFault where they are not known yet."""
        try:
            return plain(self._line(name).capabilities())
        except InstrumentFault:
            if self.settings.instrument(name).adapter != "simulated":
                raise
            return self._simulated(name)

    def _simulated(self, name: str) -> Mapping[str, Any]:
        from simulation.world.config import parse_config
        from simulation.world.instrument_card import card

        structure = str(files("workflows") / "templates" / "WSe2.extxyz")  # what it holds does not matter here
        try:
            return plain(card(parse_config({"structure": structure, **self.settings.instrument(name).config})))
        except ConfigurationError as error:
            raise InstrumentFault(f"instrument {name!r} is wrongly configured: {error}") from error

    def status(self, name: str) -> Mapping[str, Any]:
        """What its process says now. Raises InstrumentFault where it has none or that does not answer."""
        status = self._line(name).status()
        lock = status.lock
        known = status.model_dump(mode="json")
        locked = None if lock is None else f"{lock.reason}, by {lock.by} at {lock.at:%Y-%m-%d %H:%M} UTC"
        is_dark = status.session_id is None and self.is_simulation(name)
        return {**known, "locked": locked, "beam_blanked": True if is_dark else known["beam_blanked"]}

    def emergency_stop(self, name: str | None, by: str, reason: str) -> Mapping[str, Any]:
        """Blank and lock one instrument, or all of them; name -> what it answered."""
        stops = emergency_stop(self.settings, name, by=by, reason=reason, queue=self.queue)
        return {stop.instrument: stop.model_dump(mode="json") for stop in stops}

    def clear(self, name: str, by: str) -> None:
        """Take the lock of an emergency stop away. Raises InstrumentFault where it is still there."""
        for line in clear(self.settings, name, by=by, queue=self.queue):
            if line.is_locked or line.is_queue_locked:
                where = {"the instrument itself": line.is_locked, "the queue": line.is_queue_locked}
                still = " and ".join(place for place, is_locked in where.items() if is_locked)
                raise InstrumentFault(f"{line.instrument}: {still} is still locked: {line.message}; clear it again")

    def is_simulation(self, name: str) -> bool:
        """Whether it has no beam while nothing is loaded into it."""
        return self.settings.instrument(name).adapter in BUILT_IN

    def _line(self, name: str) -> StopLine:
        self.settings.instrument(name)
        return StopLine.of(endpoint_path(run_folder(self.settings.data_folder), name))
