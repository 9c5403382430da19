"""What a service's refusals mean: problem documents become the errors that the same call raises beside the database.

Neighbour: `client`, which sends the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from instruments import InstrumentFault
from orchestrator.errors import (
    Conflict,
    DataFolderBusy,
    DiskFull,
    NotAllowed,
    NotFound,
    OrchestratorError,
    PreconditionFailed,
    Refused,
    SpecError,
    StorageError,
    TooManyRequests,
)

LONGEST_WAIT_S: Final = 5.0
_FIRST_WAIT_S: Final = 0.2
_ERRORS: Final[dict[str, type[Exception]]] = {
    "invalid": SpecError,
    "malformed": SpecError,
    "too-large": SpecError,
    "key-reused": SpecError,
    "refused": Refused,
    "not-found": NotFound,
    "stale": PreconditionFailed,
    "unauthorized": NotAllowed,
    "forbidden": NotAllowed,
    "foreign-origin": NotAllowed,
    "too-many": TooManyRequests,
    "disk-full": DiskFull,
    "unavailable": DataFolderBusy,
    "damaged": StorageError,
    "instrument": InstrumentFault,
}


def error_of(answer: httpx.Response) -> Exception:
    """The error an answer stands for."""
    try:
        problem: dict[str, Any] = answer.json()
        kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return OrchestratorError(
            f"{answer.request.url} answered {answer.status_code} and no problem document; is it a stempilot service?"
        )
    faults = problem.get("errors", [])
    if faults:
        detail = "\n  ".join([detail if len(faults) > 1 else "", *map(fault_words, faults)]).strip()
    if kind in ("conflict", "in-flight", "cut-off"):
        return Conflict(
            detail, status=str(problem.get("current_status", "")), possible=tuple(problem.get("possible", ()))
        )
    return _ERRORS.get(kind, OrchestratorError)(detail)


def is_worth_waiting(answer: httpx.Response) -> bool:
    """Whether the service says that it may answer soon: an answer under way, too much at once, a busy database."""
    if answer.status_code not in (409, 429, 503):
        return False
    told = answer.headers.get("Retry-After", "")
    return told.isdigit() and int(told) <= LONGEST_WAIT_S


def wait_s(trial: int, answer: httpx.Response | None = None) -> float:
    """How long to wait after that many tries: ever longer, and never less than an answer said."""
    told = answer.headers.get("Retry-After", "") if answer is not None else ""
    own_s = min(_FIRST_WAIT_S * 2 ** (trial - 1), LONGEST_WAIT_S)
    return max(own_s, float(told)) if told.isdigit() else own_s


def fault_words(fault: Mapping[str, Any]) -> str:
    """`specimen.structure: ...` for a pointer into the spec, as the command line says it."""
    place = fault.get("pointer") or fault.get("parameter")
    if not place:
        return str(fault["detail"])
    path = str(place).removeprefix("#/").removeprefix("spec/").replace("/", ".").replace("~1", "/").replace("~0", "~")
    return f"{path}: {fault['detail']}"
