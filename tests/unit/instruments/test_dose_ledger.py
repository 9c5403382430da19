"""Doses on 1 nm cells: exact where it can be, conserved everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments import AcquireFrame, DoseLedger, Optics, ScanPattern, StagePosition
from instruments.footprints import concentration, disc, first_pixel_nm, footprint, rectangle, spot
from instruments.regions import Box


def scan(
    width_nm: float, height_nm: float, rotation_deg: float = 0.0, x_nm: float = 0.0, y_nm: float = 0.0
) -> ScanPattern:
    columns = round(max(1000, 20 * width_nm))  # pixels that light evenly
    rows = max(1, round(columns * height_nm / width_nm))
    return ScanPattern(
        field_of_view_nm=width_nm, shape_px=(rows, columns), dwell_time_us=1, rotation_deg=rotation_deg,
        beam_shift_x_nm=x_nm, beam_shift_y_nm=y_nm,
    )  # fmt: skip


@settings(max_examples=40)
@given(
    st.floats(-200, 200),
    st.floats(-200, 200),
    st.floats(0.05, 90),
    st.floats(0.05, 90),
    st.sampled_from([0.0, 90.0, 17.0]),
)
def test_overlap_is_the_area_and_no_cell_holds_more_than_itself(
    x_nm: float, y_nm: float, width_nm: float, height_nm: float, rotation_deg: float
) -> None:
    pattern = scan(width_nm, height_nm, rotation_deg)
    marks = footprint(StagePosition(x_nm=x_nm, y_nm=y_nm), pattern)
    assert (marks.overlap_nm2 >= 0).all()
    if rotation_deg == 0 or marks.overlap_nm2.sum() > 0:
        assert marks.overlap_nm2.sum() == pytest.approx(pattern.area_nm2, rel=1e-9)
    if rotation_deg == 0:
        assert marks.overlap_nm2.max() <= 1 + 1e-9


@settings(max_examples=40)
@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0.1, 30), st.floats(0.1, 30), st.floats(-400, 400))
def test_two_halves_touch_what_the_whole_does(
    x_nm: float, y_nm: float, width_nm: float, height_nm: float, rotation_deg: float
) -> None:
    """Cell by cell, to rounding: what lies inside is whole, what lies on the border has its share."""
    turn = np.radians(rotation_deg)
    whole, *halves = (
        DoseLedger(),
        *(
            rectangle(x_nm + side * np.cos(turn), y_nm + side * np.sin(turn), width_nm / 2, height_nm, rotation_deg)
            for side in (-width_nm / 4, width_nm / 4)
        ),
    )
    whole.add(rectangle(x_nm, y_nm, width_nm, height_nm, rotation_deg), 100 * width_nm * height_nm)
    for half in halves:
        whole.add(half, -50 * width_nm * height_nm)
    np.testing.assert_allclose(whole.mean_map(-40, -40, 80, 80), 0, atol=1e-7)
    assert max(half.overlap_nm2.max() for half in halves) <= 1


def test_a_disc_has_in_each_cell_what_points_say() -> None:
    for radius_nm, x_nm, y_nm in ((0.3, 0.1, 0.9), (2.0, 0.0, 0.0), (3.7, -1.4, 0.3)):
        marks = disc(x_nm, y_nm, 2 * radius_nm)
        rows, columns = marks.overlap_nm2.shape
        steps = (np.arange(40) + 0.5) / 40
        x = (marks.first_column + np.arange(columns))[:, None] + steps - x_nm
        y = (marks.first_row + np.arange(rows))[:, None] + steps - y_nm
        inside = np.hypot(x.ravel()[None, :], y.ravel()[:, None]) < radius_nm
        points = inside.reshape(rows, 40, columns, 40).mean(axis=(1, 3))
        np.testing.assert_allclose(marks.overlap_nm2, points, atol=0.02)
        assert marks.overlap_nm2.sum() == pytest.approx(np.pi * radius_nm**2, rel=1e-8)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.02, 0.4), st.floats(0, 360))
def test_a_small_turned_scan_is_not_lost(x_nm: float, y_nm: float, side_nm: float, rotation_deg: float) -> None:
    """Also one that slips between the points of the sub-grid is on the books."""
    ledger = DoseLedger()
    pattern = ScanPattern(field_of_view_nm=side_nm, shape_px=(4, 4), dwell_time_us=1, rotation_deg=rotation_deg)
    ledger.add(footprint(StagePosition(x_nm=x_nm, y_nm=y_nm), pattern), 1e4)
    assert ledger.electrons == 1e4
    assert ledger.mean_map(-10, -10, 20, 20).sum() * 100 == pytest.approx(1e4)
    assert ledger.max_e_per_a2 >= 1e4 / (side_nm**2 * 100) * (1 - 1e-9)


def test_whole_cells_get_the_flux() -> None:
    ledger = DoseLedger()
    ledger.add(
        footprint(StagePosition(x_nm=0.5), ScanPattern(field_of_view_nm=3, shape_px=(2, 3), dwell_time_us=1)), 6e4
    )
    np.testing.assert_allclose(ledger.mean_map(-2, -2, 5, 4)[1:3, 1:4], 100.0)
    assert ledger.mean_map(-2, -2, 5, 4).sum() * 100 == pytest.approx(6e4)
    assert ledger.max_e_per_a2 == pytest.approx(100.0)


def test_partly_covered_cells_get_their_share_in_the_mean_and_all_of_it_in_the_bound() -> None:
    ledger = DoseLedger()
    ledger.add(footprint(StagePosition(x_nm=0.25, y_nm=0.5), scan(0.5, 1.0)), 5e3)
    assert ledger.mean_map(0, 0, 1, 1)[0, 0] == pytest.approx(50.0)
    assert ledger.max_e_per_a2 == pytest.approx(100.0)


def test_rows_are_y() -> None:
    ledger = DoseLedger()
    ledger.add_point(3.2, -7.9, 400.0)
    window = ledger.mean_map(0, -10, 6, 5)
    assert window.shape == (5, 6)
    assert window[2, 3] == pytest.approx(4.0)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(-300, 300), st.floats(-300, 300), st.floats(1, 80), st.floats(1, 80)), max_size=8))
def test_electrons_are_conserved_across_blocks(rasters: list[tuple[float, float, float, float]]) -> None:
    ledger = DoseLedger()
    for x_nm, y_nm, width_nm, height_nm in rasters:
        ledger.add(footprint(StagePosition(x_nm=x_nm, y_nm=y_nm), scan(width_nm, height_nm)), 1e6)
    assert ledger.electrons == 1e6 * len(rasters)
    assert ledger.mean_map(-400, -400, 800, 800).sum() * 100 == pytest.approx(1e6 * len(rasters), rel=1e-9, abs=1e-6)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(1, 30), st.floats(0, 90)), min_size=1, max_size=6
    )
)
def test_the_bound_is_never_below_the_dose_at_a_point(rasters: list[tuple[float, float, float, float]]) -> None:
    ledger = DoseLedger()
    x, y = np.random.default_rng(0).uniform(-45, 45, (2, 500))
    dose = np.zeros(500)
    for x_nm, y_nm, side_nm, rotation_deg in rasters:
        pattern = scan(side_nm, side_nm, rotation_deg)
        ledger.add(footprint(StagePosition(x_nm=x_nm, y_nm=y_nm), pattern), 1e6)
        angle = np.radians(rotation_deg)
        along = np.cos(angle) * (x - x_nm) + np.sin(angle) * (y - y_nm)
        across = np.cos(angle) * (y - y_nm) - np.sin(angle) * (x - x_nm)
        dose += (np.maximum(np.abs(along), np.abs(across)) < side_nm / 2) * 1e6 / (pattern.area_nm2 * 100)
    assert dose.max() <= ledger.max_e_per_a2 * (1 + 1e-9)


def test_forecast_of_the_peak_is_what_the_peak_becomes() -> None:
    ledger = DoseLedger()
    first, second = (footprint(StagePosition(x_nm=x), scan(20, 20)) for x in (0.0, 7.0))
    ledger.add(first, 4e6)
    forecast = ledger.peak_after(second, 25.0)
    ledger.add(second, 25.0 * 4e4)
    assert forecast == pytest.approx(ledger.max_e_per_a2)
    assert ledger.peak_after(footprint(StagePosition(x_nm=500), scan(20, 20)), 25.0) == 25.0


def test_a_correction_takes_back_what_was_debited() -> None:
    ledger = DoseLedger()
    frame = AcquireFrame(
        action_id="a", deadline_s=1, mode="m", optics=Optics(beam_energy_ev=6e4, semi_convergence_angle_mrad=30),
        scan=scan(10, 10, 20.0),
    )  # fmt: skip
    other = frame.model_copy(update={"scan": scan(7, 3, 77.0, 1.5, 2.5), "stage": StagePosition(alpha_deg=9.0)})
    way = Box(x_min_nm=-1e6, x_max_nm=1e6, y_min_nm=0.0, y_max_nm=0.0)
    for sign in (1, -1):  # taken back in the order they came in, not the other way round
        ledger.add_frame(frame, sign * 1.1e6, sign * 500.0)
        ledger.add_frame(other, sign * 0.7e6, sign * 3.0)
        ledger.add_within(way, sign * 0.3)
        ledger.add_point(1.0, 2.0, sign * 1e11)
    assert ledger.electrons == 0
    assert ledger.max_e_per_a2 == 0
    assert not ledger.mean_map(-250, -250, 500, 500).any()
    assert ledger.window_nm() is None


def test_the_beam_waits_in_the_middle_of_the_first_pixel_of_the_turned_raster() -> None:
    x_nm, y_nm = first_pixel_nm(StagePosition(x_nm=1, y_nm=2), scan(20, 10, 90.0, 100.0, 50.0))
    assert (x_nm, y_nm) == pytest.approx((101 + 5 - 0.01, 52 - 10 + 0.01))  # pixels of 0.02 nm
    alone = ScanPattern(field_of_view_nm=10.0, shape_px=(1, 1), dwell_time_us=1.0, rotation_deg=30.0)
    assert first_pixel_nm(StagePosition(x_nm=1, y_nm=2), alone) == pytest.approx((1, 2))


# --- fields wider than the fine grid


@pytest.mark.parametrize("rotation_deg", [0.0, 30.0])
def test_a_wide_field_is_kept_on_wide_cells_without_losing_an_electron(rotation_deg: float) -> None:
    ledger = DoseLedger()
    pattern = scan(20_000.0, 10_000.0, rotation_deg, x_nm=130.0, y_nm=-77.0)
    marks = footprint(StagePosition(), pattern)
    assert marks.cell_nm == 64
    assert marks.overlap_nm2.sum() == pytest.approx(pattern.area_nm2, rel=1e-9)
    ledger.add(marks, 4e10)
    flux = 4e10 / (pattern.area_nm2 * 100)
    assert ledger.electrons == 4e10
    assert ledger.max_e_per_a2 == pytest.approx(flux)
    np.testing.assert_allclose(ledger.mean_map(100, -100, 50, 50), flux, rtol=1e-5)
    assert ledger.mean_map(200_000, 0, 5, 5).max() == 0
    assert ledger.window_nm() is None


@given(st.floats(-300, 300), st.floats(-300, 300))
@settings(max_examples=20)
def test_wide_and_fine_fields_count_together(x_nm: float, y_nm: float) -> None:
    ledger, here = DoseLedger(), StagePosition()
    wide = footprint(here, scan(6400.0, 6400.0))
    fine = footprint(StagePosition(x_nm=x_nm, y_nm=y_nm), scan(10.0, 10.0))
    spent = {"wide": 6400**2 * 100 * 3.0, "fine": 100 * 100 * 5.0}  # 3 and 5 e/A2
    ledger.add(wide, spent["wide"])
    assert ledger.peak_after(fine, 5.0) == pytest.approx(8.0)
    ledger.add(fine, spent["fine"])
    assert ledger.peak_after(wide, 3.0) == pytest.approx(11.0)
    assert ledger.peak_after(fine, 0.0) == pytest.approx(8.0)
    assert ledger.max_e_per_a2 == pytest.approx(8.0)
    away = footprint(StagePosition(x_nm=50_000.0), scan(10.0, 10.0))
    assert ledger.peak_after(away, 1.0) == pytest.approx(1.0)
    ledger.add(wide, -spent["wide"])
    assert ledger.max_e_per_a2 == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("columns", "field_nm", "together"), [(10, 1000.0, 1), (1, 1000.0, 1), (100, 80.0, 4), (100, 20.0, 0)]
)
def test_pixels_far_apart_are_spots(columns: int, field_nm: float, together: int) -> None:
    """Each holds all its electrons, however large the field is that they are spread over."""
    pattern = ScanPattern(field_of_view_nm=field_nm, shape_px=(columns, columns), dwell_time_us=1000)
    optics = Optics(beam_energy_ev=80e3, semi_convergence_angle_mrad=30, probe_current_pa=50)
    command = AcquireFrame(action_id="a", deadline_s=1e4, optics=optics, scan=pattern, mode="haadf")
    ledger, pixel_electrons = DoseLedger(), 3e5
    ledger.add_frame(command, pixel_electrons * columns**2)
    flux = pixel_electrons / (pattern.pixel_size_nm**2 * 100)
    assert ledger.max_e_per_a2 == pytest.approx(together * pixel_electrons / 100 if together else flux, rel=1e-6)
    ledger.add_frame(command, -pixel_electrons * columns**2)
    assert ledger.max_e_per_a2 == pytest.approx(0, abs=1e-6 * flux)


@pytest.mark.parametrize("rotation_deg", [0.0, 5.0, 26.565, 45.0, 90.0])
@pytest.mark.parametrize("pixel_nm", [0.11, 0.2, 0.27, 1 / 3, 0.499, 0.51, 0.6])
def test_no_cell_gets_more_pixels_than_the_bound_says(pixel_nm: float, rotation_deg: float) -> None:
    """Wherever the raster lies: pixels 0.499 nm apart are nine in some cell of 1 nm2, not four."""
    pattern = ScanPattern(
        field_of_view_nm=100 * pixel_nm, shape_px=(100, 100), dwell_time_us=1, rotation_deg=rotation_deg
    )
    steps = np.arange(-20, 21) * pixel_nm
    offsets = np.random.default_rng(0).uniform(0, pixel_nm, (100, 2, 1))
    offsets[0] = 0.0  # a pixel on the border of a cell
    along, across = np.meshgrid(steps, steps)
    along, across = along.ravel() + offsets[:, 0], across.ravel() + offsets[:, 1]
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    x, y = c * along - s * across, s * along + c * across
    most = ((x >= 0) & (x < 1) & (y >= 0) & (y < 1)).sum(axis=1).max()
    assert most * pixel_nm**2 <= concentration(pattern) * (1 + 1e-9)
    if rotation_deg == 0:
        assert most * pixel_nm**2 == pytest.approx(concentration(pattern)), "and it is no higher than it must be"


def test_what_a_specimen_got_before_counts_where_it_fell_and_in_no_sum() -> None:
    before = DoseLedger()
    before.add(spot(0.5, 0.5), 700.0)
    ledger = DoseLedger(earlier=before)
    ledger.add(spot(0.5, 0.5), 200.0)
    ledger.add(spot(5.5, 0.5), 100.0)
    assert ledger.peak_after(spot(0.5, 0.5), 1.0) == pytest.approx(10.0)
    assert ledger.peak_after(spot(5.5, 0.5), 1.0) == pytest.approx(2.0)
    assert (ledger.electrons, ledger.max_e_per_a2) == pytest.approx((300.0, 2.0))
    before.add_within(Box(x_min_nm=-1e6, x_max_nm=1e6, y_min_nm=-1e6, y_max_nm=1e6), 300.0)
    assert ledger.peak_after(spot(5.5, 0.5), 1.0) == pytest.approx(5.0)


def test_a_debit_taken_back_leaves_no_electrons() -> None:
    ledger, rng = DoseLedger(), np.random.default_rng(8)
    for electrons, share in zip(rng.uniform(1e5, 1e9, 50), rng.uniform(0, 0.1, 50), strict=True):
        command = AcquireFrame(
            action_id="refused", deadline_s=60, mode="stem", scan=scan(20, 20),
            optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, probe_current_pa=30),
        )  # fmt: skip
        ledger.add_frame(command, electrons, share * electrons)
        assert ledger.electrons == pytest.approx(electrons)
        ledger.add_frame(command, -electrons, -share * electrons)
        assert ledger.electrons == 0
