"""A small census whose frames are drawn, extracted and counted for real, as the report's data."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from instruments import Frame, StagePosition
from orchestrator.features import LatticeSites
from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.lattice_model import PrimitiveCell
from orchestrator.objectives.defect_census import CensusOptions, DefectCensus, LatticeGeometry
from orchestrator.objectives.objective import FrameFacts
from orchestrator.report import (
    Evaluation,
    ExperimentFacts,
    LedgerShare,
    ReportData,
    ReportDecision,
    ReportFrame,
    Spending,
)
from tests.unit.orchestrator.features.gaussian_lattice import GaussianLattice, Specimen, expose

SPECIES = ("V_Se", "O_Se", "V_Se2", "Mo_W")
COLUMNS = ("Se2", "Se2", "Se2", "W")
MODEL = GaussianLattice()


def _frame(number: int, purpose: str, mode: str, centre_nm: tuple[float, float], dose_e_per_a2: float) -> Frame:
    """10 nm of the same lattice about a place, with defects of its own."""
    basis = np.array([[MODEL.cell_width_nm, MODEL.cell_width_nm / 2], [0, MODEL.cell_height_nm / 2]])
    cycles = np.linalg.solve(basis, -np.array(centre_nm))
    origin = basis @ (cycles - np.round(cycles))
    specimen = Specimen(
        MODEL, origin_nm=(float(origin[0]), float(origin[1])), density_per_nm2=dict.fromkeys(SPECIES, 0.06)
    )
    exposure = expose(
        specimen, np.random.default_rng([4, number]), mode=mode, shape_px=(256, 256), dose_e_per_a2=dose_e_per_a2,
        subframe_count=2, centre_nm=centre_nm,
    )  # fmt: skip
    frame, name = exposure.frame, f"action-{number}"
    stage = StagePosition(x_nm=centre_nm[0], y_nm=centre_nm[1])
    command = frame.requested.model_copy(update={"action_id": name, "purpose": purpose, "stage": stage})
    return replace(frame, action_id=name, requested=command, started_s=float(number), ended_s=number + 1.0)


def _survey() -> tuple[Frame, FeatureSet]:
    frame = _frame(0, "survey", "maadf", (0.0, 0.0), 30.0)
    axis = np.arange(-19.5, 20.0)
    clean = np.where(axis[None, :] + 0 * axis[:, None] < 12, 0.95, 0.1)
    arrays = {"clean_map": clean, "clean_map_x_nm": axis, "clean_map_y_nm": axis}
    return frame, FeatureSet(extractor="survey", action_id=frame.action_id, values={}, arrays=arrays)


@cache
def census_run() -> tuple[DefectCensus, dict[str, Frame], dict[str, FeatureSet]]:
    """The objective after one survey and four fields, with frames and features by action id."""
    cell = PrimitiveCell.of(MODEL)
    geometry = LatticeGeometry(tuple(cell.column_names), np.asarray(cell.fractions), 1.0 / cell.area_nm2)
    options = CensusOptions(
        prior_density_per_nm2=dict.fromkeys(SPECIES, 0.05), determinable=("V_Se", "V_Se2", "Mo_W"), beam_made="V_Se"
    )
    census = DefectCensus(options, SPECIES, COLUMNS, geometry, (-20.0, 20.0, -20.0, 20.0))
    sites = LatticeSites(MODEL, SPECIES)
    survey, features = _survey()
    frames, extracted = {survey.action_id: survey}, {survey.action_id: features}
    places = ((-12.0, -12.0), (0.0, 8.0), (-8.0, 10.0), (0.0, 8.0))
    for number, place in enumerate(places, start=1):
        frame = _frame(number, "field", "haadf" if number == 4 else "maadf", place, 6000.0)
        frames[frame.action_id], extracted[frame.action_id] = frame, sites.extract(frame)
    for action_id, frame in frames.items():
        census.update({}, FrameFacts.of(frame), extracted[action_id])
    return census, frames, extracted


def _entry(number: int, frame: Frame) -> ReportFrame:
    facts = FrameFacts.of(frame)
    return ReportFrame(
        id=f"frame-{number}", decision_seq=number + 1, action_id=frame.action_id, path=f"frames/{number}.nxs",
        sha256=f"{number:064x}", purpose=facts.purpose, mode=facts.mode, dose_e_per_a2=facts.dose_e_per_a2,
        electrons=facts.electrons, x_nm=facts.x_nm, y_nm=facts.y_nm, width_nm=facts.width_nm, height_nm=facts.height_nm,
        pixel_size_nm=facts.pixel_size_nm, dwell_time_us=frame.requested.scan.dwell_time_us,
        subframe_count=facts.subframe_count, started_s=facts.started_s, ended_s=facts.ended_s,
    )  # fmt: skip


def _decisions(frames: list[ReportFrame]) -> tuple[ReportDecision, ...]:
    decisions: list[ReportDecision] = []
    for frame in frames:
        decisions.append(
            ReportDecision(
                seq=frame.decision_seq, id=f"d{frame.decision_seq}", suggestion_id=f"census-4-{frame.decision_seq}",
                point={"purpose": frame.purpose, "x_nm": frame.x_nm, "mode": frame.mode, "probe_current_pa": 30.0},
                prediction={"found": (2.5, 1.0)}, cost={"electrons": 1e6, "seconds": 1.0},
                reason={"why": f"most natives per electron at {frame.x_nm:g} nm", "gain": 0.25}, status="done",
                score=float(frame.decision_seq), electrons=1e6 * frame.decision_seq, instrument_time_s=frame.ended_s,
                frame_id=frame.id,
            )
        )  # fmt: skip
    refused = replace(
        decisions[-1], seq=len(decisions) + 1, status="refused", frame_id=None, score=None,
        status_reason="dose of a 1 nm2 cell after this frame 12000 e/A2 is above the limit 10000 e/A2",
    )  # fmt: skip
    return (*decisions, refused)


def census_data(**changes: Any) -> ReportData:
    """The report's data of the run; `changes` replace fields."""
    census, frames, features = census_run()
    entries = [_entry(number, frame) for number, frame in enumerate(frames.values())]
    by_id = {entry.id: frames[entry.action_id] for entry in entries}
    electrons = sum(entry.electrons for entry in entries)
    curve = tuple(
        {"electrons": 1e6 * n, "instrument_time_s": 1.0 * n, "recall": 0.1 * n, "false_discovery_rate": 0.02}
        for n in range(1, 6)
    )
    weaker = [{**point, "recall": point["recall"] / 2} for point in curve]
    verdict = {
        "recall": 0.5, "false_discovery_rate": 0.02, "confirmed": 20, "wrong": 1, "determinable": 40, "wrong_rows": [],
        "by_species": {name: {"recall": 0.5, "wrong": 0, "determinable": 10} for name in SPECIES},
        "ledger_error_fraction": 0.0021, "ledger_electrons": electrons, "true_electrons": electrons / 1.0021,
    }  # fmt: skip
    baseline = {
        "recall": 0.25,
        "false_discovery_rate": 0.01,
        "electrons": 5e6,
        "instrument_time_s": 5.0,
        "curve": weaker,
    }
    spec = {
        "specimen": {
            "defects": {
                n: {"column": c, "becomes": list(MODEL.defects[n].becomes)}
                for n, c in zip(SPECIES, COLUMNS, strict=True)
            }
        }
    }
    data = ReportData(
        experiment=ExperimentFacts(
            id="0123abcd", name="Native defects", status="completed", reason="budget spent: 5 of 5 frames",
            created_at="2026-11-02T10:00:00+00:00", ended_at="2026-11-02T10:05:00+00:00", engine="local",
            policy="census", seed=4, instrument="analytic", is_simulated=True, versions={"numpy": "2.4.6"},
        ),
        spec=spec,
        spec_text="name: Native defects\nbudget: {frames: 5}\n",
        decisions=_decisions(entries),
        frames=tuple(entries),
        spending=Spending(
            electrons=electrons, instrument_time_s=5.0, dose_max_e_per_a2=12_000.0, limit_electrons=2 * electrons,
            limit_dose_e_per_a2=2e4,
        ),
        ledger=(
            LedgerShare(purpose="survey", electrons=entries[0].electrons, frame_count=1),
            LedgerShare(purpose="field", electrons=electrons - entries[0].electrons, frame_count=4),
        ),
        summary=census.summary(),
        maps=census.maps(),
        load_frame=by_id.__getitem__,
        load_features=features.get,
        evaluation=Evaluation(
            verdict=verdict, curve=curve, baselines={"survey_rank": baseline, "thin_raster": baseline}
        ),
    )  # fmt: skip
    return replace(data, **changes)
