"""Errors across the wire: each arrives as the class it was raised as, with its message."""

from __future__ import annotations

from typing import Any, Final

from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    LookNeeded,
    ResultUnknown,
    Unsupported,
)

_CLASSES: Final[dict[str, type[InstrumentError]]] = {
    error.__name__: error
    for error in (
        AcquisitionFailed, CommandRefused, ConfigurationError, InstrumentBusy, InstrumentError, InstrumentFault,
        LinkLost, LookNeeded, ResultUnknown, Unsupported,
    )
}  # fmt: skip


def failure_document(error: BaseException) -> dict[str, Any]:
    """An error as it crosses. What an adapter may not raise, and an error of its own, is an InstrumentFault."""
    if isinstance(error, InstrumentError):
        name = next(parent.__name__ for parent in type(error).__mro__ if parent.__name__ in _CLASSES)
        return {"error": name, "message": str(error)}
    return {"error": "InstrumentFault", "message": f"the adapter raised {type(error).__name__}: {error}"}


def failure(document: dict[str, Any]) -> InstrumentError:
    """The error that crossed."""
    return _CLASSES.get(str(document["error"]), InstrumentFault)(str(document["message"]))
