"""The fitted twin's parallel beam: images and diffraction patterns, counted, debited, damaged and made again."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from instruments import AcquireFrame, CommandRefused, Optics, SafetyEnvelope, ScanPattern, SetAxes
from instruments.guards import GuardedMicroscope
from instruments.units import electrons
from simulation.electron import wavelength_angstrom
from simulation.microscope import SimulatedMicroscope
from simulation.world.at_once import MRAD_PER_PX, ParallelBeam
from simulation.world.crystal import Site
from tests.integration import twin_bench
from tests.integration.twin_bench import STILL

LATTICE_ANGSTROM = 3.282


def twin(**changes: Any) -> SimulatedMicroscope:
    settings: dict[str, Any] = {"fittings": True, "contamination_nm": 0.01, "focus_offset_nm": 0.0, **STILL}
    return twin_bench.twin(**(settings | changes))


def exposure(
    action_id: str, mode: str, *, field_nm: float = 4.0, side_px: int = 64, dwell_us: float = 2e5, **scan: Any
) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0, defocus_nm=8.0),
        scan=ScanPattern(
            field_of_view_nm=field_nm, shape_px=(side_px, side_px), dwell_time_us=dwell_us,
            **{"at_once": True, **scan},
        ),
        mode=mode,
    )  # fmt: skip


def put(microscope: SimulatedMicroscope, action_id: str, **values: Any) -> None:
    named = {name.replace("__", "."): value for name, value in values.items()}
    microscope.execute(SetAxes(action_id=action_id, values=named))


def test_a_pattern_has_the_spots_of_the_layer_where_bragg_says() -> None:
    """Rings of six at wavelength / (a sqrt(3)/2) and wavelength / (a/2); their angle follows from the camera length."""
    microscope = twin()
    frame = microscope.acquire(exposure("pattern", "diffraction", side_px=256))
    pattern = microscope.noiseless("pattern", 0)["camera"]
    row, column = frame.context["pattern_centre_px"]
    assert frame.context["pattern_pixel_mrad"] == MRAD_PER_PX == pytest.approx(0.05 / 200 * 1e3)
    angle_mrad = np.hypot(np.arange(256)[:, None] - row, np.arange(256)[None, :] - column) * MRAD_PER_PX
    for spacing_angstrom in (LATTICE_ANGSTROM * 3**0.5 / 2, LATTICE_ANGSTROM / 2):
        bragg_mrad = wavelength_angstrom(60e3) / spacing_angstrom * 1e3
        ring = np.where(np.abs(angle_mrad - bragg_mrad) < 3.0, pattern, 0.0)
        assert angle_mrad.flat[np.argmax(ring)] == pytest.approx(bragg_mrad, abs=0.6)
        elsewhere = pattern[np.abs(angle_mrad - bragg_mrad - 4.5) < 1.0].mean()
        assert ring.max() > 10 * elsewhere
    selected_share = 4.0**2 / 100.0**2
    assert 0.8 * selected_share < pattern.sum() < selected_share
    amount = electrons(30.0, 0.2)
    assert frame.counts["camera"].sum() == pytest.approx(amount * pattern.sum(), rel=0.05)


def test_an_image_counts_the_dose_and_shows_the_lattice() -> None:
    microscope = twin()
    frame = microscope.acquire(exposure("image", "tem"))
    expected = microscope.noiseless("image", 0)["camera"]
    each_e_per_px = electrons(30.0, 0.2) * (4.0 / 64) ** 2 / (pi / 4 * 100.0**2)
    truth = microscope.exposure("image").true_electrons[0]
    assert truth * expected.mean() == pytest.approx(each_e_per_px, rel=0.05)
    assert frame.total("camera").mean() == pytest.approx(truth * expected.mean(), rel=0.05)
    assert frame.dose_e_per_a2 == pytest.approx(truth / (pi / 4 * 1000.0**2), rel=1e-6)
    assert frame.counts["camera"].dtype == np.uint32
    power = np.abs(np.fft.fft2(expected - expected.mean()))
    frequency = np.hypot(np.fft.fftfreq(64, 4.0 / 64)[:, None], np.fft.fftfreq(64, 4.0 / 64)[None, :])
    strongest_per_nm = frequency.flat[np.argmax(power)]
    assert strongest_per_nm == pytest.approx(20 / (LATTICE_ANGSTROM * 3**0.5), abs=0.25)
    put(microscope, "in", objective_aperture="10 mrad")  # no spot of the layer passes
    microscope.acquire(exposure("without", "tem"))
    assert microscope.noiseless("without", 0)["camera"].std() < 0.5 * expected.std()


def test_without_a_beam_or_a_camera_nothing_is_counted() -> None:
    microscope = twin()
    assert not microscope.acquire_dark(exposure("dark", "tem")).counts["camera"].any()
    put(microscope, "screen", screen="down")
    assert not microscope.acquire(exposure("behind", "tem", side_px=8, field_nm=1.0)).counts["camera"].any()
    put(microscope, "out", screen="up", camera__position="out")
    assert not microscope.acquire(exposure("out-frame", "tem", side_px=8, field_nm=1.0)).counts["camera"].any()


def test_the_lit_disc_is_damaged_and_debited() -> None:
    """The guard's highest dose is that of the disc, not of the field; atoms are lost nowhere else."""
    microscope = twin(excitation_60kv_barn=800.0, excitation_lognormal_factor=1.0)
    put(microscope, "beam", illuminated_nm=20.0)
    guarded = GuardedMicroscope(microscope, SafetyEnvelope(max_dose_e_per_a2=1e6))
    frame = guarded.acquire(exposure("burn", "tem", field_nm=1.0, side_px=8, dwell_us=1e6, illuminated_nm=20.0))
    disc_angstrom2 = pi / 4 * 200.0**2
    assert frame.electrons == pytest.approx(electrons(30.0, 1.0), rel=1e-3)
    assert guarded.ledger.max_e_per_a2 == pytest.approx(frame.electrons / disc_angstrom2, rel=0.02)
    truth = microscope.truth()
    assert truth["electrons"] == pytest.approx(frame.electrons, rel=1e-6)
    assert truth["dose_max_e_per_a2"] == pytest.approx(frame.electrons / disc_angstrom2, rel=0.02)
    lost = truth["beam_made"]
    assert len(lost["x_nm"]) > 20
    assert np.hypot(lost["x_nm"], lost["y_nm"]).max() < 10.5


REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("tem", {"field_nm": 17.0}, "above 16 nm"),
    ("tem", {"illuminated_nm": 40.0}, "set that axis"),
    ("tem", {"at_once": False}, "set scan.at_once"),
    ("tem", {"rotation_deg": 5.0}, "does not turn"),
    ("tem", {"dwell_us": 3e6}, "outside"),
    ("diffraction", {"field_nm": 11.0}, "above 10 nm"),
    ("maadf", {}, "leave scan.at_once out"),
    ("maadf", {"at_once": False, "dwell_us": 100.0}, "of a scan is above 20 us"),
)


def test_what_cannot_be_is_refused() -> None:
    microscope = twin()
    for mode, changes, says in REFUSED:
        with pytest.raises(CommandRefused, match=says):
            microscope.acquire(exposure("refused", mode, **changes))
    assert microscope.outcome("refused") == "not_started"
    put(microscope, "narrow", illuminated_nm=5.0)
    with pytest.raises(CommandRefused, match="set illuminated_nm wider"):
        microscope.acquire(exposure("beside", "tem"))


def test_the_unfitted_twin_has_no_parallel_beam() -> None:
    card = twin(fittings=False).capabilities()
    longest, lengths = card.axis("dwell_time_us"), card.axis("camera_length_mm")
    assert [mode.kind for mode in card.modes] == ["stem", "stem"]
    assert longest is not None
    assert lengths is not None
    assert (longest.maximum, lengths.maximum) == (20.0, 160.0)


def test_the_film_belongs_to_the_place() -> None:
    """90 carbon atoms a cubic nanometre of the landscape's thickness, at the same places whenever they are seen."""
    world = twin(contamination_nm=6.0).world
    beam = ParallelBeam(world)
    cells = [(column, row) for column in range(-6, 6) for row in range(-6, 6)]
    found = [beam.film_atoms(*cell) for cell in cells]
    middles = np.array(cells).T + 0.5
    expected = 90 * float(world.landscape.thickness_at(*middles).sum())
    count = sum(len(x) for x, _ in found)
    assert count == pytest.approx(expected, abs=5 * expected**0.5 + 1)
    assert all(np.array_equal(beam.film_atoms(*cell)[0], x) for cell, (x, _) in zip(cells, found, strict=True))


def test_columns_are_seen_where_they_stand() -> None:
    """Behind a lens without azimuths an image is level at every column of threefold symmetry; y goes with the rows."""
    straight = {"residual_c12_nm": 0.0, "residual_c21_nm": 0.0, "residual_c23_nm": 0.0}
    microscope = twin(densities_per_nm2={}, rms_displacement_nm=0.0, **straight)
    command = exposure("columns", "tem", side_px=96, field_nm=3.0, beam_shift_x_nm=0.37, beam_shift_y_nm=-0.21)
    microscope.acquire(command)
    image = microscope.noiseless("columns", 0)["camera"]
    down, across = np.gradient(image / image.std())
    crystal = microscope.world.crystal
    sites = [Site(column, i, j) for column in range(len(crystal.columns)) for i in range(-9, 9) for j in range(-9, 9)]
    x_nm, y_nm = np.array([crystal.position_nm(site) for site in sites]).T - np.array([[0.37], [-0.21]])
    seen = np.maximum(np.abs(x_nm), np.abs(y_nm)) < 1.3
    places = np.array([y_nm[seen], x_nm[seen]]) * 96 / 3.0 + 47.5
    slopes = np.hypot(*(map_coordinates(slope, places, order=1) for slope in (down, across)))
    assert len(slopes) > 100
    assert np.sqrt(np.mean(slopes**2)) < 0.15 * np.sqrt(np.mean(down**2 + across**2))
