"""What the API is handed: everything below it, and what `workflows` alone can do. Neighbour: `app`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec

if TYPE_CHECKING:
    from orchestrator.api.tokens import Tokens
    from orchestrator.queue import ExperimentQueue


class InstrumentDesk(Protocol):
    """The configured instruments, reached without any worker. Answers are JSON documents.

    Raises NotFound for a name that is not configured, an InstrumentError where the instrument does not answer.
    """

    def names(self) -> list[str]:
        """Names of the configured instruments, sorted."""
        ...

    def capabilities(self, name: str) -> Mapping[str, Any]:
        """What the instrument can do, as `instruments.Capabilities` has it."""
        ...

    def status(self, name: str) -> Mapping[str, Any]:
        """What its stop line says now: `beam_blanked`, `exposing`, `locked` and more; never waits for an exposure."""
        ...

    def emergency_stop(self, name: str | None, by: str, reason: str) -> Mapping[str, Any]:
        """Blank and lock one instrument, or all of them; name -> what it answered, its error in words included."""
        ...

    def clear(self, name: str, by: str) -> None:
        """Take the lock of an emergency stop away: a person has looked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every request may use.

    `check_spec` raises SpecError or Refused for whatever `submit` would refuse; it gets a spec whose uploaded files
    are absolute paths. `write_report` makes the HTML report from the catalogue. `tokens` is None where everybody who
    reaches this service may do everything; see `check_binding`.
    """

    catalogue: Catalogue
    queue: ExperimentQueue
    settings: Settings
    check_spec: Callable[[ExperimentSpec], None]
    write_report: Callable[[str], Path]
    experiment_document: Callable[[str], dict[str, Any]]
    instruments: InstrumentDesk
    tokens: Tokens | None
    version: str
