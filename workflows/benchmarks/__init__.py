"""Benchmarks by name, for `stempilot bench`; the scripts in benchmarks/ call these."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import SpecError
from orchestrator.settings import Settings
from workflows.benchmarks.first_world import bench_first_world
from workflows.benchmarks.loop_overhead import bench_loop_overhead

BENCHMARKS = {"first_world": bench_first_world, "loop_overhead": bench_loop_overhead}


def run_benchmark(name: str, seeds: int, settings: Settings) -> dict[str, Any]:
    """Run one; its JSON-able result. Raises SpecError for a name nobody knows."""
    if name not in BENCHMARKS:
        raise SpecError(f"no benchmark is called {name!r}; known: {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name](seeds, settings)


__all__ = ["BENCHMARKS", "run_benchmark"]
