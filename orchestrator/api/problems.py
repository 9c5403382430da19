"""Errors as `application/problem+json` (RFC 9457), each with a type that a program can act on. Neighbour: `route`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from instruments import InstrumentBusy, InstrumentError, Unsupported
from orchestrator.errors import (
    Conflict,
    DataFolderBusy,
    DiskFull,
    FrameDamaged,
    LeaseLost,
    NotFound,
    OrchestratorError,
    PreconditionFailed,
    Refused,
    SpecError,
    StorageError,
)
from orchestrator.plain_json import to_text

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:stempilot:problem:"

# What may go wrong: the last word of the problem's type, its status, its title.
KINDS: Final[dict[str, tuple[int, str]]] = {
    "malformed": (400, "The request cannot be read"),
    "unauthorized": (401, "A valid token is needed"),
    "forbidden": (403, "This token may not do that"),
    "foreign-origin": (403, "The request comes from another site"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "conflict": (409, "The state does not allow that"),
    "in-flight": (409, "A request with this Idempotency-Key is still being answered"),
    "cut-off": (409, "Whether it was done before is not known"),
    "stale": (412, "It has changed since it was read"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body's media type is not understood"),
    "range": (416, "The range cannot be given"),
    "invalid": (422, "The request is not valid"),
    "refused": (422, "The safety envelope or a budget refuses it"),
    "key-reused": (422, "The Idempotency-Key belongs to another request"),
    "precondition-required": (428, "If-Match is required"),
    "too-many": (429, "Too many requests"),
    "damaged": (500, "Stored data are damaged"),
    "internal": (500, "An error of this service"),
    "instrument": (502, "The instrument does not answer as it should"),
    "unavailable": (503, "Not now"),
    "disk-full": (503, "The disk is full"),
}
RETRY_AFTER_S: Final = {"in-flight": 1, "unavailable": 2, "disk-full": 60}


class Problem(Exception):
    """A request that ends in a problem document."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = KINDS[kind]
        self.detail = detail
        self.members = {**members, **({"errors": list(errors)} if errors else {})}
        self.headers = dict(headers or {})
        if kind in RETRY_AFTER_S:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S[kind]))

    def document(self, instance: str) -> dict[str, Any]:
        """The problem's members."""
        return {
            "type": TYPE_PREFIX + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            **self.members,
        }

    def response(self, instance: str) -> Response:
        """The answer."""
        return Response(
            to_text(self.document(instance)), self.status, {**self.headers, "Cache-Control": "no-store"}, MEDIA_TYPE
        )


def problem_of(error: OrchestratorError | InstrumentError) -> Problem:
    """The problem an error of the layers below is answered with."""
    if isinstance(error, InstrumentError):
        kind = "unavailable" if isinstance(error, InstrumentBusy) else "instrument"
        return Problem("conflict" if isinstance(error, Unsupported) else kind, str(error))
    if isinstance(error, Conflict):
        return Problem("conflict", str(error), current_status=error.status, possible=list(error.possible))
    found = next(kind for known, kind in _KIND_OF if isinstance(error, known))
    head, *lines = str(error).splitlines()
    if found == "invalid" and lines:
        return Problem(found, head, errors=[{"detail": line.strip()} for line in lines])
    return Problem(found, str(error))


_KIND_OF: Final[tuple[tuple[type[OrchestratorError], str], ...]] = (
    (SpecError, "invalid"),
    (Refused, "refused"),
    (NotFound, "not-found"),
    (PreconditionFailed, "stale"),
    (LeaseLost, "conflict"),
    (DiskFull, "disk-full"),
    (FrameDamaged, "damaged"),
    (DataFolderBusy, "unavailable"),
    (StorageError, "unavailable"),
    (OrchestratorError, "internal"),
)
