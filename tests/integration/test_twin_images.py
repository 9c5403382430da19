"""What the twin's frames show: the lattice where it stands, losses, contamination, drift, current, counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from instruments import Park, StagePosition
from instruments.units import electrons
from simulation.world.clock import Drift
from simulation.world.config import SimulatedConfig
from simulation.world.frame_images import Imaging
from tests.integration.twin_bench import STRUCTURE, frame, survey, twin


def test_read_back_follows_the_decaying_current(image_cache: Path) -> None:
    microscope = twin(image_cache)
    microscope.rebuild([Park(action_id="wait", duration_s=3600.0)])
    expected = 30.0 * (1 - microscope.truth()["emission_decay_fraction"] * (1 - np.exp(-3.0)))
    taken = microscope.acquire(frame("a"))
    assert 0.1 <= microscope.truth()["emission_decay_fraction"] <= 0.3
    assert taken.state.measured_current_pa == pytest.approx(expected, rel=0.031)
    assert taken.dose_e_per_a2 == pytest.approx(electrons(expected, 2e-6) * 48 * 64 / 1200, rel=0.031)
    readings = []
    for n in range(200):
        microscope.rebuild([Park(action_id=f"p{n}")])
        readings.append((microscope.read_state().measured_current_pa or 0.0) / expected)
    assert np.mean(readings) == pytest.approx(1, abs=0.004)
    assert np.std(readings) == pytest.approx(0.01, rel=0.2)


def test_counts_are_poisson_about_the_noiseless_image(image_cache: Path) -> None:
    microscope = twin(image_cache)
    taken = microscope.acquire(frame("a", scan={"shape_px": (128, 128), "dwell_time_us": 4.0}, subframe_count=3))
    exposure = microscope.exposure("a")
    assert taken.counts["maadf"].shape == (3, 128, 128)
    assert taken.counts["maadf"].dtype == np.uint16
    for subframe in range(3):
        per_px = exposure.true_electrons[subframe] / 128**2
        for name, image in microscope.noiseless("a", subframe).items():
            mean = image.astype(float) * per_px
            pull = (taken.counts[name][subframe] - mean) / np.sqrt(mean)
            assert abs(pull.mean()) < 4 / 128
            assert pull.var() == pytest.approx(1, abs=4 * np.sqrt(2.5) / 128)


def test_images_match_the_lattice_images_point_by_point(image_cache: Path) -> None:
    """A perfect clean world: each noiseless pixel is the periodic image at its true place, by another interpolation."""
    microscope = twin(
        image_cache, clean_fraction=0.9, densities_per_nm2={}, window_min_nm=100, window_max_nm=400, afterglow_us=0.0,
        contamination_nm=1e-6,
    )  # fmt: skip
    command = frame("a", scan={"rotation_deg": 20.0, "beam_shift_x_nm": 7.0})
    microscope.rebuild([command])
    renderer, exposure = microscope._renderer, microscope.exposure("a")
    x_nm, y_nm = renderer._grid(exposure, 1).points()
    crystal = microscope.world.crystal
    coherence = microscope.world.beam.coherence(30.0)
    imaging = Imaging(40.0, 100.0, renderer.true_optics(exposure), coherence)
    cell = renderer._images.cell_image(40.0, 100.0, imaging.optics, imaging.coherence)
    rows, columns = cell.shape
    expected = map_coordinates(
        cell,
        [
            (y_nm - crystal.origin_y_nm) / crystal.cell_height_nm * rows,
            (x_nm - crystal.origin_x_nm) / crystal.cell_width_nm * columns,
        ],
        order=5,
        mode="grid-wrap",
    )
    np.testing.assert_allclose(microscope.noiseless("a", 1)["maadf"], expected, atol=2e-4 * expected.std())


def test_a_beam_made_vacancy_appears_at_a_sub_frame_boundary(image_cache: Path) -> None:
    microscope = twin(
        image_cache, excitation_60kv_barn=1e5, excitation_lognormal_factor=1.0, clean_fraction=0.9,
        densities_per_nm2={}, window_min_nm=100, window_max_nm=400, line_jitter_nm=0.0, contamination_nm=1e-6,
    )  # fmt: skip
    microscope.acquire(frame("a", subframe_count=4))
    births = microscope.truth()["beam_made"]
    born = births["subframe"] == 2
    assert born.any()
    assert set(births["subframe"]) <= {0, 1, 2, 3, 4}
    change = microscope.noiseless("a", 2)["maadf"] - microscope.noiseless("a", 1)["maadf"]
    row, column = np.unravel_index(np.argmin(change), change.shape)
    x_nm, y_nm = (column - 31.5) / 16, (row - 23.5) / 16
    shift = microscope.truth()["actions"]["a"]["displacement_nm"]
    distance = np.hypot(births["x_nm"] - shift[0] - x_nm, births["y_nm"] - shift[1] - y_nm)[born]
    assert distance.min() < 0.1


def test_contamination_is_bright_in_maadf_and_hides_the_lattice(image_cache: Path) -> None:
    microscope = twin(image_cache)
    microscope.acquire(survey("a"))
    image, truth = microscope.noiseless("a", 0)["maadf"], microscope.truth()
    dx, dy = truth["actions"]["a"]["displacement_nm"]
    positions = (np.arange(64) - 31.5) * 60 / 64
    clean = microscope.world.landscape.clean_at(*np.meshgrid(positions + dx, positions + dy))
    assert image[~clean].mean() > 1.1 * image[clean].mean()


def test_drift_moves_the_specimen_as_told_and_stage_moves_miss() -> None:
    microscope = twin()
    microscope.rebuild(
        [
            frame("a"),
            Park(action_id="w", duration_s=600),
            frame("b"),
            frame("c", stage=StagePosition(x_nm=10.0)),
            Park(action_id="v", duration_s=180),
            frame("d", stage=StagePosition(x_nm=10.0)),
        ]
    )
    at = {name: np.array(action["displacement_nm"]) for name, action in microscope.truth()["actions"].items()}
    assert np.hypot(*at["a"]) < 0.05
    assert 1 < np.hypot(*(at["b"] - at["a"])) < 25
    assert 45 < np.hypot(*(at["c"] - at["b"])) < 305
    assert np.hypot(*(at["d"] - at["c"])) < 3 * (3 + 1.5)
    assert microscope.read_state().stage.x_nm == 10.0


def test_rms_drift_speed_is_the_stated_one() -> None:
    speeds = []
    for seed in range(40):
        drift = Drift.draw(SimulatedConfig(structure=STRUCTURE, seed=seed))
        times_s = np.arange(0.0, 1200.0, 10.0)
        vx, vy = (np.diff(axis.at(times_s)) * 6 for axis in (drift.x, drift.y))
        speeds.append(np.mean(vx**2 + vy**2))
    assert np.sqrt(np.mean(speeds)) == pytest.approx(1.0, rel=0.12)


def test_the_frame_tells_what_a_catalogue_wants_and_nothing_hidden(image_cache: Path) -> None:
    taken = twin(image_cache).acquire(frame("a"))
    assert taken.context["is_simulation"]
    assert taken.context["electrons_per_px_subframe"] == pytest.approx(electrons(30.0, 1e-6), rel=0.031)
    assert taken.state.optics.aberrations.c30_nm == 0
    assert taken.state.optics.camera_length_mm == 160.0
    assert taken.state.coherence is not None
    assert taken.state.coherence.source_size_nm == pytest.approx(0.08 * np.sqrt(0.5))
    assert "focus_offset" not in str(taken.context)
