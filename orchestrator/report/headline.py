"""The first screen: the answer in numbers, and the table of species."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from orchestrator.report.report_data import ReportData, Spending

_PER_CM2 = 1e14  # nm^-2 to cm^-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One headline number as text, what it is, and what to hold it against."""

    number: str
    name: str
    note: str = ""
    is_amiss: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeciesRow:
    """One species; densities as text in 1e12 per cm2 and in per nm2, recall only where the truth is known."""

    name: str
    counts_as_native: bool
    confirmed: int
    expected: str
    density: str
    interval: str
    per_nm2: str
    dispersion: str
    recall: str
    wrong: str


def cards(data: ReportData) -> list[Card]:
    """Recall and false discoveries where known, what was found, what it cost."""
    summary, spending = data.summary, data.spending
    found: list[Card] = []
    if data.evaluation is not None:
        found += _truth_cards(data.evaluation.verdict, summary)
    if "confirmed" in summary:
        undecided = summary.get("undecided", 0)
        found.append(
            Card(
                number=str(summary["confirmed"]),
                name="defects confirmed",
                note=f"{summary.get('beam_made', 0)} beam-made apart, {undecided} undecided",
            )
        )
    for name, line in summary.get("lines", {}).items():
        error = line.get("predicted_error")
        if error is not None:
            found.append(
                Card(
                    number=f"{error:.2f}",
                    name=f"predicted error of {name}",
                    note=f"asked for: {summary.get('target_error', 0):g}",
                )
            )
    return found + _cost_cards(spending)


def _truth_cards(verdict: Mapping[str, Any], summary: Mapping[str, Any]) -> list[Card]:
    found: list[Card] = []
    if verdict.get("recall") is not None:
        right = verdict.get("determinable")
        note = f"of {right} determinable natives, by the hidden truth" if right is not None else "by the hidden truth"
        found.append(Card(number=f"{verdict['recall']:.1%}", name="recall", note=note))
    if verdict.get("false_discovery_rate") is not None:
        limit = summary.get("false_discovery_rate")
        asked = f"asked for: at most {limit:.0%}; " if limit is not None else ""
        note = f"{asked}{verdict.get('wrong', 0)} of {verdict.get('confirmed', 0)} wrong"
        found.append(
            Card(
                number=f"{verdict['false_discovery_rate']:.1%}",
                name="false discovery rate",
                note=note,
                is_amiss=limit is not None and verdict["false_discovery_rate"] > limit,
            )
        )
    return found


def _cost_cards(spending: Spending) -> list[Card]:
    return [
        Card(
            number=scientific(spending.electrons), name="electrons",
            note=_of(spending.electrons, spending.limit_electrons, scientific),
        ),
        Card(
            number=f"{spending.dose_max_e_per_a2:,.0f}", name="e/Å², highest local dose",
            note=_of(spending.dose_max_e_per_a2, spending.limit_dose_e_per_a2, "{:,.0f}".format) + ", in any 1 nm²",
        ),
        Card(
            number=f"{spending.instrument_time_s:.1f} s", name="microscope time",
            note=_of(spending.instrument_time_s, spending.limit_instrument_time_s, lambda value: f"{value:.0f} s"),
        ),
    ]  # fmt: skip


def _of(value: float, limit: float | None, write: Any) -> str:
    return "no limit" if limit is None else f"{value / limit:.0%} of {write(limit)}"


def scientific(value: float) -> str:
    """A number with a power of ten in superscript digits.

    >>> scientific(2.21e9), scientific(0.0)
    ('2.21 × 10⁹', '0')
    """
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa} × 10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def species_rows(data: ReportData) -> list[SpeciesRow]:
    """Every species with its density over the whole clean specimen and a 95 % interval."""
    verdicts = data.evaluation.verdict.get("by_species", {}) if data.evaluation is not None else {}
    return [
        _species_row(name, entry, verdicts.get(name, {})) for name, entry in data.summary.get("species", {}).items()
    ]


def _species_row(name: str, entry: Mapping[str, Any], verdict: Mapping[str, Any]) -> SpeciesRow:
    density, low, high = (
        _density(entry.get(key)) for key in ("whole_per_nm2", "whole_low_per_nm2", "whole_high_per_nm2")
    )
    recall, wrong = verdict.get("recall"), verdict.get("wrong")
    per_nm2 = entry.get("whole_per_nm2")
    return SpeciesRow(
        name=name,
        counts_as_native=bool(entry.get("counts_as_native", True)),
        confirmed=int(entry.get("confirmed", 0)),
        expected=f"{entry.get('expected', 0.0):.1f}",
        density=density,
        interval=f"{low} to {high}",
        per_nm2="–" if per_nm2 is None else f"{per_nm2:.5f}",
        dispersion=f"{entry.get('dispersion', 1.0):.1f}",
        recall="–" if recall is None else f"{recall:.0%} of {verdict.get('determinable', 0)}",
        wrong="–" if wrong is None else str(wrong),
    )


def _density(per_nm2: float | None) -> str:
    if per_nm2 is None or not isfinite(per_nm2):
        return "unknown"
    return f"{per_nm2 * _PER_CM2 / 1e12:.3g}" if per_nm2 * _PER_CM2 >= 1e9 else "0"
