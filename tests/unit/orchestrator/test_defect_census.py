"""The census as an objective: what the policy is told while the specimen drifts."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.defect_census import CensusOptions, DefectCensus, LatticeGeometry
from orchestrator.objectives.objective import FrameFacts

BASIS = np.array([[0.3282, 0.1641], [0.0, 0.28423]])
VACANCY = 7


def census() -> DefectCensus:
    options = CensusOptions(prior_density_per_nm2={"V_Se": 0.006}, determinable=("V_Se",), beam_made="V_Se")
    geometry = LatticeGeometry(("Se2",), np.zeros((1, 2)), 1 / float(np.linalg.det(BASIS)))
    return DefectCensus(options, ("V_Se",), ("Se2",), geometry, (-10.0, 10.0, -10.0, 10.0))


def frame(
    number: int, time_s: float, drift_nm: np.ndarray, llr_of_vacancy: float, reach: int = 4
) -> tuple[FrameFacts, FeatureSet]:
    cells = np.array([(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)])
    place = cells @ BASIS.T + drift_nm
    llr = np.full((len(cells), 1), -8.0, dtype=np.float32)
    llr[VACANCY] = llr_of_vacancy
    arrays = {
        "site_x_nm": place[:, 0],
        "site_y_nm": place[:, 1],
        "site_column": np.zeros(len(cells), dtype=np.int8),
        "site_clean_probability": np.ones(len(cells), dtype=np.float32),
        "llr": llr,
        "suspect": np.array([VACANCY], dtype=np.int32),
        "suspect_llr_subframes": llr[VACANCY].reshape(1, 1, 1),
        "lattice_origin_nm": drift_nm,
        "lattice_basis_nm": BASIS,
    }
    facts = FrameFacts(
        action_id=f"a{number}", purpose="field", mode="maadf", x_nm=0.0, y_nm=0.0, width_nm=20.0, height_nm=20.0,
        pixel_size_nm=0.039, subframe_count=1, dose_e_per_a2=800.0, electrons=3e7, started_s=time_s,
        ended_s=time_s + 0.2, exposure_s=0.2,
    )  # fmt: skip
    return facts, FeatureSet(extractor="lattice_sites", action_id=f"a{number}", values={}, arrays=arrays)


def test_undecided_sites_are_told_where_they_have_drifted_to() -> None:
    asked = census()
    site = np.array([(i, j) for i in range(-4, 5) for j in range(-4, 5)])[VACANCY] @ BASIS.T
    speed_nm_per_s = np.array([0.03, -0.02])
    for number in range(40):
        drift = speed_nm_per_s * number
        score = asked.update({}, *frame(number, float(number), drift, 6.5 if number == 0 else 0.0))
    assert np.linalg.norm(drift) > 1.2, "far more than a lattice vector"
    assert score.arrays["undecided_x_nm"].tolist() == pytest.approx([site[0] + drift[0]], abs=0.03)
    assert score.arrays["undecided_y_nm"].tolist() == pytest.approx([site[1] + drift[1]], abs=0.03)
    assert asked.calls()["x_nm"].tolist() == pytest.approx([site[0]], abs=0.03), "the call itself stays on the specimen"


def test_a_field_analysed_without_a_survey_has_a_density() -> None:
    asked = census()
    asked.update({}, *frame(0, 0.0, np.zeros(2), 20.0, reach=20))
    summary = asked.summary()
    lattice_area_nm2 = 41**2 * float(np.linalg.det(BASIS))
    assert summary["analysed_clean_area_nm2"] == pytest.approx(lattice_area_nm2, rel=0.15), "cells of 1 nm, ragged edge"
    density = summary["species"]["V_Se"]
    assert density["analysed_per_nm2"] == pytest.approx(1 / summary["analysed_clean_area_nm2"], rel=0.02)
    assert 0 < density["analysed_low_per_nm2"] < density["analysed_per_nm2"] < density["analysed_high_per_nm2"] < 1


def test_where_a_survey_has_looked_its_word_stands() -> None:
    asked = census()
    cells = np.arange(-9.5, 10.0)
    surveyed = {
        "clean_map": np.full((20, 20), 0.25), "clean_map_x_nm": cells, "clean_map_y_nm": cells,
    }  # fmt: skip
    facts, _ = frame(0, 0.0, np.zeros(2), 0.0)
    asked.update({}, facts, FeatureSet(extractor="survey", action_id="s", values={}, arrays=surveyed))
    asked.update({}, *frame(1, 1.0, np.zeros(2), 20.0))
    assert asked.summary()["analysed_clean_area_nm2"] == pytest.approx(0.25 * 400.0)
    assert asked.map.known.sum() == pytest.approx(0.25 * 400.0)
