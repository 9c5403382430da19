"""What is known of an experiment before its first frame: what every file tells of it, and the disk it may take.

Neighbour: `session`, which runs it.
"""

from __future__ import annotations

from math import ceil, prod, sqrt
from typing import Any, Final

from instruments import Capabilities, Mode
from instruments.footprints import CELL_NM
from instruments.units import ANGSTROM2_PER_NM2, electrons
from orchestrator.spec import ExperimentSpec
from orchestrator.versions import versions

_BYTES_PER_PX: Final = 2.0
_FRAME_OVERHEAD_BYTES: Final = 200_000.0
_MOST_FRAMES: Final = 500


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


def bytes_needed(spec: ExperimentSpec, capabilities: Capabilities) -> int:
    """Disk a run may take: every frame at full size, two detectors, as many as budget and space allow (capped).

    Where the experiment may use a camera at scan points, each frame is one of its scans, and nothing of it compresses.
    """
    scan = spec.instrument.scan
    size = 512 * 512 * scan.subframe_count * 2 * _BYTES_PER_PX / 4 + _FRAME_OVERHEAD_BYTES
    frames = spec.budget.frames or _MOST_FRAMES
    detector_px = max(map(_detector_px, _modes(spec, capabilities)), default=0)
    if detector_px:
        points = _side_px(spec) ** 2
        size += points * scan.subframe_count * detector_px * _BYTES_PER_PX
        if spec.budget.frames is None:
            frames = min(frames, _affordable_frames(spec, points))
    return int(frames * size)


def _affordable_frames(spec: ExperimentSpec, points: int) -> int:
    """The most scans of so many points that time, electrons and dose pay for, each at the least it can cost."""
    dwell_us = min(_values(spec, "dwell_time_us"), default=0.0)
    current_pa = min(_values(spec, "probe_current_pa"), default=0.0)
    frame_s = points * dwell_us * 1e-6
    budget = spec.budget
    paid = [
        (budget.instrument_time_s, frame_s),
        (budget.electrons, electrons(current_pa, frame_s)),
        (_dose_electrons(spec), electrons(current_pa, frame_s)),
    ]
    return min((ceil(most / each) for most, each in paid if most is not None and each > 0), default=_MOST_FRAMES)


def _dose_electrons(spec: ExperimentSpec) -> float | None:
    """What the dose limit allows on all that frames of the space can touch; None where either has no bound."""
    dose_e_per_a2, field_nm = spec.safety.max_dose_e_per_a2, max(_values(spec, "field_of_view_nm"), default=None)
    spans = [_values(spec, name) for name in ("x_nm", "y_nm")]
    if dose_e_per_a2 is None or field_nm is None or not all(spans):
        return None
    reach_nm = sqrt(2) * field_nm + 2 * CELL_NM  # of a turned field, in whole cells
    width_nm, height_nm = (max(span) - min(span) + reach_nm for span in spans)
    return dose_e_per_a2 * width_nm * height_nm * ANGSTROM2_PER_NM2


def _modes(spec: ExperimentSpec, capabilities: Capabilities) -> list[Mode]:
    """Those the space or `fixed` names, else the instrument's first."""
    named = _values(spec, "mode")
    return [mode for mode in capabilities.modes if mode.name in named] if named else list(capabilities.modes[:1])


def _detector_px(mode: Mode) -> int:
    """Pixels of the patterns that each scan point gets; 0 for a mode without."""
    if mode.is_at_once or mode.kind == "stem":
        return 0
    return sum(prod(detector.shape_px) for detector in mode.detectors if detector.shape_px is not None)


def _side_px(spec: ExperimentSpec) -> int:
    """Scan points a side of the widest field at the finest pixel; 512 where neither is said."""
    fields, pixels = _values(spec, "field_of_view_nm"), _values(spec, "pixel_size_nm")
    side = max(1, round(max(fields) / min(pixels))) if fields and pixels else 512
    return min(side, spec.instrument.scan.max_shape_px)


def _values(spec: ExperimentSpec, name: str) -> list[Any]:
    """What a point may have of this: the choices, or the ends, of the space; else the fixed one."""
    if name in spec.search_space:
        entry = spec.search_space[name]
        return list(entry.get("choices") or [entry[end] for end in ("low", "high") if end in entry])
    return [spec.instrument.fixed[name]] if name in spec.instrument.fixed else []
