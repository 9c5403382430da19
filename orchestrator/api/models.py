"""What goes in and what comes out, as the published document says it; unknown fields are refused on the way in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from instruments.models import Record
from orchestrator.api.access import Scope
from orchestrator.api.examples import SUBMISSION
from orchestrator.queue.submission import MAX_PRIORITY
from orchestrator.spec import ExperimentSpec

ID_PATTERN: Final = "^[0-9a-f]{8,32}$"
FRAME_PATTERN: Final = "^[0-9a-f]{32}$"
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}$"
_FIRST_MOMENT, _LAST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _plausible(value: datetime) -> datetime:
    """The moment; one of another century is a mistake, and beyond year 9999 some time zones do not reach."""
    if not _FIRST_MOMENT <= value < _LAST_MOMENT:
        raise ValueError(f"{value.isoformat()} is not between the years 2000 and 2200")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_plausible)]
SHORT_TEXT = Annotated[str, StringConstraints(max_length=500)]


class Answer(BaseModel):
    """What comes out; a later version may add to it."""

    model_config = ConfigDict(extra="allow")


class Health(Answer):
    """The service answers."""

    status: str


class Readiness(Answer):
    """Whether experiments can be taken, and each check in words; without names for those who show no token."""

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


class Schedule(Record):
    """When and how a submitted experiment may run."""

    seed: int = Field(default=0, ge=0, le=2**53)
    priority: int = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="greater runs earlier")
    not_before: Moment | None = None
    not_after: Moment | None = Field(default=None, description="cancelled if it still waits then")
    hold: bool = False
    baselines: bool = Field(default=True, description="run the baselines afterwards where the truth is known")
    report: bool = Field(default=True, description="write the report afterwards; it can also be asked for later")

    @field_validator("not_after")
    @classmethod
    def _window(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        not_before: datetime | None = info.data.get("not_before")
        if value is not None and not_before is not None and value <= not_before:
            raise ValueError(f"not_after {value} is not later than not_before {not_before}; swap them")
        return value


class Submission(Schedule):
    """An experiment for the queue: its spec as JSON, and when it may run."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUBMISSION]})
    spec: ExperimentSpec


class SpecCheck(Schedule):
    """A submission to look at; its spec may be anything."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUBMISSION]})
    spec: dict[str, Any]


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

    priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    not_before: Moment | None = None
    not_after: Moment | None = None
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
    note: str | None = Field(default=None, description="of one that stands as running and whose process is gone")
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


class Decisions(Answer):
    """A page of decisions, in order."""

    decisions: list[dict[str, Any]]
    next_after: int | None = Field(description="give it as `after` for the next page; null on the last")


class FrameFacts(Answer):
    """A stored frame without its image."""

    id: str
    experiment_id: str
    decision_id: str
    ordinal: int
    path: str = Field(description="relative to the data folder")
    sha256: str
    size_bytes: int
    acquired_at: datetime
    purpose: str
    mode: str
    dose_e_per_a2: float
    electrons: float
    pixel_size_nm: float
    field_of_view_nm: float


class Frames(Answer):
    """A page of frames, in order."""

    frames: list[FrameFacts]
    next_after: int | None = Field(description="give it as `after` for the next page; null on the last")


class ReportMade(Answer):
    """A report that was written."""

    location: str
    size_bytes: int


class EventLine(Answer):
    """One line of the journal."""

    experiment_id: str
    seq: int
    kind: str
    recorded_at: datetime
    payload: dict[str, Any]


class Events(Answer):
    """A page of the journal, in order."""

    events: list[EventLine]
    next_after: int = Field(description="give it as `after` for what comes later")
    status: str = Field(description="of the experiment, read before its events")
    is_final: bool = Field(description="nothing more will come after the last page")


class Queue(Answer):
    """A page of the queue, in the order of execution."""

    entries: list[QueueFacts]
    next_cursor: str | None


class InstrumentState(Answer):
    """An instrument as it is now; `problem` says in words why it cannot be reached."""

    name: str
    reachable: bool
    problem: str | None
    beam_blanked: bool | None = Field(description="null: not known; then assume that the beam is on")
    exposing: str | None = Field(description="action id of the exposure that runs")
    locked: str | None = Field(description="the emergency stop that a person has not cleared yet")
    queue_locked: str | None = Field(
        description="why the queue starts nothing on it: the same stop, as the queue has it"
    )


class InstrumentStates(Answer):
    """Every configured instrument."""

    instruments: list[InstrumentState]


class InstrumentFacts(Answer):
    """A configured instrument: its adapter, what it can do, what the facility allows."""

    name: str
    adapter: str
    safety: dict[str, Any]
    capabilities: dict[str, Any] | None
    problem: str | None


class Stopped(Answer):
    """What each instrument answered to an emergency stop."""

    instruments: dict[str, dict[str, Any]]


class NewToken(Record):
    """A token to be made; it always ends."""

    name: str = Field(pattern=NAME_PATTERN, description="whose it is: the record says this name")
    scopes: list[Scope] = Field(min_length=1, max_length=5)
    expires_at: Moment


class TokenFacts(Answer):
    """A token, without what opens anything."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


class TokenMade(TokenFacts):
    """A new token; `secret` is shown this once (null where the answer is repeated)."""

    secret: str | None


class TokenList(Answer):
    """Every token ever made."""

    tokens: list[TokenFacts]


class FileFacts(Answer):
    """An uploaded file; a spec names it by `reference`."""

    sha256: str
    name: str
    size_bytes: int
    reference: str
