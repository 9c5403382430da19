"""The numbers behind the report's figures, each against an answer known otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.report import Evaluation, ReportFrame
from orchestrator.report.census_view import CensusView
from orchestrator.report.close_ups import crop_about
from orchestrator.report.comparison import electrons_to_reach, honest_sentences, saving_in_words
from orchestrator.report.densities import density_posterior
from orchestrator.report.frame_pictures import chosen_frames
from orchestrator.report.headline import scientific
from orchestrator.report.intensity_histograms import column_of_species, detectability_rows, pools
from orchestrator.report.limits import NEEDED_DETECTABILITY, pair_rows
from orchestrator.report.overview import survey_mosaic
from orchestrator.report.pictures import round_length_nm
from tests.unit.orchestrator.census_report import SPECIES, census_data


def view_of(data) -> CensusView:
    view = CensusView.of(data)
    assert view is not None
    return view


def line(slope: float) -> list[dict[str, float]]:
    return [{"electrons": float(n), "recall": slope * n} for n in range(11)]


def test_electrons_to_reach_lie_between_points() -> None:
    assert electrons_to_reach(line(0.1), 0.35) == pytest.approx(3.5)
    assert electrons_to_reach(line(0.1), 1.5) is None
    assert electrons_to_reach([], 0.1) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (0.1, 0.05, "50% fewer electrons than it for recall 0.50"),
        (0.05, 0.1, "100% more electrons than it for recall 0.50"),
    ],
)
def test_saving_names_the_loser(ours: float, theirs: float, said: str) -> None:
    assert saving_in_words(line(ours), line(theirs), 10 * theirs, 10 * ours) == said


def test_no_saving_where_one_found_nothing() -> None:
    assert "found nothing" in saving_in_words(line(0.1), line(0.0), 0.0, 1.0)
    assert saving_in_words((), line(0.1), 1.0, 1.0) == "no curve to compare"


def test_a_loss_is_called_a_loss() -> None:
    baselines = {"survey_rank": {"recall": 0.6}, "thin_raster": {"recall": 0.4}}
    data = census_data(
        evaluation=Evaluation(verdict={"recall": 0.5, "false_discovery_rate": 0.08}, baselines=baselines)
    )
    text = " ".join(honest_sentences(data))
    assert "Fewer found than by the operator" in text
    assert "On this world our policy lost" in text
    assert "More found than by the thin raster" in text
    assert "was not kept: 8.0%" in text


def test_an_oracle_that_loses_is_a_warning() -> None:
    verdict = {"recall": 0.5, "false_discovery_rate": 0.02}
    beaten = census_data(evaluation=Evaluation(verdict=verdict, baselines={"oracle": {"recall": 0.4}}))
    assert "Do not read the ratios as gains" in " ".join(honest_sentences(beaten))
    usual = census_data(evaluation=Evaluation(verdict=verdict, baselines={"oracle": {"recall": 0.6}}))
    assert "Do not read the ratios as gains" not in " ".join(honest_sentences(usual))


def test_density_posterior_of_one_density_everywhere() -> None:
    """Where all the area was analysed and defects are even, the mean is count over area and std follows Poisson."""
    axis = np.arange(0.5, 120.0)
    x, y = (part.ravel() for part in np.meshgrid(np.arange(3.0, 120.0, 6), np.arange(3.0, 120.0, 6)))
    posterior = np.zeros((len(x), 2 + len(SPECIES)))
    posterior[:, 2] = 1.0
    maps = {
        **census_data().maps, "x_nm": axis, "y_nm": axis, "clean": np.ones((120, 120)),
        "visited_dose_e_per_a2": np.ones((120, 120)), "call_x_nm": x, "call_y_nm": y, "call_posterior": posterior,
        "call_call": np.full(len(x), 2), "call_confirmed": np.ones(len(x), dtype=bool),
        "call_error_probability": np.zeros(len(x)), "call_dose_e_per_a2": np.ones(len(x)),
        "call_birth": np.full(len(x), ""),
    }  # fmt: skip
    data = census_data(maps=maps, evaluation=None)
    _, _, mean, std = density_posterior(data, view_of(data))
    assert mean == pytest.approx(1 / 36, rel=0.02)
    middle = mean.shape[0] // 2
    kernel_area_nm2 = 400 + float(np.exp(-((axis - 60) ** 2) / (2 * 30.0**2)).sum()) ** 2
    assert std[middle, middle] == pytest.approx(np.sqrt(1 / 36 / kernel_area_nm2), rel=0.02)


def test_measured_detectability_is_the_predicted_one() -> None:
    """Frames were drawn from the same model that predicts: d' of what was confirmed agrees within four errors."""
    data = census_data()
    view = view_of(data)
    found = pools(data, view)
    assert {pool.mode for pool in found} == {"maadf", "haadf"}
    columns = column_of_species(data, view)
    compared = 0
    for pool in found:
        for row in detectability_rows(view, columns, pool):
            if pool.mode != "maadf" or row.detector != "maadf" or row.measured == "–":
                continue
            value, error = (float(part) for part in row.measured.split(" ± "))
            assert abs(value - float(row.predicted)) < 4 * error + 0.1 * abs(value), row
            compared += 1
        for host in pool.host.values():
            assert host[:, 0].std() == pytest.approx(1.0, abs=0.15)
    assert compared >= 2


