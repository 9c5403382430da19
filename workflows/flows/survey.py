"""The flow `survey`: one experiment for every square of a grid, overnight, under one budget and one end.

`Survey.drive` is a plain function over a `Runner`, which runs a square here or has the queue run it. Everything it
decides with is in the catalogue: the survey is an experiment row, its squares are that row's children. So it goes on
after any crash where it stood, and no finished square is repeated. Neighbours: `survey_runners`, `survey_tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from instruments import InstrumentError
from orchestrator.catalogue import Catalogue, ExperimentRow
from orchestrator.errors import DataFolderBusy, Refused
from orchestrator.loop import Ending
from orchestrator.spec import Budget, ExperimentSpec
from orchestrator.survey_spec import OVERVIEW_NAME, Square, SurveySpec
from workflows.flows.survey_tables import (
    SKIPPED,
    SquareRow,
    all_rows,
    children_by_square,
    overlooked,
    square_rows,
)
from workflows.roles import RoleLock, holder

ENDED: Final = ("completed", "failed", "cancelled", "refused")
NEEDS_A_PERSON: Final = ("interrupted", "paused")
OPTION: Final = "survey"
STARTED: Final = "survey_started"
RANKED: Final = "survey_ranked"
NOT_MEASURED: Final = "not measured"


class Runner(Protocol):
    """Who runs an experiment: this process, or the queue and its workers."""

    def submit(self, spec: ExperimentSpec, parent_id: str, until: datetime | None) -> str:
        """A new child of the survey, durably there; its id."""
        ...

    def attend(self, experiment_ids: list[str]) -> None:
        """Return when at least one more of these has ended; here they are run one after another meanwhile."""
        ...

    def wanted(self) -> str | None:
        """The status a person wants the survey to end with, or None."""
        ...

    @property
    def takes_many(self) -> bool:
        """Whether more than one may be submitted before the first has ended."""
        ...


@dataclass
class Survey:
    """One survey on its way."""

    catalogue: Catalogue
    survey_id: str
    plan: SurveySpec
    runner: Runner
    say: Callable[[str], None]
    _told: set[str] = field(default_factory=set[str])
    _aside: set[str] = field(default_factory=set[str])  # what a person has to see to; the others go on

    @classmethod
    def begin(cls, catalogue: Catalogue, plan: SurveySpec, runner: Runner, say: Callable[[str], None]) -> Survey:
        """A new survey: its row, and when it has to end."""
        survey_id = catalogue.create_experiment(
            name=plan.name,
            spec=plan.template.model_dump(mode="json"),
            seed=plan.seed,
            engine="survey",
            options={OPTION: plan.model_dump(mode="json")},
        )
        survey = cls(catalogue, survey_id, plan, runner, say)
        until = survey.until
        catalogue.append(survey_id, STARTED, {"until": until.isoformat() if until is not None else None})
        return survey

    @classmethod
    def again(cls, catalogue: Catalogue, survey_id: str, runner: Runner, say: Callable[[str], None]) -> Survey:
        """One that was begun before. Raises NotFound, Refused for an experiment that is no survey or has ended."""
        row = catalogue.experiment(survey_id)
        if OPTION not in row.options:
            raise Refused(f"experiment {row.id} is no survey; `stempilot resume` goes on with experiments")
        if row.status == "completed":
            raise Refused(f"survey {row.id} is completed; there is nothing to go on with")
        return cls(catalogue, row.id, SurveySpec.checked(dict(row.options[OPTION])), runner, say)

    def drive(self) -> Ending:
        """Run it to its end; the ending is in the catalogue when this returns. One failed square ends nothing else.

        Raises DataFolderBusy while another process drives it: two would run the same square twice.
        """
        with self._alone():
            self.catalogue.set_status(self.survey_id, "running", None)
            try:
                ending = self._look_over() or self._squares(self._order())
            except InstrumentError as error:  # no square can be begun: the survey waits for a person
                self.catalogue.set_status(self.survey_id, "interrupted", str(error))
                raise
            spent = _spent_by(all_rows(self.catalogue, self.survey_id))
            squares = [row.to_dict() for row in self.rows()]
            closed = {**spent, "status": ending.status, "reason": ending.reason, "summary": {"squares": squares}}
            self.catalogue.append(self.survey_id, "closed", closed)
            self.catalogue.set_status(self.survey_id, ending.status, ending.reason)
        return ending

    def _alone(self) -> RoleLock:
        """The right to drive this survey; it ends with this process."""
        folder, role = self.catalogue.data_folder, f"survey-{self.survey_id}"
        try:
            return RoleLock(folder, role)
        except DataFolderBusy as error:
            raise DataFolderBusy(
                f"survey {self.survey_id} is driven by process {holder(folder, role) or '(unknown)'} already; "
                f"`stempilot show {self.survey_id}` tells how far it is, Ctrl-C there ends it so that it can go on here"
            ) from error

    @property
    def until(self) -> datetime | None:
        """The moment it ends at, fixed when it was begun: the earlier of the two that a plan may name."""
        begun = self.catalogue.experiment(self.survey_id).created_at
        ends = [self.plan.until, None if self.plan.for_s is None else begun + timedelta(seconds=self.plan.for_s)]
        return min((end for end in ends if end is not None), default=None)

    def rows(self) -> list[SquareRow]:
        """What became of every square so far."""
        return square_rows(self.catalogue, self.survey_id, self.plan)

    # --- the overview

    def _look_over(self) -> Ending | None:
        """Take the overview, if one is asked for; why the survey ends with it, or None."""
        if self.plan.overview is None:
            return None
        child = self._children().get(OVERVIEW_NAME)
        if child is None:
            if (over := self._over()) is not None:
                return Ending("failed", f"{over}; nothing was exposed")
            self.say(f"overview: one frame of each of {len(self.plan.places)} squares")
            self.runner.submit(self._timed(self.plan.overview_experiment()), self.survey_id, self.until)
        while (child := self._children()[OVERVIEW_NAME]).status not in ENDED:
            if (ending := self._stopped()) is not None:
                return ending
            if child.id in self._aside:
                return Ending("interrupted", f"the overview is {child.status}: {child.reason}")
            self.runner.attend([child.id])
            if self._children()[OVERVIEW_NAME].status in NEEDS_A_PERSON:
                self._aside.add(child.id)
        if child.status != "completed":
            return Ending(
                "failed", f"the overview {child.status}: {child.reason}; nothing says which squares are clean"
            )
        return None

    def _order(self) -> list[Square]:
        """The squares to look at, in their order; what the overview says of each is written down once."""
        if self.plan.overview is None:
            return list(self.plan.places)
        seen = overlooked(self.catalogue, self._children()[OVERVIEW_NAME], self.plan)
        clean = {name: one.clean_fraction for name, one in seen.items() if one.clean_fraction is not None}
        unknown = {name: f"{NOT_MEASURED}: {one.why_not}" for name, one in seen.items() if one.clean_fraction is None}
        kept = [square for square in self.plan.places if clean.get(square.name, 0.0) >= self.plan.least_clean_fraction]
        if self.plan.order == "cleanest":
            kept.sort(key=lambda square: -clean.get(square.name, 0.0))  # those not measured last
        if not any(True for _ in self.catalogue.events(self.survey_id, kinds=(RANKED,))):
            order = [square.name for square in kept]
            self.catalogue.append(
                self.survey_id, RANKED, {"clean_fraction": clean, "not_measured": unknown, "order": order}
            )
            words = [f"{name} ({f'{clean[name]:.0%} clean' if name in clean else unknown[name]})" for name in order]
            self.say("order: " + ", ".join(words))
        least = f"below the {self.plan.least_clean_fraction:.0%} asked for"
        for square in self.plan.places:
            if square not in kept:
                self._skip(square, unknown.get(square.name) or f"{clean[square.name]:.0%} clean, {least}")
        return kept

    # --- the squares

    def _squares(self, order: list[Square]) -> Ending:
        while True:
            if (ending := self._stopped()) is not None:
                return ending
            stop = self._submit(order)
            children = self._children()
            waiting = [row.id for row in children.values() if row.status not in ENDED and row.id not in self._aside]
            if not waiting:
                return self._ending(order, stop)
            self.runner.attend(waiting)
            for row in self._children().values():
                if row.status in NEEDS_A_PERSON:
                    self._aside.add(row.id)
                if row.status in ENDED + NEEDS_A_PERSON:
                    self._tell(f"{row.name}: {row.status}, {row.reason}")

    def _submit(self, order: list[Square]) -> str | None:
        """Begin what may begin now; why the next one may not, or None."""
        children = self._children()
        is_busy = any(row.status not in ENDED and row.id not in self._aside for row in children.values())
        for square in order:
            if square.name in children:
                continue
            if (over := self._over()) is not None:
                return over
            budget = self._budget(square)
            if budget is None:
                return None if is_busy else "the total budget cannot pay another square"
            if is_busy and not self.runner.takes_many:
                return None
            self.runner.submit(self._timed(self.plan.square_experiment(square, budget)), self.survey_id, self.until)
            is_busy = True
        return None

    def _budget(self, square: Square) -> Budget | None:
        """What this square may spend: its own budget, or what is left of all; None below the least that is worth it."""
        del square
        template, own, left = self.plan.template.budget, self.plan.square_budget, self._left()
        limits: dict[str, Any] = {"frames": template.frames}
        for name in ("electrons", "instrument_time_s"):
            wished = getattr(own, name) or getattr(template, name)
            remains = left[name]
            if remains is None:
                limits[name] = wished
                continue
            if remains < self.plan.least_budget_fraction * (wished or 0.0) or remains <= 0:
                return None
            limits[name] = remains if wished is None else min(wished, remains)
        return Budget(**limits)

    def _left(self) -> dict[str, float | None]:
        """What is left of the total when all that is on its way spends all it may."""
        left: dict[str, float | None] = {}
        made = all_rows(self.catalogue, self.survey_id)
        for name in ("electrons", "instrument_time_s"):
            total = getattr(self.plan.total_budget, name)
            taken = sum(row.spent(name) if row.status in ENDED else row.most(name) for row in made)
            left[name] = None if total is None else total - taken
        return left

    def _timed(self, spec: ExperimentSpec) -> ExperimentSpec:
        """It ends with the survey, whenever and by whomever it is gone on with."""
        ends = [end for end in (self.until, spec.stop.until) if end is not None]
        return spec.model_copy(update={"stop": spec.stop.model_copy(update={"until": min(ends, default=None)})})

    def _ending(self, order: list[Square], stop: str | None) -> Ending:
        children = self._children()
        missing = [square for square in order if square.name not in children]
        for square in missing:
            self._skip(square, stop or "not begun")
        statuses = [children[square.name].status for square in order if square.name in children]
        done = statuses.count("completed")
        words = f"{done} of {len(self.plan.places)} squares completed"
        others = [f"{statuses.count(name)} {name}" for name in ENDED[1:] + NEEDS_A_PERSON if name in statuses]
        if missing:
            others.append(f"{len(missing)} not begun: {stop}")
        others += self._left_out(order)
        reason = "; ".join([words, *others])
        if any(name in statuses for name in NEEDS_A_PERSON):
            return Ending("interrupted", f"{reason}; see to these, then `stempilot survey --resume {self.survey_id}`")
        return Ending("completed" if done or not order else "failed", reason)

    def _left_out(self, order: list[Square]) -> list[str]:
        """How many squares the overview kept out, by reason."""
        why = {row.name: row.reason or "" for row in self.rows() if row.status == "left out"}
        gone = [why.get(square.name, "") for square in self.plan.places if square not in order]
        unknown = sum(reason.startswith(NOT_MEASURED) for reason in gone)
        words = {"left out as not clean enough": len(gone) - unknown, "left out as not measured": unknown}
        return [f"{count} {what}" for what, count in words.items() if count]

    # --- what is known

    def _stopped(self) -> Ending | None:
        wanted = self.runner.wanted()
        if wanted is None:
            return None
        return Ending(wanted, f"{wanted} by a person; `stempilot survey --resume {self.survey_id}` goes on")

    def _children(self) -> dict[str, ExperimentRow]:
        return children_by_square(self.catalogue, self.survey_id)

    def _over(self) -> str | None:
        """That the end has come, in words, or None."""
        if self.until is None or self.catalogue.now() < self.until:
            return None
        return f"the end at {self.until.isoformat(timespec='seconds')} has come"

    def _skip(self, square: Square, why: str) -> None:
        known = {event.payload["square"] for event in self.catalogue.events(self.survey_id, kinds=(SKIPPED,))}
        if square.name not in known:
            self.catalogue.append(self.survey_id, SKIPPED, {"square": square.name, "reason": why})
            self.say(f"{square.name}: left out, {why}")

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.say(line)


def _spent_by(rows: list[SquareRow]) -> Mapping[str, float]:
    return {
        "electrons": sum(row.spent("electrons") for row in rows),
        "instrument_time_s": sum(row.spent("instrument_time_s") for row in rows),
        "dose_max_e_per_a2": max((row.dose_max_e_per_a2 for row in rows), default=0.0),
    }
