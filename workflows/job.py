"""One claimed experiment in a worker's hands, from its claim to its report and its last status.

The instrument is freed for others only once it has said that its beam is blanked.

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

from instruments import CommandRefused, ConfigurationError, InstrumentError, LinkLost, LookNeeded
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
from orchestrator.events import BEAM_BLANKED, BEAM_NOT_BLANKED
from orchestrator.loop import Control, Ending
from orchestrator.queue import Claim, ExperimentQueue
from orchestrator.settings import Settings
from policies import PolicyError
from workflows.assembly import spec_of
from workflows.attachment import Attachment
from workflows.flows.telling import Telling
from workflows.progress import FrameLines, fraction_spent
from workflows.reporting import write_report
from workflows.session import RunOptions, Session

_NOT_STARTED: Final = (SpecError, Refused, NotFound, PolicyError, ConfigurationError, CommandRefused)
_BY_A_PERSON: Final = "interrupted by a person"
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
    attachment: Attachment = field(init=False)

    def __post_init__(self) -> None:
        self.attachment = Attachment(self.settings.data_folder, self.claim)

    def run(self) -> Ending:
        """How it ended, which is in the catalogue by then. Raises LeaseLost; anything it does not know stays unsaid."""
        try:
            self._session().take(self.claim.experiment_id)
        except LeaseLost:
            raise
        except InstrumentLost as error:
            self.loss = error
            self._finish("interrupted", f"the instrument was lost: {error}")
        except StorageError as error:
            self._finish("interrupted", str(error))
        except (OrchestratorError, PolicyError, InstrumentError) as error:
            if isinstance(error, LinkLost | LookNeeded):
                self.attachment.lock(str(error))
                self.queue.lock_instrument(self.claim.instrument, "the guard", str(error))
            if self.ending is None:
                self._finish("refused" if self._is_refusal(error) else "failed", str(error))
        finally:
            self.attachment.close()
        return self.ending or Ending("failed", "it ended without a word")

    def fail(self, error: BaseException) -> None:
        """Something nobody foresaw came of it: say so, so that the queue goes on."""
        if self.ending is None:
            self._finish("failed", f"a fault of stempilot, {type(error).__name__}: {error}; the worker's log has more")

    def _session(self) -> Session:
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
                self._finish(status, reason or status, with_report=True)

        return Session(
            self.catalogue,
            self.settings,
            listen,
            self._tell,
            control=Control(interrupt=self.stop, wanted=self.wanted),
            open_instrument=self.attachment.open,
            embeds_prefect=False,
            set_status=set_status,
        )

    def _tell(self, line: str) -> None:
        self.say(line)
        self.telling.say(line)

    def _finish(self, status: str, reason: str, *, with_report: bool = False) -> None:
        """The last status, and the instrument free again; a person's wish that came meanwhile is obeyed.

        An instrument whose beam may be on is not freed: its lease lapses, and then the watchdog acts.
        """
        not_blanked = self.attachment.leave_dark(reason)
        if not_blanked is not None:
            reason = self._warned(reason, not_blanked)
        else:
            self._note_late_blank(reason)
        if not_blanked is None and with_report:
            self._write_report(self.claim.experiment_id)
        if status == "interrupted":
            wish = self.queue.wanted(self.claim)
            status = {"cancel": "cancelled", "pause": "paused"}.get(wish or "", status)
            if self.stop.is_set() and self.loss is None:
                reason = f"its worker was stopped; {reason.removeprefix(_BY_A_PERSON).removeprefix('; ')}"
        self.queue.finish(self.claim, status, reason, frees_instrument=not_blanked is None)
        self.ending = Ending(status, reason)
        self._tell(f"{status}: {reason}")

    def _note_late_blank(self, reason: str) -> None:
        if self.attachment.had_to_blank:
            self._note_beam(BEAM_BLANKED, f"it was not known to be off at the end: {reason}")

    def _note_beam(self, kind: str, reason: str) -> None:
        claim = self.claim
        told = {"instrument": claim.instrument, "fence": claim.fence, "holder": claim.holder, "reason": reason}
        self.catalogue.append(claim.experiment_id, kind, told)

    def _warned(self, reason: str, not_blanked: str) -> str:
        """The reason with what a person must know of the beam, which is in the journal then."""
        self._note_beam(BEAM_NOT_BLANKED, not_blanked)
        return (
            f"{reason}; THE BEAM OF {self.claim.instrument} MAY BE ON: {not_blanked}; look at the instrument, "
            "the watchdog tries again until it is off, and nothing is started on it before"
        )

    def _is_refusal(self, error: Exception) -> bool:
        """Whether nothing was ever asked of the microscope: then it could not even be started."""
        return isinstance(error, _NOT_STARTED) and not self.catalogue.decisions(self.claim.experiment_id)

    def _write_report(self, experiment_id: str) -> None:
        """The report, if there is anything to report. Whatever goes wrong with it, the experiment is what it is."""
        wanted = RunOptions.of(self.catalogue.experiment(experiment_id)).report
        if not wanted or not self.catalogue.frames(experiment_id):
            return
        with ThreadPoolExecutor(1, "report") as executor:
            writing = executor.submit(write_report, self.catalogue, self.settings, experiment_id)
        error = writing.exception()
        if error is None:
            self._tell(f"report: {writing.result()}")
        else:
            log.warning("report of %s", experiment_id, exc_info=error)
            self._tell(f"no report: {error}")
