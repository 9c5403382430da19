"""The first world over many seeds and three clusterings: our policy and every baseline, every seed shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions
from workflows.evaluation.baselines import OurRun, baseline_plans, run_all
from workflows.evaluation.rehearsal import Rehearsal, rehearse

CLUSTERINGS = (0.0, 0.7, 1.2)
_KEPT = (
    "recall", "false_discovery_rate", "electrons", "instrument_time_s", "frames", "dose_max_e_per_a2",
    "ledger_error_fraction", "confirmed", "wrong", "determinable", "reason", "cpu_s",
)  # fmt: skip


def bench_first_world(
    seeds: int, settings: Settings, say: Callable[[str], None], progress: Path | None = None
) -> dict[str, Any]:
    """Runs seeds x clusterings x policies, two processes; says one line a world and the medians.

    Worlds are kept in `progress` (one JSON document a line) as they end; worlds of the same versions found there are
    not run again, so an interrupted benchmark goes on where it stood.
    """
    done = _kept_worlds(progress)
    with as_file(files("workflows") / "templates" / "experiment.yaml") as path:
        spec = ExperimentSpec.from_yaml(path)
    worlds: list[dict[str, Any]] = []
    for sigma in CLUSTERINGS:
        config = {**spec.instrument.config, "clustering_sigma": sigma}
        clustered = spec.model_copy(update={"instrument": spec.instrument.model_copy(update={"config": config})})
        for seed in range(seeds):
            if (sigma, seed) in done:
                worlds.append(done[sigma, seed])
                say(_line(worlds[-1]))
                continue
            main = Rehearsal(
                spec=clustered,
                seed=seed,
                settings=settings.instrument("simulated"),
                cache_folder=settings.data_folder / "cache",
                policy=spec.policy.name,
                options=spec.policy.options,
            )
            own = rehearse(main)
            ours = OurRun.of([decision["point"] for decision in own["decisions"]])
            results = {main.policy: own, **run_all(baseline_plans(main, ours), _ignore)}
            worlds.append(
                {"clustering_sigma": sigma, "seed": seed, "policies": {n: _kept(r) for n, r in results.items()}}
            )
            _keep_world(progress, worlds[-1])
            say(_line(worlds[-1]))
    summary = {str(sigma): _summary([w for w in worlds if w["clustering_sigma"] == sigma]) for sigma in CLUSTERINGS}
    for sigma, rows in summary.items():
        say(f"clustering {sigma}: " + "  ".join(f"{name} {row['median_recall']:.3f}" for name, row in rows.items()))
    return {"benchmark": "first_world", "versions": versions(), "worlds": worlds, "summary": summary}


def _kept_worlds(progress: Path | None) -> dict[tuple[float, int], dict[str, Any]]:
    if progress is None or not progress.exists():
        return {}
    documents = [json.loads(line) for line in progress.read_text(encoding="utf-8").splitlines()]
    return {
        (document["world"]["clustering_sigma"], document["world"]["seed"]): document["world"]
        for document in documents
        if document["versions"] == versions()
    }


def _keep_world(progress: Path | None, world: Mapping[str, Any]) -> None:
    if progress is not None:
        with progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"versions": versions(), "world": world}) + "\n")


def _ignore(done: Mapping[str, Any]) -> None:
    del done


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result.get(key) for key in _KEPT}


def _line(world: Mapping[str, Any]) -> str:
    words = [f"{name} {row['recall']:.3f}/{row['false_discovery_rate']:.3f}" for name, row in world["policies"].items()]
    return f"sigma {world['clustering_sigma']:.1f} seed {world['seed']:3d}  recall/false discovery rate: " + "  ".join(
        words
    )


def _summary(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, worst, and against the operator: ratio of recalls and the seeds where ours lost."""
    rows: dict[str, Any] = {}
    names = list(worlds[0]["policies"])
    for name in names:
        recalls = [world["policies"][name]["recall"] for world in worlds]
        rates = [world["policies"][name]["false_discovery_rate"] for world in worlds]
        rows[name] = {
            "median_recall": median(recalls),
            "worst_recall": min(recalls),
            "median_false_discovery_rate": median(rates),
            "pooled_false_discovery_rate": _pooled(worlds, name),
        }
    ours = names[0]
    for name in names[1:]:
        rows[name]["seeds_where_it_beats_ours"] = [
            world["seed"] for world in worlds if world["policies"][name]["recall"] > world["policies"][ours]["recall"]
        ]
    return rows


def _pooled(worlds: list[dict[str, Any]], name: str) -> float:
    wrong = sum(world["policies"][name]["wrong"] for world in worlds)
    confirmed = sum(world["policies"][name]["confirmed"] for world in worlds)
    return wrong / confirmed if confirmed else 0.0
