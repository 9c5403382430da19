"""An experiment on its way into the queue: its files go along by content, its times are read as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from orchestrator.catalogue.uploads import PLACES
from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec

_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def with_uploads(spec: ExperimentSpec, keep: Callable[[str, bytes], str]) -> dict[str, Any]:
    """The spec as a document whose files are named by content; `keep(name, data)` takes one and gives its sha256.

    Raises SpecError for a file that cannot be read.
    """
    document = spec.model_dump(mode="json")
    for place in PLACES:
        section: Any = document
        for key in place[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        value = section.get(place[-1]) if isinstance(section, dict) else None
        if isinstance(value, str) and not value.startswith("sha256:"):
            path = Path(value)
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SpecError(f"{'.'.join(place)}: {path} cannot be read: {error.strerror}") from error
            section[place[-1]] = f"sha256:{keep(path.name, data)}/{path.name}"
    return document


def moment_of(text: str, now: datetime) -> datetime:
    """The moment a person means: `22:00` is the next time it is that late, else ISO 8601; local time unless it says so.

    >>> from datetime import UTC
    >>> moment_of("06:30", datetime(2026, 11, 21, 22, 15, tzinfo=UTC)).isoformat()
    '2026-11-22T06:30:00+00:00'
    """
    if clock := _CLOCK.fullmatch(text):
        today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SpecError(f"{text!r} is no time; write 22:00, or 2026-11-21T22:00") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
