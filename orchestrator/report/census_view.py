"""A census as the figures need it: every call with its class and colour, and where each frame saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.report.pictures import SPECIES_COLOURS, SPECIES_MARKERS
from orchestrator.report.report_data import ReportData, ReportFrame

HOST, BEAM_MADE, FIRST_SPECIES = 0, 1, 2
_DOUBT_FROM = 0.02


@dataclass(frozen=True, slots=True)
class CensusView:
    """Calls (n,) in specimen coordinates; `call` indexes [host, beam-made, species...], `posterior` is (n, 2 + S).

    `native` and `beam_made` are the confirmed ones; `undetermined` might be a defect and is not confirmed; `wrong` are
    confirmed natives that the hidden truth contradicts (none where there is no truth).
    """

    species: tuple[str, ...]
    counts_as_native: tuple[bool, ...]
    x_nm: np.ndarray
    y_nm: np.ndarray
    call: np.ndarray
    error_probability: np.ndarray
    dose_e_per_a2: np.ndarray
    posterior: np.ndarray
    birth: np.ndarray
    native: np.ndarray
    beam_made: np.ndarray
    undetermined: np.ndarray
    wrong: np.ndarray
    drift_nm: np.ndarray

    @classmethod
    def of(cls, data: ReportData) -> CensusView | None:
        """The view, or None where the experiment was no census or has seen nothing."""
        wrong = data.evaluation.verdict.get("wrong_rows", []) if data.evaluation is not None else []
        return cls.of_answer(data.summary, data.maps, wrong)

    @classmethod
    def of_answer(
        cls, summary: Mapping[str, Any], maps: Mapping[str, np.ndarray], wrong_rows: Sequence[int] = ()
    ) -> CensusView | None:
        """The same from an objective's summary and maps, final or so far."""
        species = summary.get("species")
        if not species or "call_x_nm" not in maps:
            return None
        call, confirmed, posterior = maps["call_call"], maps["call_confirmed"].astype(bool), maps["call_posterior"]
        change = posterior[:, BEAM_MADE:].sum(axis=1)
        wrong = np.zeros(len(call), dtype=bool)
        wrong[np.asarray(wrong_rows, dtype=int)] = True
        return cls(
            species=tuple(species),
            counts_as_native=tuple(bool(entry.get("counts_as_native", True)) for entry in species.values()),
            x_nm=maps["call_x_nm"],
            y_nm=maps["call_y_nm"],
            call=call,
            error_probability=maps["call_error_probability"],
            dose_e_per_a2=maps["call_dose_e_per_a2"],
            posterior=posterior,
            birth=maps["call_birth"],
            native=confirmed & (call >= FIRST_SPECIES),
            beam_made=confirmed & (call == BEAM_MADE),
            undetermined=~confirmed & (change > _DOUBT_FROM),
            wrong=wrong,
            drift_nm=np.asarray(summary.get("drift_nm") or np.zeros((0, 3)), dtype=float).reshape(-1, 3),
        )

    def of_species(self, number: int) -> np.ndarray:
        """Mask (n,) of the confirmed natives of one species."""
        return self.native & (self.call == FIRST_SPECIES + number)

    def drift_of(self, frame: ReportFrame) -> tuple[float, float]:
        """Nominal minus specimen coordinate (x, y) of a frame; (0, 0) for one in which no lattice was seen."""
        if not len(self.drift_nm):
            return 0.0, 0.0
        nearest = self.drift_nm[np.argmin(np.abs(self.drift_nm[:, 0] - frame.started_s))]
        return float(nearest[1]), float(nearest[2])

    def inside(self, frame: ReportFrame, margin_nm: float = 0.0) -> np.ndarray:
        """Mask (n,) of calls in a frame (unrotated), `margin_nm` from its edge."""
        drift_x, drift_y = self.drift_of(frame)
        along = np.abs(self.x_nm + drift_x - frame.x_nm) <= frame.width_nm / 2 - margin_nm
        return along & (np.abs(self.y_nm + drift_y - frame.y_nm) <= frame.height_nm / 2 - margin_nm)

    def words(self, row: int) -> str:
        """The best call of one site with its probability."""
        names = ("host", "beam-made", *self.species)
        best = int(self.posterior[row].argmax())
        return f"{names[best]} {self.posterior[row, best]:.2f}"


def species_style(number: int) -> tuple[str, str]:
    """(colour, marker) of a species by its number."""
    return SPECIES_COLOURS[number % len(SPECIES_COLOURS)], SPECIES_MARKERS[number % len(SPECIES_MARKERS)]
