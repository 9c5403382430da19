"""The simulated microscope as the kit is tried on it: a steady world, and waits that a busy machine keeps to."""

from __future__ import annotations

from pathlib import Path

from instruments.conformance import Conditions, Report
from tests.integration.instrument_processes import twin_config

UNHURRIED = Conditions(stage_x_nm=0.0, stage_y_nm=0.0, stop_exposure_s=40.0, stop_margin_s=5.0, patience_s=120.0)


def steady_config(cache: Path) -> dict[str, object]:
    """A world without drift, whose stage goes where it is sent, and whose exposures take their time."""
    return twin_config(
        cache, width_nm=160.0, height_nm=160.0, backlash_min_nm=0.0, backlash_max_nm=0.0, drift_nm_per_min=0.0,
        move_drift_nm_per_min=0.0, move_drift_floor_nm_per_min=0.0, max_dwell_time_us=1000.0, time_scale=0.3,
    )  # fmt: skip


def failed(report: Report) -> set[str]:
    """Names of the checks that failed."""
    return {finding.check for finding in report.findings if finding.verdict == "failed"}
