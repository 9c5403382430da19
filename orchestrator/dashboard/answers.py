"""What an objective found, in a few words and pictures: headline, maps, the surest finds close up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import numpy as np

from orchestrator.answer_file import AnswerSoFar
from orchestrator.report.census_view import CensusView
from orchestrator.report.close_ups import CROP_NM
from orchestrator.report.report_data import ReportFrame

_PER_1E12_CM2 = 1e2  # nm^-2 to 1e12 cm^-2
_FINDS_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One species or line: a number, and how sure it is."""

    name: str
    number: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A site that can be shown close up: its row in the answer, the frame that shows it best."""

    row: int
    frame_id: str
    title: str
    dose: str


def headline(summary: Mapping[str, Any]) -> str | None:
    """The answer in one line, None where the objective has said nothing yet."""
    if "confirmed" in summary:
        named = ", ".join(
            f"{entry['confirmed']} {name}" for name, entry in summary["species"].items() if entry["confirmed"]
        )
        words = f"{summary['confirmed']} defects confirmed"
        return (
            f"{words}{f' ({named})' if named else ''}, {summary.get('beam_made', 0)} made by the beam, "
            f"{summary.get('undecided', 0)} undecided"
        )
    errors = [
        f"{name} {line['predicted_error']:.0%}"
        for name, line in summary.get("lines", {}).items()
        if line.get("predicted_error") is not None
    ]
    return f"predicted error of the maps: {', '.join(errors)}" if errors else None


def answer_rows(summary: Mapping[str, Any]) -> list[AnswerRow]:
    """Species with their densities, or lines with their errors."""
    rows = [_species_row(name, entry) for name, entry in summary.get("species", {}).items()]
    target = summary.get("target_error")
    for name, line in summary.get("lines", {}).items():
        error = line.get("predicted_error")
        note = f"asked for: {target:.0%}" if target is not None else ""
        rows.append(AnswerRow(name=name, number="unknown" if error is None else f"error {error:.0%}", note=note))
    return rows


def _species_row(name: str, entry: Mapping[str, Any]) -> AnswerRow:
    low, high = entry.get("whole_low_per_nm2"), entry.get("whole_high_per_nm2")
    note = "density not known yet"
    if low is not None and high is not None and isfinite(high):
        note = f"{_density(low)} to {_density(high)} × 10¹² cm⁻² (95 %)"
    if not entry.get("counts_as_native", True):
        note += "; listed, not counted"
    return AnswerRow(name=name, number=f"{entry['confirmed']}", note=note)


def _density(per_nm2: float) -> str:
    value = per_nm2 * _PER_1E12_CM2
    return f"{value:.2g}" if value >= 0.001 else "0"


def map_names(answer: AnswerSoFar | None) -> list[tuple[str, str]]:
    """(name, title) of the objective's maps that are shown as pictures."""
    if answer is None:
        return []
    lines = [
        name.removeprefix("rate_")
        for name in answer.maps
        if name.startswith("rate_") and not name.startswith("rate_std_")
    ]
    titles = {"rate_": "{}: estimated counts", "rate_std_": "{}: standard deviation"}
    return [(prefix + line, title.format(line)) for line in lines for prefix, title in titles.items()]


def surest_finds(answer: AnswerSoFar | None, frames: Sequence[ReportFrame]) -> list[Find]:
    """The surest confirmed sites, each with the frame of highest dose that shows it whole; surveys do not count."""
    view = None if answer is None else CensusView.of_answer(answer.summary, answer.maps)
    sharp = sorted((frame for frame in frames if frame.purpose != "survey"), key=lambda frame: -frame.dose_e_per_a2)
    if view is None or not sharp:
        return []
    fields = _Fields.of(sharp, view)
    rows = np.nonzero(view.native | view.beam_made)[0]
    finds: list[Find] = []
    for row in rows[np.argsort(view.error_probability[rows], kind="stable")]:
        showing = fields.showing(float(view.x_nm[row]), float(view.y_nm[row]))
        if len(showing):
            dose = f"{view.dose_e_per_a2[row]:,.0f} e/Å²"
            title = view.words(int(row))
            finds.append(Find(row=int(row), frame_id=sharp[showing[0]].id, title=title, dose=dose))
        if len(finds) == _FINDS_SHOWN:
            break
    return finds


@dataclass(frozen=True, slots=True)
class _Fields:
    """Centres of frames in the coordinates of the specimen, (n, 2), and half of their sides."""

    centre_nm: np.ndarray
    half_nm: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[ReportFrame], view: CensusView) -> _Fields:
        nominal = np.array([(frame.x_nm, frame.y_nm) for frame in frames])
        sides = np.array([(frame.width_nm, frame.height_nm) for frame in frames])
        return cls(nominal - np.array([view.drift_of(frame) for frame in frames]), sides / 2)

    def showing(self, x_nm: float, y_nm: float) -> np.ndarray:
        """Numbers of the frames that have the place and its surroundings in them."""
        away = np.abs(self.centre_nm - (x_nm, y_nm))
        return np.nonzero((away <= self.half_nm - CROP_NM / 2).all(axis=1))[0]
