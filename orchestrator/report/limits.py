"""What this experiment cannot determine, and why: from the projection, the forward model, the calls and the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np

from orchestrator.report.census_view import CensusView
from orchestrator.report.report_data import ReportData, ReportFrame

NEEDED_DETECTABILITY = 5.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One thing that is not known, with its reason."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """How well a mode tells two contents of a column apart at the dose given, and what dose it would take."""

    mode: str
    pair: str
    detectability: float
    needed_e_per_a2: float
    dose_e_per_a2: float

    @property
    def is_enough(self) -> bool:
        """Whether the dose given suffices."""
        return self.detectability >= NEEDED_DETECTABILITY


def pair_rows(data: ReportData, view: CensusView) -> list[PairRow]:
    """For every mode, species against host and against each other, from the field of highest dose in that mode.

    d' of the ideal observer follows from the expected log-likelihood ratio: d'^2 = 2 E[llr]; it grows with the square
    root of the dose.
    """
    rows: list[PairRow] = []
    for frame in _one_of_each_mode(data.frames):
        features = data.load_features(frame.action_id)
        if features is None or "pair_information" not in features.arrays:
            continue
        arrays = features.arrays
        for number, name in enumerate(view.species):
            rows += _row(frame, f"{name} from the perfect column", float(arrays["expected_information"][number]))
            for other in range(number + 1, len(view.species)):
                both = (arrays["pair_information"][number, other], arrays["pair_information"][other, number])
                rows += _row(frame, f"{name} from {view.species[other]}", float(np.mean(both)))
    return rows


def _one_of_each_mode(frames: tuple[ReportFrame, ...]) -> list[ReportFrame]:
    best: dict[str, ReportFrame] = {}
    for frame in frames:
        if frame.purpose == "field" and frame.dose_e_per_a2 > (
            best[frame.mode].dose_e_per_a2 if frame.mode in best else 0.0
        ):
            best[frame.mode] = frame
    return list(best.values())


def _row(frame: ReportFrame, pair: str, information: float) -> list[PairRow]:
    if not isfinite(information) or information <= 0:
        return []
    detectability = sqrt(2 * information)
    needed = frame.dose_e_per_a2 * (NEEDED_DETECTABILITY / detectability) ** 2
    return [
        PairRow(
            mode=frame.mode,
            pair=pair,
            detectability=detectability,
            needed_e_per_a2=needed,
            dose_e_per_a2=frame.dose_e_per_a2,
        )
    ]


def limits(data: ReportData, view: CensusView | None) -> list[Limit]:
    """Everything the reader should not expect from this experiment."""
    if view is None:
        return _of_an_element_map(data)
    found = _projection(data)
    found += _pairs(data, view)
    summary = data.summary
    not_counted = [name for name, counts in zip(view.species, view.counts_as_native, strict=True) if not counts]
    if not_counted:
        found.append(
            Limit(
                what=f"A recall for {', '.join(not_counted)}",
                why="the spec does not count it as determinable at the dose given; confirmed ones "
                "are listed, missing ones say nothing",
            )
        )
    undetermined = int(view.undetermined.sum())
    if undetermined:
        likely = Counter(
            ("host", "beam-made", *view.species)[int(best)] for best in view.posterior[view.undetermined].argmax(axis=1)
        )
        words = ", ".join(f"{count} most likely {name}" for name, count in likely.most_common())
        found.append(
            Limit(what=f"{undetermined} sites", why=f"neither confirmed nor cleared at the dose they got: {words}")
        )
    found += _area(data, summary)
    return found


def _projection(data: ReportData) -> list[Limit]:
    defects: Mapping[str, Mapping[str, Any]] = data.spec.get("specimen", {}).get("defects", {})
    found: list[Limit] = []
    for name, change in defects.items():
        column, becomes = str(change.get("column", "")), list(change.get("becomes", []))
        if becomes and column[-1:].isdigit() and int(column[-1]) > 1:
            symbol = column.rstrip("0123456789")
            found.append(
                Limit(
                    what=f"{name}: which of the {column[-1]} {symbol} atoms, top or bottom",
                    why="the image is a projection along the beam; both give the same counts. A tilt series would tell",
                )
            )
    return found


def _pairs(data: ReportData, view: CensusView) -> list[Limit]:
    return [
        Limit(
            what=f"{row.pair} in one frame of mode {row.mode}",
            why=f"d' = {row.detectability:.1f} at {row.dose_e_per_a2:,.0f} e/Å²; "
            f"{NEEDED_DETECTABILITY:g} would take {row.needed_e_per_a2:,.0f} e/Å²",
        )
        for row in pair_rows(data, view)
        if not row.is_enough
    ]


def _area(data: ReportData, summary: Mapping[str, Any]) -> list[Limit]:
    found: list[Limit] = []
    clean = data.maps.get("clean")
    if clean is not None and np.isfinite(clean).any():
        share = float(np.mean(clean[np.isfinite(clean)] <= 0.5))
        found.append(
            Limit(
                what=f"The contaminated {share:.0%} of the surveyed area",
                why="contamination hides single atoms; no density is stated there",
            )
        )
    surveyed, analysed = summary.get("surveyed_clean_area_nm2"), summary.get("analysed_clean_area_nm2")
    if surveyed and analysed is not None and analysed < surveyed:
        found.append(
            Limit(
                what=f"Single sites in {surveyed - analysed:,.0f} of {surveyed:,.0f} nm² of clean specimen",
                why="no field was taken there; its density is interpolated and its interval is wider",
            )
        )
    return found


def _of_an_element_map(data: ReportData) -> list[Limit]:
    target = data.summary.get("target_error")
    found: list[Limit] = []
    for name, line in data.summary.get("lines", {}).items():
        error = line.get("predicted_error")
        if error is not None and target is not None and error > target:
            found.append(
                Limit(
                    what=f"The {name} map to a relative error of {target:g}",
                    why=f"the predicted error is {error:.2f} with the spectra taken",
                )
            )
    if not data.experiment.is_simulated or data.experiment.instrument == "replay":
        found.append(
            Limit(what="The true dose", why="the beam current is declared in the spec, not measured: doses are nominal")
        )
    return found
