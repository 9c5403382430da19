"""Ours beside the baselines: curves against electrons, a table, and what it comes to in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.report.pictures import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    RULE,
    SKY,
    VERMILLION,
    WIDTH_INCHES,
    Picture,
    as_svg,
    canvas,
)
from orchestrator.report.report_data import Evaluation, ReportData

OPERATOR, THIN = "survey_rank", "thin_raster"
WORDS = {
    OPERATOR: "the operator (survey, then rank)",
    THIN: "the thin raster of everything",
    "full_raster": "the full-dose raster of a part",
    "random": "random fields",
    "oracle": "the oracle, which knows where the defects are",
}
_LOOKS = {
    OPERATOR: (BLUE, "-"),
    THIN: (GREEN, "-"),
    "full_raster": (SKY, "-"),
    "random": (PURPLE, "-"),
    "oracle": (INK, "--"),
}
Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRow:
    """One line of the table; numbers as text."""

    name: str
    words: str
    recall: str
    false_discovery_rate: str
    electrons: str
    instrument_time_s: str
    saving: str
    is_ours: bool = False


def electrons_to_reach(curve: Curve, recall: float) -> float | None:
    """Electrons at which the curve first has this recall, linear between its points; None where it never has.

    >>> electrons_to_reach([{"electrons": 0, "recall": 0.0}, {"electrons": 10, "recall": 0.5}], 0.25)
    5.0
    """
    before = {"electrons": 0.0, "recall": 0.0}
    for point in curve:
        if point.get("recall") is None:
            continue
        if point["recall"] >= recall:
            rise = point["recall"] - before["recall"]
            part = 1.0 if rise <= 0 else (recall - before["recall"]) / rise
            return before["electrons"] + part * (point["electrons"] - before["electrons"])
        before = {"electrons": point["electrons"], "recall": point["recall"]}
    return None


def saving_in_words(ours: Curve, theirs: Curve, their_recall: float | None, our_recall: float | None) -> str:
    """Electrons for the recall that the lower of the two ended with; says so when ours needs more."""
    if our_recall is None or their_recall is None or not ours or not theirs:
        return "no curve to compare"
    common = min(our_recall, their_recall)
    if common <= 0:
        return "one of them found nothing: no saving to state"
    our_electrons, their_electrons = electrons_to_reach(ours, common), electrons_to_reach(theirs, common)
    if not our_electrons or not their_electrons:
        return "its curve is too coarse to compare"
    ratio = our_electrons / their_electrons
    change = f"{1 - ratio:.0%} fewer" if ratio < 1 else f"{ratio - 1:.0%} more"
    return f"{change} electrons than it for recall {common:.2f}"


def baseline_rows(data: ReportData) -> list[BaselineRow]:
    """Ours first, then every baseline."""
    evaluation = data.evaluation
    if evaluation is None:
        return []
    spent = {"electrons": data.spending.electrons, "instrument_time_s": data.spending.instrument_time_s}
    rows = [_row(data.experiment.policy, "this experiment", {**evaluation.verdict, **spent}, "", is_ours=True)]
    our_recall = evaluation.verdict.get("recall")
    for name, verdict in evaluation.baselines.items():
        saving = saving_in_words(evaluation.curve, verdict.get("curve") or (), verdict.get("recall"), our_recall)
        rows.append(_row(name, WORDS.get(name, name), verdict, saving))
    return rows


def _row(name: str, words: str, verdict: Mapping[str, Any], saving: str, *, is_ours: bool = False) -> BaselineRow:
    return BaselineRow(
        name=name,
        words=words,
        recall=_number(verdict.get("recall"), ".3f"),
        false_discovery_rate=_number(verdict.get("false_discovery_rate"), ".3f"),
        electrons=_number(verdict.get("electrons"), ".3g"),
        instrument_time_s=_number(verdict.get("instrument_time_s"), ".1f"),
        saving=saving,
        is_ours=is_ours,
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def honest_sentences(data: ReportData) -> list[str]:
    """What the comparison says, wins and losses alike; one world is one sample."""
    evaluation = data.evaluation
    if evaluation is None or not evaluation.baselines:
        return []
    sentences = [
        sentence
        for name in (OPERATOR, THIN)
        if name in evaluation.baselines and (sentence := _against(evaluation, name)) is not None
    ]
    sentences += _oracle_beaten(evaluation)
    limit = data.summary.get("false_discovery_rate")
    rate = evaluation.verdict.get("false_discovery_rate")
    if limit is not None and rate is not None:
        kept = "kept" if rate <= limit else "not kept"
        sentences.append(
            f"The false discovery rate asked for, {limit:.0%}, was {kept}: {rate:.1%} of the confirmed are wrong."
        )
    sentences.append(
        "One world is one sample: “stempilot bench” repeats this over seeds and clusterings and shows every seed."
    )
    return sentences


def _oracle_beaten(evaluation: Evaluation) -> list[str]:
    oracle, ours = evaluation.baselines.get("oracle", {}).get("recall"), evaluation.verdict.get("recall")
    if oracle is None or ours is None or ours <= oracle:
        return []
    return [
        (
            "The oracle, which knows the best places, recalls less than this run "
            f"({oracle:.3f}): more than the choice of "
            "places decides here, such as focus, dose or second looks. Do not read the ratios "
            "as gains from choosing places."
        )
    ]


def _against(evaluation: Evaluation, name: str) -> str | None:
    ours, theirs = evaluation.verdict.get("recall"), evaluation.baselines[name].get("recall")
    if ours is None or theirs is None:
        return None
    who = WORDS[name]
    if ours == theirs:
        return f"No better and no worse than {who}: both recall {ours:.3f}."
    verb = "More found than by" if ours > theirs else "Fewer found than by"
    ratio = f", {ours / theirs:.2f} times" if theirs > 0 else ""
    lost = "" if ours > theirs else " On this world our policy lost."
    return f"{verb} {who}: recall {ours:.3f} against {theirs:.3f}{ratio}.{lost}"


def _has_recall(curve: Curve) -> bool:
    return sum(point.get("recall") is not None for point in curve) > 1


def curves(data: ReportData) -> Picture | None:
    """Recall and false discovery rate against electrons, ours and the baselines; None without any curve."""
    evaluation = data.evaluation
    if evaluation is None:
        return None
    drawn: list[tuple[str, Curve, str, str]] = [
        (name, verdict.get("curve") or (), *_LOOKS.get(name, (MUTED, ":")))
        for name, verdict in evaluation.baselines.items()
    ]
    drawn = [entry for entry in drawn if _has_recall(entry[1])]
    if _has_recall(evaluation.curve):
        drawn.append((data.experiment.policy + " (this run)", evaluation.curve, VERMILLION, "-"))
    if not drawn:
        return None
    with canvas(WIDTH_INCHES, 6.2) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        for name, curve, colour, line in drawn:
            ours = name.endswith("(this run)")
            electrons = np.array([point["electrons"] for point in curve]) / 1e9
            for axes, key in ((upper, "recall"), (lower, "false_discovery_rate")):
                values = [np.nan if point.get(key) is None else point[key] for point in curve]
                axes.plot(
                    electrons,
                    values,
                    line,
                    color=colour,
                    linewidth=2.6 if ours else 1.3,
                    label=name,
                    zorder=5 if ours else 2,
                )
        upper.set_ylabel("recall of determinable natives")
        upper.set_ylim(bottom=0)
        lower.set_ylabel("false discovery rate")
        lower.set_xlabel("electrons on the specimen, 10⁹")
        lower.set_ylim(0, max(0.2, *lower.get_ylim()))
        limit = data.summary.get("false_discovery_rate")
        if limit is not None:
            lower.axhline(limit, color=INK, linewidth=0.8, linestyle=":")
            lower.annotate(
                f"asked for: {limit:.0%}",
                (0.005, limit),
                xycoords=("axes fraction", "data"),
                ha="left",
                va="bottom",
                fontsize=8,
            )
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
        markup = as_svg(
            figure, "curves", "Recall and false discovery rate against electrons for this run and the baselines."
        )
    caption = (
        "Judged against the hidden truth while the run went on; every baseline ran on a fresh "
        "world of the same seed with "
        "the same budget of electrons and microscope time. Above: confirmed natives over all "
        "determinable natives of the "
        "whole area. Below: wrong ones among the confirmed."
    )
    return Picture(markup=markup, caption=caption)


def score_curve(data: ReportData) -> Picture | None:
    """The objective's own score against electrons, decision by decision."""
    points = [
        (d.electrons, d.score, str(d.point.get("purpose", "frame")))
        for d in data.decisions
        if d.score is not None and d.electrons is not None
    ]
    if len(points) < 2:
        return None
    looks = {"survey": (MUTED, "s"), "focus": (SKY, "v"), "field": (VERMILLION, "o"), "revisit": (GREEN, "^")}
    with canvas(WIDTH_INCHES, 3.0) as figure:
        axes = figure.add_subplot()
        electrons = np.array([point[0] for point in points]) / 1e9
        scores = np.array([point[1] for point in points])
        axes.plot(electrons, scores, color=RULE, linewidth=1.0, zorder=1)
        for purpose in dict.fromkeys(point[2] for point in points):
            mine = np.array([point[2] == purpose for point in points])
            colour, marker = looks.get(purpose, (BLUE, "o"))
            axes.plot(
                electrons[mine], scores[mine], marker, color=colour, markersize=4, linestyle="none", label=purpose
            )
        axes.set_xlabel("electrons on the specimen, 10⁹")
        axes.set_ylabel("natives confirmed" if "species" in data.summary else "score")
        if "species" not in data.summary:
            axes.set_ylim(bottom=0)
        figure.legend(loc="outside right upper")
        markup = as_svg(figure, "score", "Score against electrons, one point a decision.")
    what = (
        "expected number of natives confirmed so far"
        if "species" in data.summary
        else "largest predicted relative error of a line (smaller is better)"
    )
    return Picture(markup=markup, caption=f"The score the experiment itself could see, after every decision: {what}.")
