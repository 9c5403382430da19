"""A worker: one warm process for one instrument, which takes the next experiment as soon as it is free.

Each experiment is a `job`, shown at a Prefect server by the flow of `flows.experiment` where there is one.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.catalogue import Catalogue
from orchestrator.errors import Conflict, LeaseLost, OrchestratorError, StorageError
from orchestrator.loop import Ending
from orchestrator.queue import Claim, ExperimentQueue
from orchestrator.settings import Settings
from workflows.attachment import absent_because, beam_trouble
from workflows.flows.experiment import Shown, perform, wait_for_last_words
from workflows.flows.names import flow_name
from workflows.flows.telling import Once
from workflows.job import Job
from workflows.lease_keeper import LeaseKeeper
from workflows.prefect_server import FACTS_FILE, quiet_environment
from workflows.roles import RoleLock, run_folder
from workflows.run_options import RunOptions

POLL_S: Final = 0.2
_TRY_AGAIN_S: Final = 1.0
_MOST_LOSSES: Final = 3
log = logging.getLogger(__name__)


@dataclass
class Worker:
    """Takes experiments of one instrument from the queue until `stop` is set."""

    catalogue: Catalogue
    queue: ExperimentQueue
    settings: Settings
    instrument: str
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _said: str | None = None
    _losses: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def run(self, *, until_idle: bool = False) -> None:
        """Work until `stop`; with `until_idle` only as long as anything can be taken."""
        while not self.stop.is_set():
            claim = self._next()
            if claim is not None:
                self._perform(claim)
            elif until_idle and self._said is None:
                return
            else:
                self.stop.wait(POLL_S)

    def _next(self) -> Claim | None:
        """A claim, if the instrument is there, the disk has room and something waits."""
        because = absent_because(self.settings.data_folder, self.instrument)
        try:
            if because is None:
                because = self._beam_trouble()
            if because is None:
                self.catalogue.forecast(0)
                claim = self.queue.claim(self.instrument, self.holder, self.settings.lease_s)
                self._say_once(None)
                return claim
        except StorageError as error:
            because = str(error)
            self.stop.wait(_TRY_AGAIN_S)
        self._say_once(because)
        return None

    def _beam_trouble(self) -> str | None:
        """Why not to claim an instrument that was not freed, although its lease may have lapsed: its beam may be on."""
        lease = self.queue.lease(self.instrument)
        if lease is None or lease.holder is None:
            return None
        return beam_trouble(self.settings.data_folder, self.instrument)

    def _say_once(self, text: str | None) -> None:
        if text is not None and text != self._said:
            self.say(f"waits: {text}")
        self._said = text

    def _perform(self, claim: Claim) -> None:
        """One experiment, from claim to report; nothing that happens in it ends the worker."""
        row = self.catalogue.experiment(claim.experiment_id)
        self.say(f"{'goes on with' if claim.resumes else 'takes'} {row.id} ({row.name}), fence {claim.fence}")
        self.catalogue.fenced_by(claim)
        with LeaseKeeper(self.queue, claim, self.settings.lease_s) as keeper:
            job = Job(self.catalogue, self.queue, self.settings, claim, self.stop, keeper.wanted, self.say)
            flow = flow_name(row.spec["objective"]["name"])
            once = self._begin(job, Shown(experiment_id=row.id, name=row.name, instrument=claim.instrument, flow=flow))
            wait([once.result])
            self._settle(job, once.result.exception())
        if job.loss is not None and not job.loss.is_locked and not self.stop.is_set():
            self._try_again(job)

    def _begin(self, job: Job, shown: Shown) -> Once[Ending]:
        """Begin the job, inside a flow run where one is wanted and can be had."""
        options = RunOptions.of(self.catalogue.experiment(job.claim.experiment_id))
        url = prefect_url(self.settings)
        if url is not None and options.engine == "prefect":
            return perform(job.run, shown, job.telling, url, lambda because: self._note_local(job.claim, because))
        once = Once(job.run)
        once.begin()
        if options.engine == "prefect" and self.settings.serve.prefect:
            self._note_local(job.claim, "no Prefect server is known here")
        return once

    def _note_local(self, claim: Claim, because: str) -> None:
        self.say(f"{because}; going on without it")
        try:
            self.catalogue.append(claim.experiment_id, "engine_changed", {"engine": "local", "because": because})
        except (LeaseLost, StorageError) as error:
            log.warning("%s", error)

    def _settle(self, job: Job, error: BaseException | None) -> None:
        """After the work: what nobody foresaw is said, so that the experiment does not hang."""
        if error is None:
            return
        if isinstance(error, LeaseLost):
            self.say(str(error))
            return
        log.error("experiment %s", job.claim.experiment_id, exc_info=error)
        try:
            job.fail(error)
        except OrchestratorError as failure:  # then the lease lapses, and it is taken again
            self.say(str(failure))

    def _try_again(self, job: Job) -> None:
        """Back into the queue after the instrument's process was lost; after some losses without a frame, no more."""
        own = job.claim.experiment_id
        frames = len(self.catalogue.frames(own))
        losses, frames_before = self._losses.get(own, (0, -1))
        losses = 1 if frames > frames_before else losses + 1
        self._losses[own] = (losses, frames)
        if losses >= _MOST_LOSSES or self.queue.entry(own).status != "interrupted":
            return
        try:
            self.queue.resume(own, by=self.holder, reason="it goes on as soon as its instrument is there again")
        except (Conflict, StorageError) as error:
            self.say(str(error))
        self.stop.wait(_TRY_AGAIN_S * losses)


def prefect_url(settings: Settings) -> str | None:
    """The API of the Prefect server to be told: the configured one, else the one this data folder's serve started."""
    if not settings.serve.prefect:
        return None
    if settings.serve.prefect_url is not None:
        return settings.serve.prefect_url
    try:
        return str(json.loads((run_folder(settings.data_folder) / FACTS_FILE).read_text(encoding="utf-8"))["url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def warm_up(prefect_home: Path, *, with_prefect: bool) -> None:
    """Import what every first experiment would wait for. What some policies need, as torch, comes with them."""
    os.environ.update(quiet_environment(prefect_home))
    for name in ("simulation", *(("prefect",) if with_prefect else ())):
        importlib.import_module(name)


def run_worker(settings: Settings, instrument: str, say: Callable[[str], None], *, until_idle: bool = False) -> None:
    """Be the worker of an instrument until SIGTERM or Ctrl-C: the frame is finished, the beam blanked, then it ends.

    Raises NotFound for an instrument that is not configured, DataFolderBusy where it has a worker here, StorageError.
    """
    settings.instrument(instrument)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        RoleLock(settings.data_folder, f"worker-{instrument}"),
        Catalogue.open(settings.data_folder, url=settings.database_url, shared=True) as catalogue,
    ):
        warm_up(settings.data_folder / "prefect", with_prefect=settings.serve.prefect)
        say(f"worker of {instrument}: process {os.getpid()}, ready")
        Worker(catalogue, ExperimentQueue(catalogue), settings, instrument, say, stop).run(until_idle=until_idle)
        wait_for_last_words()
    say(f"worker of {instrument}: ended")
