"""What goes in and what comes out, as the published document says it; unknown fields are refused on the way in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from instruments.models import Record
from orchestrator.api.access import Scope
from orchestrator.spec import ExperimentSpec

ID_PATTERN: Final = "^[0-9a-f]{8,32}$"
FRAME_PATTERN: Final = "^[0-9a-f]{32}$"
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}$"
SHORT_TEXT = Annotated[str, StringConstraints(max_length=500)]
LARGEST_PRIORITY: Final = 1000


class Answer(BaseModel):
    """What comes out; a later version may add to it."""

    model_config = ConfigDict(extra="allow")


class Health(Answer):
    """The service answers."""

    status: str


class Readiness(Answer):
    """Whether experiments can be taken, and each check in words."""

    ready: bool
    checks: dict[str, str]


class Version(Answer):
    """Versions."""

    stempilot: str
    api: str
    libraries: dict[str, str]


class WhoAmI(Answer):
    """Who asks."""

    name: str
    scopes: list[Scope]
    tokens: bool = Field(description="whether this service asks for tokens at all")


class Submission(Record):
    """An experiment for the queue: its spec as JSON, and when it may run."""

    spec: ExperimentSpec
    seed: int = Field(default=0, ge=0, le=2**53)
    priority: int = Field(default=0, ge=-LARGEST_PRIORITY, le=LARGEST_PRIORITY, description="greater runs earlier")
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = Field(default=None, description="cancelled if it still waits then")
    hold: bool = False
    baselines: bool = Field(default=True, description="run the baselines afterwards where the truth is known")


class SpecCheck(Record):
    """A spec to look at."""

    spec: ExperimentSpec
    seed: int = Field(default=0, ge=0, le=2**53)


class Fault(Answer):
    """One thing that is wrong, and where."""

    pointer: str | None = None
    detail: str


class Validity(Answer):
    """Whether submission would be accepted."""

    valid: bool
    errors: list[Fault]


class Change(Record):
    """What can be changed of an experiment that waits; what is left out stays."""

    priority: int | None = Field(default=None, ge=-LARGEST_PRIORITY, le=LARGEST_PRIORITY)
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    labels: dict[str, str] | None = Field(default=None, max_length=50)


class Because(Record):
    """Why, for the record; `{}` where there is nothing to say."""

    reason: SHORT_TEXT | None = None


class QueueFacts(Answer):
    """An experiment as the queue knows it."""

    id: str
    name: str
    status: str
    instrument: str
    priority: int
    seq: int
    not_before: datetime | None
    not_after: datetime | None
    wanted: str | None = Field(description="what was asked of a running one and is obeyed between frames")
    reason: str | None
    wait_reason: str | None = Field(description="what it waits for, in words")
    claimed_by: str | None
    version: int = Field(description="counts changes; its ETag")
    submitted_by: str | None
    created_at: datetime
    started_at: datetime | None
    parent_id: str | None


class ExperimentLine(Answer):
    """An experiment in a list."""

    id: str
    name: str
    status: str
    reason: str | None
    instrument: str | None
    seed: int
    parent_id: str | None
    created_at: datetime


class Experiments(Answer):
    """A page of experiments, newest first."""

    experiments: list[ExperimentLine]
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null on the last")


class ExperimentDocument(Answer):
    """The whole of one experiment."""

    id: str
    name: str
    status: str
    reason: str | None
    spec: dict[str, Any]
    seed: int
    engine: str
    created_at: datetime
    electrons: float
    dose_max_e_per_a2: float
    instrument_time_s: float
    frames: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    queue: QueueFacts | None
