"""Maps of elements from replayed spectra, on a record with known rates and on the measured file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from instruments import Frame, Microscope
from instruments.adapters.replay import ReplayMicroscope, open_replay
from orchestrator.errors import FeatureError, SpecError
from orchestrator.features.element_counts import ElementCounts
from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.element_map import ElementMap, ElementMapOptions
from orchestrator.objectives.map_grid import MapGrid
from orchestrator.objectives.objective import FrameFacts, Score
from tests.unit.instruments.replay_files import (
    CURRENT_PA,
    FULL_DWELL_US,
    LINES,
    PIXEL_NM,
    command,
    config,
    rates,
    write_record,
)

SIDE_PX, BIN_PX = 128, 4


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("maps") / "record.npz", SIDE_PX)


def options(**changed: Any) -> ElementMapOptions:
    given: dict[str, Any] = {"lines": LINES, "full_dwell_time_us": FULL_DWELL_US, "bin_px": BIN_PX}
    return ElementMapOptions(**(given | changed))


@dataclass
class MiniLoop:
    """spec -> command -> frame -> features -> score, with positions given from outside."""

    microscope: Microscope
    objective: ElementMap
    extractor: ElementCounts
    side_px: int
    pixel_nm: float = PIXEL_NM
    full_dwell_us: float = FULL_DWELL_US
    current_pa: float = CURRENT_PA
    count: int = 0

    def survey(self) -> Score:
        return self._take(side_px=self.side_px, mode="survey", dwell_time_us=1.0)

    def spectrum(self, index: int, dwell_fraction: float = 1.0) -> Score:
        row, column = divmod(index, self.objective.grid.shape_px[1])
        x_nm, y_nm = self.objective.grid.x_nm[column], self.objective.grid.y_nm[row]
        return self._take(x_nm=x_nm, y_nm=y_nm, side_px=BIN_PX, dwell_time_us=dwell_fraction * self.full_dwell_us)

    def _take(self, **asked: Any) -> Score:
        self.count += 1
        asked |= {"pixel_nm": self.pixel_nm, "current_pa": self.current_pa}
        frame = self.microscope.acquire(command(f"{self.count}", **asked))
        return self.objective.update({}, FrameFacts.of(frame), self.extractor.extract(frame))


def loop_over(replay: ReplayMicroscope, **changed: Any) -> MiniLoop:
    loop = MiniLoop(replay, ElementMap(options(**changed)), ElementCounts(LINES), SIDE_PX)
    loop.survey()
    return loop


def random_indices(count: int, seed: int = 0, cells: int = (SIDE_PX // BIN_PX) ** 2) -> list[int]:
    return [int(i) for i in np.random.default_rng([seed, 77]).permutation(cells)[:count]]


def survey_frame(replay: ReplayMicroscope) -> Frame:
    return replay.acquire(command("s", side_px=SIDE_PX, mode="survey", dwell_time_us=1.0))


def test_features_of_a_spectrum(record: Path) -> None:
    frame = open_replay(**config(record)).acquire(command("a", 20.0, -60.0, 4, dwell_time_us=250.0, subframe_count=2))
    features = ElementCounts(LINES).extract(frame)
    for line in LINES:
        found = features.values[f"counts_{line}"]
        assert found.value == frame.counts[line].sum()
        assert found.std == pytest.approx(np.sqrt(found.value + 1))
        assert features.arrays[f"counts_{line}"].shape == (4, 4)
    assert features.values["exposure_s"].value == pytest.approx(16 * 500e-6)
    assert (features.values["x_nm"].value, features.values["y_nm"].value) == (20.0, -60.0)
    assert features.values["area_nm2"].value == pytest.approx(1600.0)
    again = FeatureSet.from_bytes(features.to_bytes())
    assert again.values == features.values


def test_features_of_a_survey(record: Path) -> None:
    replay = open_replay(**config(record))
    features = ElementCounts(LINES).extract(survey_frame(replay))
    truth = replay.truth()
    assert features.arrays["survey"].shape == (SIDE_PX, SIDE_PX)
    assert features.arrays["x_nm"] == pytest.approx(truth["x_nm"])
    assert features.arrays["y_nm"] == pytest.approx(truth["y_nm"])


def test_features_name_what_is_missing(record: Path) -> None:
    replay = open_replay(**config(record))
    with pytest.raises(FeatureError, match="no line Ni_Ka; it has Fe_Ka, Mg_Ka"):
        ElementCounts(["Ni_Ka"]).extract(replay.acquire(command("a")))
    with pytest.raises(FeatureError, match="has no bf; it has haadf"):
        ElementCounts(LINES, survey_detector="bf").extract(survey_frame(replay))
    with pytest.raises(FeatureError, match="at least one line"):
        ElementCounts([])


def test_the_survey_tells_the_policy_its_grid(record: Path) -> None:
    replay = open_replay(**config(record))
    objective = ElementMap(options())
    frame = survey_frame(replay)
    score = objective.update({}, FrameFacts.of(frame), ElementCounts(LINES).extract(frame))
    assert score.arrays["survey"].shape == (32, 32)
    assert score.arrays["grid_x_nm"] == pytest.approx((np.arange(32) - 15.5) * 40.0)
    assert score.outcomes == {}
    recorded = frame.total("haadf").reshape(32, 4, 32, 4).mean(axis=(1, 3))
    assert score.arrays["survey"] == pytest.approx(recorded)


def test_spectra_become_maps_that_explain_what_was_held_out(record: Path) -> None:
    replay = open_replay(**config(record))
    loop = loop_over(replay, target_error=0.01)
    explained: list[float] = []
    for index, position in enumerate(random_indices(240), start=1):
        score = loop.spectrum(position)
        if index in (60, 240):
            explained.append(loop.objective.evaluate(replay.truth())["Fe_Ka"]["explained"])
    assert score.outcomes.keys() == {"counts_Fe_Ka", "counts_Mg_Ka"}
    assert explained[1] > explained[0] > 0.2
    judged, summary, maps = loop.objective.evaluate(replay.truth()), loop.objective.summary(), loop.objective.maps()
    true_rates = rates(SIDE_PX)
    for line in LINES:
        foreseen = summary["lines"][line]["predicted_error"]
        truth = loop.objective.grid.binned(true_rates[line]) / 2  # half of every count is measured
        missed = float(np.sqrt(np.mean((maps[f"rate_{line}"] - truth) ** 2)) / truth.mean())
        assert judged[line]["error"] == pytest.approx(missed, abs=0.08)
        assert 0.6 < missed / foreseen < 1.6
        assert judged[line]["deviance"] < judged[line]["null_deviance"]
    assert score.value == pytest.approx(max(summary["lines"][line]["predicted_error"] for line in LINES), rel=0.2)
    assert loop.objective.stop_reason() is None
    assert int((maps["exposure_fraction"] > 0).sum()) == summary["positions"] == 240


def test_it_stops_when_every_map_is_good_enough(record: Path) -> None:
    loop = loop_over(open_replay(**config(record)), target_error=0.8)
    taken = 0
    for index in random_indices(400):
        loop.spectrum(index)
        taken += 1
        if loop.objective.stop_reason() is not None:
            break
    assert 8 <= taken < 400
    assert "predicted relative error of 0.8: Fe_Ka 0." in (loop.objective.stop_reason() or "")


def test_half_exposures_of_one_position_are_one_full_exposure(record: Path) -> None:
    indices = random_indices(40)
    once, twice = (loop_over(open_replay(**config(record))) for _ in range(2))
    for index in indices:
        once.spectrum(index)
    for fraction in (0.5, 0.5):
        for index in indices:
            twice.spectrum(index, fraction)
    one, other = once.objective.summary(), twice.objective.summary()
    assert (one["positions"], one["spectra"], other["positions"], other["spectra"]) == (40, 40, 40, 80)
    for line in LINES:
        assert one["lines"][line]["counts"] == other["lines"][line]["counts"]
    assert once.objective.maps()["exposure_fraction"] == pytest.approx(twice.objective.maps()["exposure_fraction"])


def test_the_same_updates_give_the_same_maps(record: Path) -> None:
    loops = [loop_over(open_replay(**config(record))) for _ in range(2)]
    for loop in loops:
        for index in random_indices(50):
            loop.spectrum(index)
        loop.objective.summary()
    assert loops[0].objective.summary() == loops[1].objective.summary()
    for name, values in loops[0].objective.maps().items():
        assert np.array_equal(values, loops[1].objective.maps()[name])


def test_without_survey_it_needs_a_grid_and_uses_position_alone(record: Path) -> None:
    replay = open_replay(**config(record))
    bare = MiniLoop(replay, ElementMap(options()), ElementCounts(LINES), SIDE_PX)
    frame = replay.acquire(command("first", 20.0, 20.0))
    with pytest.raises(SpecError, match="take a survey frame first"):
        bare.objective.update({}, FrameFacts.of(frame), bare.extractor.extract(frame))
    grid = MapGrid(shape_px=(32, 32), cell_nm=40.0)
    loop = MiniLoop(replay, ElementMap(options(), grid=grid), ElementCounts(LINES), SIDE_PX)
    for index in random_indices(30):
        if index != grid.index_of(20.0, 20.0):
            loop.spectrum(index)
    kernels = loop.objective.summary()["lines"]["Fe_Ka"]["kernels"]
    assert all(words.endswith("position alone") for words in kernels)
    with pytest.raises(SpecError, match="take the survey first"):
        loop.survey()


def test_a_grid_knows_its_cells() -> None:
    grid = MapGrid(shape_px=(3, 4), cell_nm=10.0, centre_x_nm=100.0)
    assert grid.x_nm == pytest.approx([85, 95, 105, 115])
    assert grid.y_nm == pytest.approx([-10, 0, 10])
    for index in range(12):
        assert grid.index_of(grid.x_nm[index % 4] + 4.0, grid.y_nm[index // 4] - 4.0) == index
    with pytest.raises(SpecError, match="outside the map of 40 x 30 nm"):
        grid.index_of(100.0, 15.1)
    with pytest.raises(ValueError, match="cannot be binned"):
        grid.binned(np.zeros((5, 8)))
    with pytest.raises(SpecError, match="does not divide the survey's 6 x 9 px"):
        MapGrid.over_survey(np.arange(9.0), np.arange(6.0), 2)


@pytest.mark.parametrize(
    "wrong",
    [{"lines": ()}, {"lines": ("Fe_Ka", "Fe_Ka")}, {"target_error": 0.0}, {"bin_px": 0}, {"full_dwell_time_us": -1.0}],
)
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        options(**wrong)


@pytest.mark.real_data
def test_random_positions_on_the_measured_file(real_data: Path) -> None:
    """A survey kernel explains more of what was held out than position alone; errors are foreseen within a factor."""
    path = real_data / "replay" / "idp_tilt0_maps.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder of measured files")
    lines = ("Fe_Ka", "Mg_Ka", "O_Ka")
    explained: dict[bool, dict[str, float]] = {}
    for use_survey in (True, False):
        replay = open_replay(file=path, lines=lines, full_dwell_time_us=2170.0, nominal_current_pa=500.0, seed=3)
        objective = ElementMap(options(lines=lines, full_dwell_time_us=2170.0, use_survey=use_survey))
        pixel_nm = replay.truth()["pixel_size_nm"]
        loop = MiniLoop(replay, objective, ElementCounts(lines), 256, pixel_nm, 2170.0, 500.0)
        loop.survey()
        for index in random_indices(100, seed=1, cells=64 * 64):
            loop.spectrum(index)
        judged, summary = objective.evaluate(replay.truth()), objective.summary()
        explained[use_survey] = {line: judged[line]["explained"] for line in lines}
        for line in lines:
            assert 0.4 < judged[line]["error"] / summary["lines"][line]["predicted_error"] < 2.5
    for line in lines:
        assert explained[True][line] > explained[False][line]
        assert explained[True][line] > 0.2
