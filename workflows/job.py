"""One claimed experiment in a worker's hands, from its claim to its report and its last status.

It is a `Session` like that of `stempilot run`, with the instrument in another process and the queue as its person.
Neighbours: `worker` (which takes one job after another), `attachment`, `lease_keeper`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from instruments import CommandRefused, ConfigurationError, InstrumentError, InstrumentFault
from instruments.remote import StopLine, endpoint_path
from orchestrator.catalogue import Catalogue
from orchestrator.errors import (
    InstrumentLost,
    LeaseLost,
    NotFound,
    OrchestratorError,
    Refused,
    SpecError,
    StorageError,
)
from orchestrator.loop import Control, Ending
from orchestrator.queue import Claim, ExperimentQueue
from orchestrator.settings import Settings
from policies import PolicyError
from workflows.assembly import spec_of
from workflows.attachment import Attachment
from workflows.flows.telling import Telling
from workflows.progress import FrameLines, fraction_spent
from workflows.reporting import write_report
from workflows.roles import run_folder
from workflows.session import Session

_NOT_STARTED: Final = (SpecError, Refused, NotFound, PolicyError, ConfigurationError, CommandRefused)
_STOPPED: Final = "its worker was stopped; the last frame is complete and stored"
log = logging.getLogger(__name__)


@dataclass
class Job:
    """One claimed experiment; `run` does it. `stop` is set when the worker shall end: the frame is finished first."""

    catalogue: Catalogue
    queue: ExperimentQueue
    settings: Settings
    claim: Claim
    stop: threading.Event
    wanted: Callable[[], str | None]
    say: Callable[[str], None]
    telling: Telling = field(default_factory=Telling)
    ending: Ending | None = None
    loss: InstrumentLost | None = None

    def run(self) -> Ending:
        """How it ended, which is in the catalogue by then. Raises LeaseLost; anything it does not know stays unsaid."""
        attachment = Attachment(self.settings.data_folder, self.claim)
        try:
            self._session(attachment).take(self.claim.experiment_id)
        except LeaseLost:
            raise
        except InstrumentLost as error:
            self.loss = error
            self._blank(str(error))
            self._finish("interrupted", f"the instrument was lost: {error}")
        except StorageError as error:
            self._finish("interrupted", str(error))
        except (OrchestratorError, PolicyError, InstrumentError) as error:
            if self.ending is None:
                self._finish("refused" if self._is_refusal(error) else "failed", str(error))
        finally:
            attachment.close()
        return self.ending or Ending("failed", "it ended without a word")

    def fail(self, error: BaseException) -> None:
        """Something nobody foresaw came of it: say so, so that the queue goes on."""
        if self.ending is None:
            self._finish("failed", f"a fault of stempilot, {type(error).__name__}: {error}; the worker's log has more")

    def _session(self, attachment: Attachment) -> Session:
        row = self.catalogue.experiment(self.claim.experiment_id)
        budget = spec_of(self.catalogue, row).budget
        lines = FrameLines(self._tell)

        def listen(kind: str, payload: Mapping[str, Any]) -> None:
            lines(kind, payload)
            if kind == "scored":
                self.telling.fraction = fraction_spent(payload["spent"], budget)
                self.telling.statement = str(payload["score"].statement)

        def set_status(experiment_id: str, status: str, reason: str | None) -> None:
            if status != "running":  # which the claim wrote already
                self._write_report(experiment_id, attachment)
                self._finish(status, reason or status)

        return Session(
            self.catalogue,
            self.settings,
            listen,
            self._tell,
            control=Control(interrupt=self.stop, wanted=self.wanted),
            open_instrument=attachment.open,
            embeds_prefect=False,
            set_status=set_status,
        )

    def _tell(self, line: str) -> None:
        self.say(line)
        self.telling.say(line)

    def _finish(self, status: str, reason: str) -> None:
        """The last status, and the instrument free again; a person's wish that came meanwhile is obeyed."""
        if status == "interrupted":
            wish = self.queue.wanted(self.claim)
            status = {"cancel": "cancelled", "pause": "paused"}.get(wish or "", status)
            if self.stop.is_set() and self.loss is None:
                reason = _STOPPED
        self.queue.finish(self.claim, status, reason)
        self.ending = Ending(status, reason)
        self._tell(f"{status}: {reason}")

    def _is_refusal(self, error: Exception) -> bool:
        """Whether nothing was ever asked of the microscope: then it could not even be started."""
        return isinstance(error, _NOT_STARTED) and not self.catalogue.decisions(self.claim.experiment_id)

    def _write_report(self, experiment_id: str, attachment: Attachment) -> None:
        """The report, if there is anything to report. Whatever goes wrong with it, the experiment is what it is."""
        microscope = attachment.microscope
        if microscope is None or not self.catalogue.frames(experiment_id):
            return
        with ThreadPoolExecutor(1, "report") as executor:
            writing = executor.submit(
                write_report, self.catalogue, self.settings, experiment_id, lambda adapter, config: microscope
            )
        error = writing.exception()
        if error is None:
            self._tell(f"report: {writing.result()}")
        else:
            log.warning("report of %s", experiment_id, exc_info=error)
            self._tell(f"no report: {error}")

    def _blank(self, reason: str) -> None:
        """The line may be lost and the instrument not: take its beam off, as long as nobody newer has it."""
        path = endpoint_path(run_folder(self.settings.data_folder), self.claim.instrument)
        try:
            StopLine.of(path).blank(reason, fence=self.claim.fence)
        except InstrumentFault as error:
            self._tell(f"the beam could not be blanked from here: {error}")
