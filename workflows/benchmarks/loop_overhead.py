"""What the loop costs beyond physics, features and policy: journal and frame writing, and Prefect on top."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from orchestrator.catalogue import Catalogue
from orchestrator.journal import Journal
from orchestrator.loop import Experiment, run
from orchestrator.memory_record import MemoryRecord
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import parse_spec
from orchestrator.versions import versions
from workflows.assembly import join, make_policy, prepare
from workflows.prefect_engine import PrefectEngine

_POINTS = 300


def bench_loop_overhead(
    seeds: int, settings: Settings, say: Callable[[str], None], progress: object = None
) -> dict[str, Any]:
    """Milliseconds per iteration of one short experiment: no record, journalled, journalled inside a Prefect flow."""
    del progress  # short enough to be run again
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        engine = PrefectEngine(Path(folder) / "prefect")
        engine.start()
        late = engine.not_ready_because(180.0)
        try:
            rows += [_one(Path(folder), seed, settings, engine if late is None else None) for seed in range(seeds)]
        finally:
            engine.stop()
    keys = rows[0].keys()
    result: dict[str, Any] = {key: median(row[key] for row in rows) for key in keys}
    for key, value in result.items():
        say(f"{key:45s} {value:8.3f} ms{'' if 'one_flow' in key else ' per iteration'}")
    return {
        "benchmark": "loop_overhead",
        "versions": versions(),
        "iterations": _POINTS,
        "median": result,
        "runs": rows,
        "prefect": late,
    }


def _one(folder: Path, seed: int, settings: Settings, engine: PrefectEngine | None) -> dict[str, float]:
    spec = _spec(folder)
    bare = _timed(lambda: run(_experiment(spec, seed, settings, None)), spec)
    with Catalogue.open(folder / f"data-{seed}") as catalogue:
        journalled = _timed(lambda: run(_experiment(spec, seed, settings, catalogue)), spec)
        row = {"loop_without_record": bare, "loop_journalled": journalled, "journal_and_frame_file": journalled - bare}
        if engine is not None:
            experiment = _experiment(spec, seed, settings, catalogue)
            inside: list[float] = []
            started = time.perf_counter()
            engine.run(f"bench-{seed}", lambda: inside.append(_timed(lambda: run(experiment), spec)))
            whole = time.perf_counter() - started
            row |= {"loop_journalled_in_prefect_flow": inside[0], "prefect_beyond_journal": inside[0] - journalled}
            row["prefect_start_and_end_of_one_flow"] = whole * 1e3 - inside[0] * (spec.budget.frames or 1)
    return row


def _timed(work: Callable[[], Any], spec: ExperimentSpec) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3 / (spec.budget.frames or 1)


def _experiment(spec: ExperimentSpec, seed: int, settings: Settings, catalogue: Catalogue | None) -> Experiment:
    parts = prepare(spec, seed, settings.instrument("replay"), None)
    policy = make_policy(parts, "raster", spec.policy.options)
    record: Any = MemoryRecord("bench")
    if catalogue is not None:
        own = catalogue.create_experiment(
            name=spec.name, spec=spec.model_dump(mode="json"), seed=seed, engine="bench", options={}
        )
        record = Journal(catalogue, own)
    return join(parts, policy, record, _ignore)


def _ignore(kind: str, payload: Mapping[str, Any]) -> None:
    del kind, payload


def _spec(folder: Path) -> ExperimentSpec:
    """A raster over a small made-up spectrum image (Poisson counts around a bump): cheap physics, many iterations."""
    path = folder / "maps.npz"
    if not path.exists():
        rng = np.random.default_rng(1)
        y, x = np.mgrid[-1:1:128j, -1:1:128j]
        rate = 2.0 * np.exp(-4 * (x**2 + y**2))
        counts = rng.poisson(rate).astype(np.uint16)
        survey = np.round(1000 * rate).astype(np.uint16)
        np.savez(path, survey=survey, pixel_size_nm=10.0, counts_Fe_Ka=counts)
    field = {"purpose": "field", "mode": "eds", "field_of_view_nm": 40.0, "dwell_time_us": 100.0}
    tile = {**field, "purpose": "survey", "mode": "survey", "field_of_view_nm": 1280.0, "dwell_time_us": 1.0}
    tile |= {"x_nm": 0.0, "y_nm": 0.0}
    document: dict[str, Any] = {
        "name": "loop overhead",
        "specimen": {"material": "made up", "atom_types": "Fe"},
        "instrument": {
            "name": "replay",
            "config": {"file": str(path), "full_dwell_time_us": 100, "nominal_current_pa": 100, "lines": ["Fe_Ka"]},
            "optics": {"beam_energy_ev": 200e3, "semi_convergence_angle_mrad": 10},
            "scan": {"subframe_count": 1, "flyback_time_us": 0},
            "fixed": {"pixel_size_nm": 10.0, "probe_current_pa": 100, "defocus_nm": 0},
        },
        "search_space": {
            "purpose": {"choices": ["survey", "field"]},
            "mode": {"choices": ["survey", "eds"]},
            "x_nm": {"low": -620, "high": 620},
            "y_nm": {"low": -620, "high": 620},
            "field_of_view_nm": {"low": 40, "high": 1280},
            "dwell_time_us": {"low": 1, "high": 100},
        },
        "objective": {
            "name": "element_map",
            "options": {"lines": ["Fe_Ka"], "full_dwell_time_us": 100, "target_error": 1e-6, "use_survey": False},
        },
        "policy": {"name": "raster", "options": {**field, "step_nm": 40.0, "prelude": [tile]}},
        "budget": {"frames": _POINTS},
    }
    return parse_spec(document, folder)