def test_dose_needed_scales_with_the_square_of_what_lacks() -> None:
    data = census_data()
    for row in pair_rows(data, view_of(data)):
        assert row.needed_e_per_a2 * (row.detectability / NEEDED_DETECTABILITY) ** 2 == pytest.approx(row.dose_e_per_a2)
        assert row.is_enough == (row.needed_e_per_a2 <= row.dose_e_per_a2)


def test_information_of_a_pair_falls_where_the_mode_is_blind() -> None:
    rows = {(row.mode, row.pair): row for row in pair_rows(census_data(), view_of(census_data()))}
    pair = "V_Se from O_Se"
    assert rows["haadf", pair].detectability < 0.5 * rows["haadf", "V_Se from the perfect column"].detectability


def test_the_mosaic_keeps_the_counts() -> None:
    data = census_data()
    found = survey_mosaic(data.frames, data.load_frame, (-20.0, 20.0, -20.0, 20.0))
    assert found is not None
    assert found.detector == "maadf"
    assert found.is_counts
    image = found.image
    counts = data.load_frame("frame-0").total("maadf")
    assert np.nanmean(image) == pytest.approx(counts.mean(), rel=0.03)
    covered = np.isfinite(image).sum() * 0.8**2
    assert (256 * 0.039) ** 2 <= covered <= (256 * 0.039 + 2 * 0.8) ** 2


def test_a_crop_is_centred_on_the_site_and_padded_at_the_edge() -> None:
    frame = replace(census_data().frames[1], x_nm=10.0, y_nm=-5.0, pixel_size_nm=0.1, width_nm=10.1, height_nm=10.1)
    image = np.zeros((101, 101))
    image[70, 20] = 7.0
    x_nm, y_nm = 10.0 + (20 - 50) * 0.1, -5.0 + (70 - 50) * 0.1
    crop = crop_about(image, frame, x_nm, y_nm)
    middle = len(crop.image) // 2
    assert crop.image[middle, middle] == 7.0
    edge = crop_about(image, frame, 10.0 - 5.0, -5.0)
    assert np.isnan(edge.image[:, :middle]).all()
    assert np.isfinite(edge.image[:, middle:]).all()


def test_frames_shown_cover_every_mode() -> None:
    data = census_data()
    chosen = chosen_frames(data.frames, view_of(data))
    assert {frame.mode for frame in chosen} == {"maadf", "haadf"}
    assert all(frame.purpose == "field" for frame in chosen)
    assert len({frame.id for frame in chosen}) == len(chosen)


def test_overlays_follow_the_drift() -> None:
    data = census_data()
    summary = {**data.summary, "drift_nm": [[0.0, 0.0, 0.0], [2.0, 0.5, -0.25]]}
    view = view_of(replace(data, summary=summary))
    near = replace(data.frames[1], started_s=1.9)
    assert view.drift_of(near) == (0.5, -0.25)
    assert view.drift_of(replace(near, started_s=0.3)) == (0.0, 0.0)
    moved: ReportFrame = replace(near, x_nm=near.x_nm + 0.5, y_nm=near.y_nm - 0.25)
    still = view_of(replace(data, summary={**data.summary, "drift_nm": []}))
    assert np.array_equal(view.inside(moved), still.inside(near))


@pytest.mark.parametrize("wanted_nm", [0.26, 4.4, 44.0, 999.0])
def test_scale_bars_are_round_and_fit(wanted_nm: float) -> None:
    length_nm = round_length_nm(wanted_nm)
    assert 0.4 * wanted_nm <= length_nm <= wanted_nm
    assert f"{length_nm:.0e}"[0] in "125"


def test_scientific_numbers_read_back() -> None:
    assert scientific(6.02e23) == "6.02 × 10²³"
    assert scientific(1.5e-7) == "1.50 × 10⁻⁷"
