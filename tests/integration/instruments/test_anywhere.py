"""The simulated microscope runs the experiment that every other adapter runs in its own test."""

from __future__ import annotations

from pathlib import Path

from tests.integration.instruments.anywhere import check, run_anywhere


def test_the_simulated_microscope(image_cache: Path) -> None:
    config = {
        "width_nm": 60, "height_nm": 60, "window_min_nm": 8, "window_max_nm": 20, "clean_fraction": 0.4,
        "phonon_count": 1, "max_dwell_time_us": 1000,
    }  # fmt: skip
    answer = run_anywhere("simulated", config, image_cache)
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
    assert answer.electrons > 0
