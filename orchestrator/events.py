"""What happened in an experiment: appended once, never changed. `journal` writes events, the catalogue keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

CREATED: Final = "created"
STATUS_CHANGED: Final = "status_changed"
CONTEXT_SET: Final = "context_set"
INSTRUMENT_DESCRIBED: Final = "instrument_described"
SPECIMEN_DOSE: Final = "specimen_dose"
OUT_OF_REACH: Final = "out_of_reach"
INTENDED: Final = "intended"
FRAME_STORED: Final = "frame_stored"
OBSERVED: Final = "observed"
MARKED: Final = "marked"
CLOSED: Final = "closed"
QUEUE_CHANGED: Final = "queue_changed"
WANTED: Final = "wanted"
REMOVED: Final = "removed"
BEAM_BLANKED: Final = "beam_blanked"
BEAM_SEEN_OFF: Final = "beam_seen_off"
BEAM_NOT_BLANKED: Final = "beam_not_blanked"
EXTRA_DEBIT: Final = "extra_debit"
LINK_LOSS: Final = "link_loss"
INSTRUMENT_LOCKED: Final = "instrument_locked"
INSTRUMENT_UNLOCKED: Final = "instrument_unlocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the journal.

    `seq` counts from 1 within the experiment. `payload` is JSON: numbers that are not finite were stored as null.
    `arrays` are the bytes that came with it (a `FeatureSet`, for `observed`), or None where there are none or they
    were not asked for.
    """

    experiment_id: str
    seq: int
    kind: str
    recorded_at: datetime
    payload: dict[str, Any] = field(default_factory=dict[str, Any])
    arrays: bytes | None = None
