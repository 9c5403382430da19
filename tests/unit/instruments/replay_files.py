"""Synthetic recorded spectrum images with known rates, for tests of the replay and of what maps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from instruments import AcquireFrame, Optics, ScanPattern, StagePosition

PIXEL_NM = 10.0
FULL_DWELL_US = 1000.0
CURRENT_PA = 100.0
LINES = ("Fe_Ka", "Mg_Ka")


def rates(side_px: int, seed: int = 7) -> dict[str, np.ndarray]:
    """Expected recorded counts a point: blobs; Fe follows the survey, Mg does not."""
    rng = np.random.default_rng([seed, side_px])
    fields = [gaussian_filter(rng.normal(size=(side_px, side_px)), 5.0, mode="wrap") for _ in range(2)]
    return {line: np.exp(1.2 * field / field.std() - 1.5) for line, field in zip(LINES, fields, strict=True)}


def write_record(path: Path, side_px: int = 64, seed: int = 7, **changed: np.ndarray | float) -> Path:
    """An .npz as the reader wants it; `changed` replaces or adds arrays."""
    rng = np.random.default_rng([seed, side_px, 1])
    truth = rates(side_px, seed)
    survey = 2e4 + 1e4 * np.log(truth["Fe_Ka"]) + rng.normal(0, 500, (side_px, side_px))
    arrays: dict[str, np.ndarray | float] = {
        "survey": np.clip(np.rint(survey), 0, 65535).astype(np.uint16),
        "pixel_size_nm": PIXEL_NM,
        **{f"counts_{line}": rng.poisson(rate).astype(np.uint16) for line, rate in truth.items()},
    }
    np.savez_compressed(path, **(arrays | changed))
    return path


def config(path: Path, **changed: object) -> dict[str, object]:
    """Configuration of a replay of that file."""
    given = {"file": path, "full_dwell_time_us": FULL_DWELL_US, "nominal_current_pa": CURRENT_PA, "seed": 5}
    return given | changed


def command(
    action_id: str,
    x_nm: float = 0.0,
    y_nm: float = 0.0,
    side_px: int = 4,
    *,
    mode: str = "eds",
    dwell_time_us: float = FULL_DWELL_US,
    pixel_nm: float = PIXEL_NM,
    current_pa: float = CURRENT_PA,
    subframe_count: int = 1,
    rotation_deg: float = 0.0,
    stage: StagePosition | None = None,
) -> AcquireFrame:
    """A square block of recorded points."""
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        stage=stage or StagePosition(),
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=10, probe_current_pa=current_pa),
        scan=ScanPattern(
            field_of_view_nm=side_px * pixel_nm,
            shape_px=(side_px, side_px),
            dwell_time_us=dwell_time_us,
            rotation_deg=rotation_deg,
            beam_shift_x_nm=x_nm,
            beam_shift_y_nm=y_nm,
        ),
        mode=mode,
        subframe_count=subframe_count,
    )
