"""What a page costs to make, in ms of processor time: the queue with 1000 experiments, one experiment with 200 frames.

    python benchmarks/page.py [--run FOLDER] [--out benchmarks/results/page.json]

FOLDER holds a finished run of a census; without it, 200 frames of examples/native_defects.yaml are taken first. `first`
is the first request of a process, `changed` one after the journal or the queue went on, `unchanged` one that finds
everything as it was (what a browser asks once a second). Medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.catalogue import Catalogue
from orchestrator.dashboard import Dashboard, Visit
from orchestrator.queue import ExperimentQueue
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples" / "native_defects.yaml"
EXPERIMENTS, WAITING, FRAMES, REPEATS = 1000, 60, 200, 15
VISIT = Visit(csrf="0" * 64)


class Desk:
    """Two instruments that answer at once: what asking them takes is not the page's."""

    def names(self) -> list[str]:
        """Their names."""
        return ["replay", "simulated"]

    def status(self, name: str) -> Mapping[str, Any]:
        """Beam blanked."""
        return {"name": name, "beam_blanked": True}


def processor_ms(make: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    make()
    return 1e3 * (time.process_time() - started)


def costs(make: Callable[[], object], change: Callable[[], object]) -> dict[str, float]:
    """First, after a change, and without one."""
    first = processor_ms(make)
    unchanged = median(processor_ms(make) for _ in range(REPEATS))
    changed: list[float] = []
    for _ in range(REPEATS):
        change()
        changed.append(processor_ms(make))
    return {"first_ms": round(first, 1), "changed_ms": round(median(changed), 1), "unchanged_ms": round(unchanged, 1)}


def queue_costs(folder: Path) -> dict[str, Any]:
    """A queue of 1000: 60 wait, the others have ended."""
    spec = ExperimentSpec.from_yaml(SPEC).model_dump(mode="json")
    with Catalogue.open(folder) as catalogue:
        queue = ExperimentQueue(catalogue)
        for number in range(EXPERIMENTS):
            entry = queue.submit(name=f"Census {number}", spec=spec, seed=number, options={}, submitted_by="benchmark")
            if number >= WAITING:
                queue.cancel(entry.id, by="benchmark", reason="the benchmark needs one that has ended")
        waiting = queue.entries(statuses=("queued",), limit=1)[0]
        priorities = iter(range(1, 10_000))
        dashboard = Dashboard(catalogue, queue, Desk(), "benchmark")
        found = costs(
            lambda: dashboard.queue_html(VISIT, None), lambda: queue.change(waiting.id, priority=next(priorities))
        )
        size = len(dashboard.queue_html(VISIT, None).encode())
    return {"experiments": EXPERIMENTS, "waiting": WAITING, "bytes": size, **found}


def run_frames(folder: Path) -> None:
    """The first 200 frames of the example."""
    command = ["run", SPEC, "--data", folder, "--engine", "local", "--no-baselines", "--set", f"budget.frames={FRAMES}"]
    subprocess.run([sys.executable, "-m", "workflows.cli", *map(str, command)], check=True, cwd=ROOT)


def experiment_costs(folder: Path) -> dict[str, Any]:
    """The newest experiment of a folder; a note in its journal makes the page anew. The pictures apart."""
    with Catalogue.open(folder) as catalogue:
        own = catalogue.experiment("latest").id
        dashboard = Dashboard(catalogue, ExperimentQueue(catalogue), Desk(), "benchmark")
        found = costs(
            lambda: dashboard.experiment_html(own, VISIT, 1), lambda: catalogue.append(own, "note", {"by": "benchmark"})
        )
        frames = catalogue.frames(own)
        pictures = [
            processor_ms(lambda frame=frame: dashboard.frame_png(own, frame.id, frame.mode)) for frame in frames[-15:]
        ]
        ground = processor_ms(lambda: dashboard.ground_png(own))
        size = len(dashboard.experiment_html(own, VISIT, 1).encode())
    pictures_ms = {"frame_picture_ms": round(median(pictures), 1), "survey_mosaic_ms": round(ground, 1)}
    return {"frames": len(frames), "bytes": size, **found, **pictures_ms}


def main() -> None:
    """Measure both pages and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        if asked.run is not None:
            shutil.copytree(asked.run, run, ignore=shutil.ignore_patterns("cache", "*.lock"))
        else:
            run_frames(run)
        result = {
            "benchmark": "page",
            "versions": versions(),
            "queue": queue_costs(Path(scratch) / "queue"),
            "experiment": experiment_costs(run),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
