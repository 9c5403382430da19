"""Benchmarks by name, for `stempilot bench`; the scripts in benchmarks/ call these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.settings import Settings
from workflows.benchmarks.first_world import bench_first_world
from workflows.benchmarks.focus import bench_focus
from workflows.benchmarks.loop_overhead import bench_loop_overhead

BENCHMARKS = {"first_world": bench_first_world, "focus": bench_focus, "loop_overhead": bench_loop_overhead}


def run_benchmark(
    name: str, seeds: int, settings: Settings, say: Callable[[str], None], progress: Path | None = None
) -> dict[str, Any]:
    """Run one, saying each line as it is known; its JSON-able result. Raises SpecError for a name nobody knows.

    A long one keeps what is done in the file `progress` and goes on from it.
    """
    if name not in BENCHMARKS:
        raise SpecError(f"no benchmark is called {name!r}; known: {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name](seeds, settings, say, progress)


__all__ = ["BENCHMARKS", "run_benchmark"]
