"""The experiment that every adapter runs, on a recorded image, and again on the frames that gave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.integration.instruments.anywhere import check, run_anywhere
from tests.unit.instruments.image_files import dm_file


def test_a_recorded_image(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :200]
    image = np.random.default_rng(5).poisson(50 + 400 * np.exp(-((rows - 60) ** 2 + (columns - 140) ** 2) / 1500))
    path = dm_file(tmp_path / "island.dm4", image.astype("u2"), (1.0, "nm"))
    config = {"file": path, "dwell_time_us": 4000.0, "current_pa": 50.0, "counted": True, "beam_energy_ev": 60e3}
    answer = run_anywhere("replay", config)
    check(answer)
    assert answer.electrons > 0
    assert answer.brightness["counts_per_px"] > 50 / 4, "a quarter of the exposure sees a quarter of the counts"
