"""The baselines of a question, on fresh worlds of the same seed with the same budget, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from math import ceil, sqrt
from multiprocessing import connection
from typing import Any

from orchestrator.spec import ExperimentSpec
from workflows.evaluation.rehearsal import Rehearsal, rehearse
from workflows.questions.calibrated import PURPOSE as CALIBRATE

FULL_DOSE_E_PER_A2 = 2700.0
FIELD_NM = 20.0
PIXEL_NM = 0.039
CURRENT_PA = 30.0
_LOOK_EVERY_S = 0.25


def dwell_for(dose_e_per_a2: float, pixel_nm: float, current_pa: float) -> float:
    """Dwell per pixel, in us, that puts this mean dose on a raster (flyback not counted)."""
    from instruments.units import electrons

    return dose_e_per_a2 * pixel_nm**2 * 100 / electrons(current_pa, 1e-6)


@dataclass(frozen=True, slots=True)
class OurRun:
    """What baselines are given of our run: its number of frames, its focus frames, and the defocus these settled on.

    `frames` are all of them, `calibration_frames` those of a series before it (section `calibrate`): every baseline
    takes the same series before its plan, so its plan has the `measuring_frames`.
    """

    frames: int
    focus_points: tuple[Mapping[str, Any], ...] = ()
    defocus_nm: float = 0.0
    calibration_frames: int = 0

    @classmethod
    def of(cls, points: Sequence[Mapping[str, Any]]) -> OurRun:
        """From the points of our decisions, in order."""
        fields = [point for point in points if point.get("purpose") == "field"]
        focus = tuple(point for point in points if point.get("purpose") == "focus")
        defocus_nm = float(fields[0].get("defocus_nm", 0.0)) if fields and focus else 0.0
        series = sum(point.get("purpose") == CALIBRATE for point in points)
        return cls(len(points), focus, defocus_nm, series)

    @property
    def measuring_frames(self) -> int:
        """Those that were taken for the question."""
        return self.frames - self.calibration_frames


def census_baselines(spec: ExperimentSpec, ours: OurRun) -> dict[str, dict[str, Any]]:
    """name -> policy options; every one images fields of 20 nm in MAADF, as a competent operator would.

    All of them focus first, with the very frames our run took for it, and keep the defocus found.
    """
    x, y = spec.search_space["x_nm"], spec.search_space["y_nm"]
    area_a2 = (x["high"] - x["low"]) * (y["high"] - y["low"]) * 100.0
    everywhere = 0.96 * (spec.budget.electrons or FULL_DOSE_E_PER_A2 * area_a2) / area_a2
    common = {
        "purpose": "field",
        "field_of_view_nm": FIELD_NM,
        "pixel_size_nm": PIXEL_NM,
        "mode": "maadf",
        "probe_current_pa": CURRENT_PA,
        "defocus_nm": ours.defocus_nm,
        "prelude": [dict(point) for point in ours.focus_points],
    }
    full = {**common, "dwell_time_us": dwell_for(FULL_DOSE_E_PER_A2, PIXEL_NM, CURRENT_PA)}
    thin = {**common, "dwell_time_us": dwell_for(everywhere, PIXEL_NM, CURRENT_PA)}
    return {"thin_raster": thin, "full_raster": full, "random": full, "survey_rank": full, "oracle": full}


def element_map_baselines(spec: ExperimentSpec, ours: OurRun) -> dict[str, dict[str, Any]]:
    """name -> policy options: the equal-count raster and random positions, after the same survey image."""
    space = spec.search_space
    width_nm = float(space["x_nm"]["high"]) - float(space["x_nm"]["low"])
    cell_nm = float(space["field_of_view_nm"]["low"])
    spectra = max(ours.measuring_frames - 1, 1)  # one was the survey image
    common = {
        "purpose": "field",
        "mode": "eds",
        "field_of_view_nm": cell_nm,
        "dwell_time_us": float(space["dwell_time_us"]["high"]),
    }
    survey = {
        **common,
        "purpose": "survey",
        "mode": "survey",
        "x_nm": 0.0,
        "y_nm": 0.0,
        "field_of_view_nm": float(space["field_of_view_nm"]["high"]),
        "dwell_time_us": float(space["dwell_time_us"]["low"]),
    }
    step_nm = (width_nm + cell_nm) / max(ceil(sqrt(spectra)), 1)
    return {
        "raster": {**common, "prelude": [survey], "step_nm": step_nm},
        "random": {**common, "prelude": [survey]},
    }


BASELINES: dict[str, Callable[[ExperimentSpec, OurRun], dict[str, dict[str, Any]]]] = {
    "defect_census": census_baselines,
    "element_map": element_map_baselines,
}


def baseline_plans(main: Rehearsal, ours: OurRun) -> list[Rehearsal]:
    """One rehearsal for every baseline of the main run's question; none for a question without baselines.

    Where the question counts points rather than dose, baselines get as many as our run took.
    """
    build = BASELINES.get(main.spec.objective.name)
    if build is None:
        return []
    spec = _at_any_time(main.spec)
    if spec.objective.name == "element_map":
        objective = spec.objective.model_copy(update={"options": {**spec.objective.options, "target_error": 1e-6}})
        budget = spec.budget.model_copy(update={"frames": ours.frames})
        spec = spec.model_copy(update={"budget": budget, "objective": objective})
    return [replace(main, spec=spec, policy=name, options=options) for name, options in build(main.spec, ours).items()]


def _at_any_time(spec: ExperimentSpec) -> ExperimentSpec:
    """Without the moment our run had to end at: it may be over, and would end a baseline before its budget does."""
    return spec.model_copy(update={"stop": spec.stop.model_copy(update={"until": None})})


class BaselinesStopped(Exception):
    """A person wants something else; what the baselines had computed is dropped, they can be run again."""


def _never() -> bool:
    return False


def run_all(
    plans: list[Rehearsal],
    done: Callable[[Mapping[str, Any]], None],
    processes: int | None = None,
    stopped: Callable[[], bool] = _never,
) -> dict[str, dict[str, Any]]:
    """policy name -> verdict; `done` hears of each as it ends. Results do not depend on the number of processes.

    Raises BaselinesStopped soon after `stopped` says so.
    """
    results: dict[str, dict[str, Any]] = {}
    if not plans:
        return results
    context = multiprocessing.get_context("spawn")
    count = min(processes or os.cpu_count() or 1, len(plans))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_belong_to_parent) as pool:
        futures = {pool.submit(rehearse, plan): plan for plan in plans}
        waiting = set(futures)
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    results[futures[future].policy] = future.result()
                    done(future.result())
                if waiting and stopped():
                    raise BaselinesStopped
        except BaseException:
            end_processes()
            raise
    return {plan.policy: results[plan.policy] for plan in plans}


def end_processes() -> None:
    """End the processes that run baselines, at once."""
    for process in multiprocessing.active_children():
        process.terminate()


def _belong_to_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
