"""What is known of an experiment before its first frame: what every file tells of it, and the disk it may take.

Neighbour: `session`, which runs it.
"""

from __future__ import annotations

from typing import Any

from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions

_BYTES_PER_PX = 2.0
_FRAME_OVERHEAD_BYTES = 200_000.0


def context_of(spec: ExperimentSpec) -> dict[str, Any]:
    """What every frame's file tells of the experiment."""
    return {
        "specimen": specimen_context(spec),
        "experiment": spec.name,
        "proposal": spec.proposal,
        "labels": spec.labels,
        "versions": versions(),
    }


def specimen_context(spec: ExperimentSpec) -> dict[str, Any]:
    """The specimen believed, with its elements."""
    document = spec.specimen.model_dump(mode="json")
    if document["atom_types"] is None and spec.specimen.structure is not None:
        from simulation.specimens import read_structure

        document["atom_types"] = ", ".join(sorted(set(read_structure(spec.specimen.structure).get_chemical_symbols())))
    return document


def bytes_needed(spec: ExperimentSpec) -> int:
    """Disk a run may take: every frame at full size, two detectors, as many as budget and space allow (capped)."""
    scan = spec.instrument.scan
    frames = spec.budget.frames or 500
    size = 512 * 512 * scan.subframe_count * 2 * _BYTES_PER_PX / 4 + _FRAME_OVERHEAD_BYTES
    return int(frames * size)
