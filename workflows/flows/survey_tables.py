"""What became of the squares of a survey, from the catalogue alone: for its decisions, its page and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Final

from orchestrator.catalogue import Catalogue, DecisionRow, ExperimentRow
from orchestrator.survey_spec import OVERVIEW_NAME, SQUARE_LABEL, SurveySpec
from workflows.documents import spent_by

SKIPPED: Final = "survey_skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareRow:
    """One square (or the overview, without a place): its experiment, how that stands, what it found and cost."""

    name: str
    x_nm: float | None
    y_nm: float | None
    side_nm: float | None
    experiment_id: str | None
    status: str
    reason: str | None
    clean_fraction: float | None
    score: float | None
    statement: str
    frames: int
    electrons: float
    instrument_time_s: float
    dose_max_e_per_a2: float
    most_electrons: float
    most_instrument_time_s: float

    def spent(self, name: str) -> float:
        """Electrons or instrument_time_s it has cost."""
        return float(getattr(self, name))

    def most(self, name: str) -> float:
        """The most it may still come to."""
        return float(getattr(self, f"most_{name}"))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: value if value != float("inf") else None for name, value in asdict(self).items()}


def children_by_square(catalogue: Catalogue, survey_id: str) -> dict[str, ExperimentRow]:
    """The survey's experiments by the name of their square; the latest of each."""
    return {row.spec["labels"][SQUARE_LABEL]: row for row in catalogue.children(survey_id) if _is_of_survey(row)}


def all_rows(catalogue: Catalogue, survey_id: str) -> list[SquareRow]:
    """Every experiment ever made for this survey, by whatever process, with what it has cost and may yet cost."""
    return [
        _row(catalogue, row.spec["labels"][SQUARE_LABEL], (None, None, None), row, None)
        for row in catalogue.children(survey_id)
        if _is_of_survey(row)
    ]


def _is_of_survey(row: ExperimentRow) -> bool:
    return SQUARE_LABEL in row.spec.get("labels", {})


def square_rows(catalogue: Catalogue, survey_id: str, plan: SurveySpec) -> list[SquareRow]:
    """The overview first (where there is one), then every square as listed."""
    children = children_by_square(catalogue, survey_id)
    overview = children.get(OVERVIEW_NAME)
    known = overlooked(catalogue, overview, plan) if overview is not None else {}
    rows = [_row(catalogue, OVERVIEW_NAME, (None, None, None), overview, None)] if overview is not None else []
    why = {event.payload["square"]: event.payload["reason"] for event in catalogue.events(survey_id, kinds=(SKIPPED,))}
    for square in plan.places:
        place = (square.x_nm, square.y_nm, square.side_nm)
        clean = known[square.name].clean_fraction if square.name in known else None
        row = _row(catalogue, square.name, place, children.get(square.name), clean)
        left_out = row.experiment_id is None and square.name in why
        rows.append(replace(row, status="left out", reason=why[square.name]) if left_out else row)
    return rows


def _row(
    catalogue: Catalogue,
    name: str,
    place: tuple[float | None, float | None, float | None],
    child: ExperimentRow | None,
    clean: float | None,
) -> SquareRow:
    spent: Mapping[str, Any] = {}
    score: dict[str, Any] = {}
    budget: dict[str, Any] = {}
    if child is not None:
        budget = child.spec["budget"]
        for event in catalogue.events(child.id, kinds=("closed",)):
            spent = event.payload
        spent = spent_by(catalogue, child, spent)
        for event in catalogue.events(child.id, kinds=("observed",)):
            score = event.payload["score"]
    return SquareRow(
        name=name,
        x_nm=place[0],
        y_nm=place[1],
        side_nm=place[2],
        experiment_id=child.id if child is not None else None,
        status=child.status if child is not None else "not begun",
        reason=child.reason if child is not None else None,
        clean_fraction=clean,
        score=score.get("value"),
        statement=str(score.get("statement", "")),
        frames=int(spent.get("frames", 0)),
        electrons=float(spent.get("electrons", 0.0)),
        instrument_time_s=float(spent.get("instrument_time_s", 0.0)),
        dose_max_e_per_a2=float(spent.get("dose_max_e_per_a2", 0.0)),
        most_electrons=budget.get("electrons") or float("inf"),
        most_instrument_time_s=budget.get("instrument_time_s") or float("inf"),
    )


@dataclass(frozen=True, slots=True)
class Overlooked:
    """What the overview says of one square: how clean it is, from which frame; or why it says nothing."""

    clean_fraction: float | None
    frame_id: str | None
    why_not: str | None = None


def overlooked(catalogue: Catalogue, overview: ExperimentRow, plan: SurveySpec) -> dict[str, Overlooked]:
    """Square name -> what the overview says of it. The n-th decision of the overview is that of the n-th square."""
    decisions = {entry.decision.seq: entry for entry in catalogue.decisions(overview.id)}
    events = catalogue.events(overview.id, kinds=("observed",))
    features = {event.payload["decision_id"]: event.payload["features"] for event in events}
    return {
        square.name: _overlooked(decisions.get(seq), features, overview)
        for seq, square in enumerate(plan.places, start=1)
    }


def _overlooked(decision: DecisionRow | None, features: Mapping[str, Any], overview: ExperimentRow) -> Overlooked:
    if decision is None:
        ending = f", {overview.reason}" if overview.reason else ""
        return Overlooked(None, None, f"the overview has no frame of it ({overview.status}{ending})")
    if decision.id not in features:
        return Overlooked(None, decision.frame_id, f"its frame is {decision.status}: {decision.status_reason or '-'}")
    told: Mapping[str, Any] = features[decision.id]
    value = told.get("clean_fraction", {}).get("value")
    if isinstance(value, int | float) and isfinite(value):
        return Overlooked(float(value), decision.frame_id)
    reasons = [feature["reason"] for feature in told.values() if feature.get("reason")]
    return Overlooked(None, decision.frame_id, f"its frame tells nothing: {'; '.join(reasons) or 'no clean fraction'}")
