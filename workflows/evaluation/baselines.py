"""The baselines of a question, on fresh worlds of the same seed with the same budget, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from orchestrator.spec import ExperimentSpec

from workflows.evaluation.rehearsal import Rehearsal, rehearse

FULL_DOSE_E_PER_A2 = 2700.0
FIELD_NM = 20.0
PIXEL_NM = 0.039
CURRENT_PA = 30.0
SURVEY_FIELD_NM = 100.0
SURVEY_PIXEL_NM = 0.2


def dwell_for(dose_e_per_a2: float, pixel_nm: float, current_pa: float) -> float:
    """Dwell per pixel, in us, that puts this mean dose on a raster (flyback not counted)."""
    from instruments.units import electrons

    return dose_e_per_a2 * pixel_nm**2 * 100 / electrons(current_pa, 1e-6)


def census_baselines(spec: ExperimentSpec) -> dict[str, dict[str, Any]]:
    """name -> policy options; every one images fields of 20 nm in MAADF, as a competent operator would."""
    x, y = spec.search_space["x_nm"], spec.search_space["y_nm"]
    area_a2 = (x["high"] - x["low"]) * (y["high"] - y["low"]) * 100.0
    everywhere = 0.96 * (spec.budget.electrons or FULL_DOSE_E_PER_A2 * area_a2) / area_a2
    common = {
        "purpose": "field",
        "field_of_view_nm": FIELD_NM,
        "pixel_size_nm": PIXEL_NM,
        "mode": "maadf",
        "probe_current_pa": CURRENT_PA,
        "defocus_nm": 0.0,
    }
    full = {**common, "dwell_time_us": dwell_for(FULL_DOSE_E_PER_A2, PIXEL_NM, CURRENT_PA)}
    thin = {**common, "dwell_time_us": dwell_for(everywhere, PIXEL_NM, CURRENT_PA)}
    survey = {"survey": {"field_of_view_nm": SURVEY_FIELD_NM, "pixel_size_nm": SURVEY_PIXEL_NM}}
    return {"thin_raster": thin, "full_raster": full, "random": full, "survey_rank": {**full, **survey}, "oracle": full}


BASELINES: dict[str, Callable[[ExperimentSpec], dict[str, dict[str, Any]]]] = {"defect_census": census_baselines}


def baseline_plans(main: Rehearsal) -> list[Rehearsal]:
    """One rehearsal for every baseline of the main run's question; none for a question without baselines."""
    build = BASELINES.get(main.spec.objective.name)
    return [replace(main, policy=name, options=options) for name, options in build(main.spec).items()] if build else []


def run_all(plans: list[Rehearsal], done: Callable[[Mapping[str, Any]], None], processes: int | None = None) -> dict[str, dict[str, Any]]:
    """policy name -> verdict; `done` hears of each as it ends. Results do not depend on the number of processes."""
    results: dict[str, dict[str, Any]] = {}
    if not plans:
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes or os.cpu_count() or 1, len(plans)), mp_context=context) as pool:
        futures = {pool.submit(rehearse, plan): plan for plan in plans}
        for future in as_completed(futures):
            result = future.result()
            results[futures[future].policy] = result
            done(result)
    return {plan.policy: results[plan.policy] for plan in plans}
