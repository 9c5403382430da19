"""The page: every section in order, each left out where the experiment has nothing for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.report import (
    accounts,
    close_ups,
    comparison,
    densities,
    focus_picture,
    frame_health,
    frame_pictures,
    headline,
    intensity_histograms,
    overview,
)
from orchestrator.report.census_view import CensusView
from orchestrator.report.limits import NEEDED_DETECTABILITY, limits, pair_rows
from orchestrator.report.measured import measured_views
from orchestrator.report.report_data import ReportData, ReportDecision, ReportFrame
from orchestrator.report.wording import label, numbers, plain_number, unit_after, with_std, words_of

_HERE = Path(__file__).parent


def render_report(data: ReportData) -> str:
    """One self-contained HTML page; the same data give the same bytes."""
    data = replace(data, load_frame=lru_cache(24)(data.load_frame), load_features=lru_cache(64)(data.load_features))
    view = CensusView.of(data)
    chosen = frame_pictures.chosen_frames(data.frames, view)
    same = _constant_keys(data.decisions)
    verdict = data.evaluation.verdict if data.evaluation is not None else {}
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            css=Markup((_HERE / "templates" / "report.css").read_text(encoding="utf-8")),
            cards=headline.cards(data),
            species=headline.species_rows(data),
            overview=overview.overview(data, view),
            limits=limits(data, view),
            focus=focus_picture.focus_picture(data),
            best_frames=[frame_pictures.frame_picture(data, frame, view) for frame in chosen],
            score=comparison.score_curve(data),
            curves=comparison.curves(data),
            baselines=comparison.baseline_rows(data),
            sentences=comparison.honest_sentences(data),
            held_out=_held_out(data),
            ledger=accounts.ledger_picture(data),
            shares=accounts.share_rows(data.ledger),
            budgets=accounts.budget_rows(data),
            against_truth=accounts.ledger_against_truth(verdict),
            read_back=accounts.read_back_rows([(frame, data.load_frame(frame.id)) for frame in _sampled(data, chosen)]),
            constants=words_of({key: data.decisions[0].point[key] for key in same}),
            decisions=[_decision(decision, same) for decision in data.decisions],
            measured=measured_views(data.measured),
            **_census_sections(data, view),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["moment"] = _moment
    return environment


def _moment(iso_text: str) -> str:
    return iso_text.replace("T", " ").replace("+00:00", " UTC")


def _census_sections(data: ReportData, view: CensusView | None) -> dict[str, Any]:
    if view is None:
        return {
            "three_colours": None,
            "close_ups": None,
            "births": None,
            "posteriors": densities.element_maps(data),
            "histograms": [],
            "detectability": [],
            "pairs": [],
            "health": None,
            "needed": NEEDED_DETECTABILITY,
        }
    columns = intensity_histograms.column_of_species(data, view)
    pools = intensity_histograms.pools(data, view)
    density = densities.density_maps(data, view)
    return {
        "three_colours": overview.three_colours(data, view),
        "close_ups": close_ups.close_ups(data, view),
        "births": close_ups.births(data, view),
        "posteriors": [density] if density is not None else [],
        "histograms": [intensity_histograms.histograms(data, view, pool) for pool in pools],
        "detectability": [
            row for pool in pools for row in intensity_histograms.detectability_rows(view, columns, pool)
        ],
        "pairs": pair_rows(data, view),
        "health": frame_health.frame_health(data, view),
        "needed": NEEDED_DETECTABILITY,
    }


def _sampled(data: ReportData, chosen: list[ReportFrame]) -> list[ReportFrame]:
    """The first survey frame and two of the frames shown."""
    survey = [frame for frame in data.frames if frame.purpose == "survey"][:1]
    return survey + chosen[:1] + chosen[-1:] if len(chosen) > 1 else survey + chosen


def _held_out(data: ReportData) -> list[tuple[str, list[tuple[str, str]]]]:
    """For element maps: who, and for each line the share of the held-out deviance that its map explains."""
    if data.evaluation is None or "lines" not in data.summary:
        return []
    runs = {data.experiment.policy + " (this run)": data.evaluation.verdict, **data.evaluation.baselines}
    return [
        (name, [(line, _explained(verdict, line)) for line in data.summary["lines"]]) for name, verdict in runs.items()
    ]


def _explained(verdict: Mapping[str, Any], line: str) -> str:
    by_line = verdict.get("deviance_explained", {}).get(line)
    value = by_line if by_line is not None else (verdict.get(line) or {}).get("explained")
    return "–" if value is None else f"{value:.3f}"


def _constant_keys(decisions: Sequence[ReportDecision]) -> list[str]:
    """Keys of a point that have one value in all decisions (none where there are fewer than two)."""
    if len(decisions) < 2:
        return []
    first = decisions[0].point
    return [key for key in first if all(key in other.point and other.point[key] == first[key] for other in decisions)]


def _decision(decision: ReportDecision, same: Sequence[str]) -> dict[str, Any]:
    rest = {key: value for key, value in decision.reason.items() if key != "why"}
    return {
        "row": decision,
        "point": words_of({key: value for key, value in decision.point.items() if key not in same}),
        "why": str(decision.reason.get("why", "no reason given")),
        "numbers": numbers(rest),
        "prediction": "; ".join(f"{name} {with_std(*pair)}" for name, pair in decision.prediction.items()),
        "cost": "; ".join(
            f"{label(name)} {plain_number(value)}{unit_after(name)}" for name, value in decision.cost.items() if value
        ),
    }
