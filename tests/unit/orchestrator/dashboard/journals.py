"""Experiments with a journal of their own, written through the real catalogue and queue, for tests of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.catalogue import Catalogue, Intent
from orchestrator.decisions import Decision
from orchestrator.queue import Claim, ExperimentQueue, QueueEntry
from orchestrator.spec import ExperimentSpec
from tests.unit.orchestrator import microscope_frames as microscope

ROOT = Path(__file__).resolve().parents[4]
SPEC: dict[str, Any] = ExperimentSpec.from_yaml(ROOT / "tests/integration/specs/small_raster.yaml").model_dump(
    mode="json"
)


def submitted(queue: ExperimentQueue, name: str = "Small raster", **more: Any) -> QueueEntry:
    """One more in the queue."""
    return queue.submit(name=name, spec={**SPEC, "name": name}, seed=3, options={"engine": "local"}, **more)


def started(catalogue: Catalogue, queue: ExperimentQueue, name: str = "Small raster", **more: Any) -> Claim:
    """One that runs in the hands of `tester`."""
    submitted(queue, name, **more)
    claim = queue.claim("simulated", "tester", 600.0)
    assert claim is not None
    return claim


def intend(catalogue: Catalogue, experiment: str, seq: int, **changes: Any) -> Intent:
    """A decision on its way to the microscope."""
    asked = microscope.command(f"{experiment}-a{seq:06d}").model_copy(update=changes)
    return catalogue.intend(experiment, Decision.of(microscope.suggestion(seq), experiment, seq), asked)


def measured(catalogue: Catalogue, experiment: str, seq: int, **changes: Any) -> Intent:
    """A decision with its frame, measured and scored."""
    intent = intend(catalogue, experiment, seq, **changes)
    catalogue.keep(intent, microscope.frame(intent.command, seed=seq))
    score = {"value": float(seq), "std": 0.1, "statement": f"{seq} sites seen", "outcomes": {}}
    catalogue.observe(intent, {"score": score}, b"")
    return intent
