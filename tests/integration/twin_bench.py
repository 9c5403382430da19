"""The twin as its tests open it, and the frames they take of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from instruments import AcquireFrame, Optics, ScanPattern, SetAxes, StagePosition
from simulation.microscope import SimulatedMicroscope, open_simulated

STRUCTURE: Final = str(Path(__file__).resolve().parents[2] / "examples" / "structures" / "WSe2.extxyz")
STILL: Final[dict[str, float]] = {
    "drift_nm_per_min": 0.0, "line_jitter_nm": 0.0, "focus_drift_nm_per_min": 0.0, "current_reading_fraction": 0.0,
    "backlash_min_nm": 0.0, "backlash_max_nm": 0.0, "move_drift_nm_per_min": 0.0, "move_drift_floor_nm_per_min": 0.0,
}  # fmt: skip


def twin(cache: str | Path | None = None, **changes: Any) -> SimulatedMicroscope:
    """A small world of WSe2; one thermal configuration."""
    folder = None if cache is None else str(cache)
    config: dict[str, Any] = {
        "structure": STRUCTURE, "seed": 3, "phonon_count": 1, "cache_folder": folder, "width_nm": 60.0,
        "height_nm": 60.0,
    }  # fmt: skip
    return open_simulated(**(config | changes))


def frame(action_id: str, **changes: Any) -> AcquireFrame:
    """4 nm of it, the fields of scan, optics and stage as they are named in `changes`."""
    scan: dict[str, Any] = {"field_of_view_nm": 4.0, "shape_px": (48, 64), "dwell_time_us": 1.0}
    optics: dict[str, Any] = {
        "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5, "probe_current_pa": 30.0,
    }  # fmt: skip
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        stage=changes.get("stage", StagePosition()),
        optics=Optics(**(optics | changes.get("optics", {}))),
        scan=ScanPattern(**(scan | changes.get("scan", {}))),
        mode=changes.get("mode", "maadf"),
        subframe_count=changes.get("subframe_count", 2),
    )


def survey(action_id: str, **changes: Any) -> AcquireFrame:
    """All of the world, coarsely."""
    scan = {"field_of_view_nm": 60.0, "shape_px": (64, 64), "dwell_time_us": 5.0}
    return frame(action_id, **(changes | {"scan": scan | changes.get("scan", {})}))


def at_once(action_id: str, mode: str, *, field_nm: float, side_px: int, **changes: Any) -> AcquireFrame:
    """By the camera, a fifth of a second long."""
    scan = {"field_of_view_nm": field_nm, "shape_px": (side_px, side_px), "dwell_time_us": 2e5, "at_once": True}
    return frame(action_id, mode=mode, subframe_count=1, **(changes | {"scan": scan | changes.get("scan", {})}))


def setting(action_id: str, **values: float | str) -> SetAxes:
    """Axes set alone; a double underscore stands for the dot."""
    return SetAxes(action_id=action_id, values={name.replace("__", "."): value for name, value in values.items()})
