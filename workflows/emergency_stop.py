"""`stempilot estop`: the beam first, by the stop line; then the queue: nothing is started until it is cleared."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from instruments import InstrumentError
from instruments.models import Record
from instruments.remote import Lock, StopLine, endpoint_path
from instruments.remote.ownership import Ownership, ownership_path
from orchestrator.catalogue import Catalogue
from orchestrator.errors import DataFolderBusy, StorageError
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import BUILT_IN, Settings
from workflows.roles import RoleLock, run_folder


class EmergencyStop(Record):
    """What came of a stop, or of clearing it, on one instrument.

    `is_reached`: its process answered, or has none and is locked for its next start. `beam_blanked` None: not
    confirmed; then assume that the beam is on and blank it at the instrument.
    """

    instrument: str
    is_reached: bool
    beam_blanked: bool | None
    is_locked: bool
    is_queue_locked: bool
    message: str


@dataclass(frozen=True, slots=True)
class _Part:
    """What came of it at the instrument's own end."""

    is_reached: bool
    beam_blanked: bool | None
    is_locked: bool
    message: str


def emergency_stop(
    settings: Settings, name: str | None, *, by: str, reason: str, queue: ExperimentQueue | None = None
) -> list[EmergencyStop]:
    """Interrupt, blank and lock one instrument, or all that are configured; one line for each, reached or not.

    It needs neither the worker nor the database; again is harmless. `queue` is that of whoever has one open already.
    Raises NotFound for a name that is not configured.
    """
    names = _names(settings, name)
    parts = _side_by_side(names, lambda one: _stop(settings, one, by, reason))
    locked = _in_queue(settings, queue, names, lambda open_queue, one: open_queue.lock_instrument(one, by, reason))
    return [_line(one, part, trouble, is_locking=True) for one, part, trouble in zip(names, parts, locked, strict=True)]


def clear(
    settings: Settings, name: str | None, *, by: str, queue: ExperimentQueue | None = None
) -> list[EmergencyStop]:
    """Take the locks off, after a person has looked. Beams stay blanked until the next owner's command. As above."""
    names = _names(settings, name)
    parts = _side_by_side(names, lambda one: _clear(settings, one, by))
    freed = _in_queue(settings, queue, names, lambda open_queue, one: open_queue.unlock_instrument(one, by))
    return [_line(one, part, trouble, is_locking=False) for one, part, trouble in zip(names, parts, freed, strict=True)]


def _names(settings: Settings, name: str | None) -> list[str]:
    if name is None:
        return sorted(settings.instruments)
    settings.instrument(name)
    return [name]


def _side_by_side(names: list[str], act: Callable[[str], _Part]) -> list[_Part]:
    """One that does not answer holds up no other."""
    with ThreadPoolExecutor(max(1, len(names)), "stop") as pool:
        return list(pool.map(act, names))


def _stop(settings: Settings, name: str, by: str, reason: str) -> _Part:
    try:
        line = StopLine.of(endpoint_path(run_folder(settings.data_folder), name))
        report = line.emergency_stop(reason, by=by)
        is_empty = report.beam_blanked is None and line.status().session_id is None
    except InstrumentError as error:
        lock = Lock(reason=reason, by=by, at=datetime.now(UTC))
        resting = _at_rest(settings, name, lambda own: own.set_lock(lock))
        if resting is None:
            return _Part(False, None, False, str(error))
        return _at_its_gateway(settings, name, replace(resting, is_locked=True), lambda line: _ask(line, reason, by))
    if is_empty and _is_simulation(settings, name):
        return _Part(True, True, report.is_locked, "nothing is loaded, and a simulation has no beam then")
    return _Part(True, report.beam_blanked, report.is_locked, report.message)


def _clear(settings: Settings, name: str, by: str) -> _Part:
    try:
        status = StopLine.of(endpoint_path(run_folder(settings.data_folder), name)).clear(by=by)
    except InstrumentError as error:
        resting = _at_rest(settings, name, lambda own: own.clear())
        if resting is None:
            return _Part(False, None, True, str(error))
        return _at_its_gateway(settings, name, resting, lambda line: _ask_to_clear(line, by))
    return _Part(True, status.beam_blanked, status.lock is not None, "cleared")


def _ask(line: StopLine, reason: str, by: str) -> _Part:
    report = line.emergency_stop(reason, by=by)
    return _Part(True, report.beam_blanked, True, f"at its gateway: {report.message}")


def _ask_to_clear(line: StopLine, by: str) -> _Part:
    status = line.clear(by=by)
    return _Part(True, status.beam_blanked, status.lock is not None, "cleared, at its gateway too")


def _at_its_gateway(settings: Settings, name: str, here: _Part, ask: Callable[[StopLine], _Part]) -> _Part:
    """The same at the far end of an instrument that nobody has open here: its beam may be on all the same."""
    instrument = settings.instrument(name)
    ticket = instrument.config.get("ticket")
    if instrument.adapter != "gateway" or not isinstance(ticket, str):
        return here
    try:
        there = ask(StopLine.of(Path(ticket).expanduser()))
    except InstrumentError as error:
        return _Part(False, None, here.is_locked, f"its gateway did not answer: {error}")
    return replace(there, is_reached=here.is_reached, is_locked=there.is_locked or here.is_locked)


def _at_rest(settings: Settings, name: str, change: Callable[[Ownership], None]) -> _Part | None:
    """Change what an instrument without a process will remember when it is started; None: it has one, which is mute."""
    try:
        with RoleLock(settings.data_folder, f"instrument-{name}"):
            ownership = Ownership(name, ownership_path(run_folder(settings.data_folder), name))
            change(ownership)
            trouble = ownership.save()
    except DataFolderBusy:
        return None
    except InstrumentError as error:
        return _Part(False, None, True, str(error))
    message = "its process does not run, so nothing here keeps its beam on"
    is_dark = True if _is_simulation(settings, name) else None
    return _Part(trouble is None, is_dark, False, message if trouble is None else f"{message}; {trouble}")


def _is_simulation(settings: Settings, name: str) -> bool:
    """Whether it has no beam but what its process computes."""
    return settings.instrument(name).adapter in BUILT_IN


def _in_queue(
    settings: Settings, queue: ExperimentQueue | None, names: list[str], act: Callable[[ExperimentQueue, str], object]
) -> list[str | None]:
    """For each name None, or why the queue could not be changed."""
    if queue is not None:
        return [_trouble_with(act, queue, name) for name in names]
    try:
        with Catalogue.open(settings.data_folder, url=settings.database_url, visitor=True) as catalogue:
            return _in_queue(settings, ExperimentQueue(catalogue), names, act)
    except StorageError as error:
        return [str(error)] * len(names)


def _trouble_with(act: Callable[[ExperimentQueue, str], object], queue: ExperimentQueue, name: str) -> str | None:
    try:
        act(queue, name)
    except StorageError as error:
        return str(error)
    return None


def _line(name: str, part: _Part, trouble: str | None, *, is_locking: bool) -> EmergencyStop:
    message = part.message if trouble is None else f"{part.message}; the queue could not be changed: {trouble}"
    return EmergencyStop(
        instrument=name,
        is_reached=part.is_reached,
        beam_blanked=part.beam_blanked,
        is_locked=part.is_locked,
        is_queue_locked=(trouble is None) == is_locking,
        message=message,
    )
