"""Specs from outside: everything `submit` checks, a pointer for every fault. Neighbour: `experiment_routes`.

A spec from outside may name no file of this machine: only files uploaded before, as `sha256:<hash>/<name>`.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.api.bodies import pointer
from orchestrator.api.models import Submission
from orchestrator.api.problems import Problem
from orchestrator.api.services import Services
from orchestrator.catalogue.uploads import PLACES
from orchestrator.errors import Refused, SpecError
from orchestrator.plain_json import to_text
from orchestrator.queue.submission import check_order
from orchestrator.spec import ExperimentSpec

REFERENCE_PATTERN: Final = r"sha256:[0-9a-f]{64}/[^/\x00-\x1f]{1,160}"
_PATH_LIKE: Final = re.compile(r"[/\\]|^~|^\.\.?$")
_KNOWN_GOOD: Final = 1024


class SpecDesk:
    """Checks specs, and remembers those it found good: the same spec with another seed is not tried out again."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def checked(self, submission: Submission) -> dict[str, Any]:
        """The spec as it is stored, of a submission that can be taken. Raises Problem with every fault there is."""
        late = self._order_faults(submission)
        try:
            document = self.document_of(submission.spec)
        except Problem as problem:
            problem.members["errors"] = [*late, *problem.members.get("errors", [])]
            raise
        if late:
            raise Problem("invalid", _headline(late), errors=late)
        return document

    def _order_faults(self, submission: Submission) -> list[dict[str, Any]]:
        now = self._services.catalogue.now()
        try:
            check_order(submission.priority, submission.not_before, submission.not_after, now)
        except SpecError as error:
            return [order_fault(error)]
        return []

    def document_of(self, spec: ExperimentSpec) -> dict[str, Any]:
        """The spec as it is stored, files by their hashes. Raises Problem `invalid` or `refused`."""
        document = spec.model_dump(mode="json")
        if faults := list(file_faults(document)):
            raise Problem("invalid", "a submitted spec names only uploaded files", errors=faults)
        try:
            resolved = self._services.catalogue.uploads.resolve(document)
            known = hashlib.sha256(to_text(document).encode()).digest()
            if not self._is_good(known):
                self._services.check_spec(ExperimentSpec.model_validate(resolved))
                self._remember(known)
        except (SpecError, Refused) as error:
            kind = "refused" if isinstance(error, Refused) else "invalid"
            faults = [_fault(line) for line in str(error).splitlines() if line.strip()]
            raise Problem(kind, _headline(faults), errors=faults) from error
        return document

    def _is_good(self, known: bytes) -> bool:
        with self._lock:
            if known in self._good:
                self._good.move_to_end(known)
                return True
            return False

    def _remember(self, known: bytes) -> None:
        with self._lock:
            self._good[known] = None
            if len(self._good) > _KNOWN_GOOD:
                self._good.popitem(last=False)


def file_faults(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One entry for every place that names a file of this machine instead of an uploaded one."""
    for place in PLACES:
        value: Any = document
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not (isinstance(value, str) and re.fullmatch(REFERENCE_PATTERN, value)):
            yield {
                "pointer": pointer(("spec", *place)),
                "detail": f"{str(value)[:200]!r} is no uploaded file; PUT it to /api/v1/files/SHA256/NAME, "
                "then name it sha256:SHA256/NAME",
            }
    config = document.get("instrument", {}).get("config", {})
    for place, text in _texts(config, ("instrument", "config")):
        if place not in PLACES and _PATH_LIKE.search(text):
            yield {
                "pointer": pointer(("spec", *place)),
                "detail": f"{text[:200]!r} looks like a path of the server; a submitted spec names only uploaded files",
            }


def _texts(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*place, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, index))


def order_fault(error: SpecError) -> dict[str, Any]:
    """What `check_order` found, with its pointer: the sentence begins with the field's name."""
    field = str(error).partition(" ")[0]
    return {"pointer": pointer((field,)), "detail": str(error)}


def _fault(line: str) -> dict[str, Any]:
    """`search_space.x_nm: low 3 is above high 2` with its pointer; a sentence without a path has none."""
    path, colon, words = line.strip().partition(": ")
    parts = path.split(".")
    if colon and parts[0] in ExperimentSpec.model_fields and re.fullmatch(r"[\w.]+", path):
        return {"pointer": pointer(("spec", *parts)), "detail": words}
    return {"detail": line.strip()}


def _headline(faults: list[dict[str, Any]]) -> str:
    first = faults[0]["detail"] if faults else "the spec is not valid"
    return first if len(faults) < 2 else f"{first} (and {len(faults) - 1} more, in `errors`)"
