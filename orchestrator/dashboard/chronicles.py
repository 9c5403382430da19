"""Chronicles of the experiments looked at last, each read once and then only from where it stopped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from instruments import AcquireFrame, DoseLedger
from orchestrator.catalogue import Catalogue
from orchestrator.dashboard.chronicle import Chronicle, Step, advance

_KEPT_COUNT = 64


@dataclass
class _Entry:
    """One experiment: its chronicle, and the dose ledger of the frames counted so far."""

    chronicle: Chronicle = field(default_factory=Chronicle)
    ledger: DoseLedger = field(default_factory=DoseLedger)
    counted: set[str] = field(default_factory=set[str])
    lock: threading.Lock = field(default_factory=threading.Lock)


class Chronicles:
    """Reads of one catalogue; any thread may ask. A repeated question costs one query for newer events."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, experiment_id: str) -> Chronicle:
        """The journal of an experiment, given by its whole id, up to now."""
        entry = self._entry(experiment_id)
        with entry.lock:
            return self._read_on(experiment_id, entry)

    def dose_max_e_per_a2(self, experiment_id: str) -> float:
        """The highest dose in any 1 nm2, as the ledger bounds it from the stored frames."""
        entry = self._entry(experiment_id)
        with entry.lock:
            chronicle = self._read_on(experiment_id, entry)
            if "dose_max_e_per_a2" in chronicle.closed:
                return float(chronicle.closed["dose_max_e_per_a2"])
            for step in chronicle.frames:
                if step.id not in entry.counted:
                    entry.counted.add(step.id)
                    entry.ledger.add_frame(command_of(step), step.electrons or 0.0)
            return entry.ledger.max_e_per_a2

    def _entry(self, experiment_id: str) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(experiment_id, _Entry())
            self._entries.move_to_end(experiment_id)
            while len(self._entries) > _KEPT_COUNT:
                self._entries.popitem(last=False)
            return entry

    def _read_on(self, experiment_id: str, entry: _Entry) -> Chronicle:
        newer = self._catalogue.events(experiment_id, after_seq=entry.chronicle.last_seq)
        told = list(newer)
        if told:
            entry.chronicle = advance(entry.chronicle, told)
        return entry.chronicle


def command_of(step: Step) -> AcquireFrame:
    """What was asked of the microscope."""
    return AcquireFrame.model_validate(step.command)
