"""Calls at a false discovery rate, site by site Bayes, drift and densities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.features.feature_set import FeatureSet
from orchestrator.objectives.density import BlockCounts, density_of
from orchestrator.objectives.discovery import confirmed_at, error_bound
from orchestrator.objectives.lattice_register import LatticeRegister
from orchestrator.objectives.site_evidence import SiteEvidence


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.01, 0.3))
def test_mean_error_of_the_confirmed_never_exceeds_the_rate(errors: list[float], rate: float) -> None:
    error = np.array(errors)
    mask = confirmed_at(error, rate)
    if mask.any():
        assert error[mask].mean() <= rate + 1e-12
        assert error[mask].max() <= error[~mask & (error < 0.5)].min(initial=1.0)
    assert error_bound(error, rate) >= 0


def test_the_rate_is_kept_when_probabilities_are_honest() -> None:
    rng = np.random.default_rng(5)
    wrong = confirmed = 0
    for _ in range(200):
        prior, separation = 0.05, 3.0
        is_defect = rng.random(400) < prior
        llr = np.where(is_defect, 1, -1) * separation**2 / 2 + separation * rng.normal(size=400)
        error = 1 / (1 + prior / (1 - prior) * np.exp(llr))
        mask = confirmed_at(error, 0.05)
        wrong += int((mask & ~is_defect).sum())
        confirmed += int(mask.sum())
    assert 0.03 < wrong / confirmed < 0.07


BASIS = np.array([[0.3282, 0.1641], [0.0, 0.28423]])


def test_drift_is_followed_over_many_lattice_vectors_with_a_first_basis_that_is_off() -> None:
    register = LatticeRegister()
    speed = np.array([0.012, -0.009])
    rng = np.random.default_rng(0)
    first_cells = np.zeros(2)
    for step in range(300):
        time_s = 0.7 * step
        true = speed * time_s + 0.02 * np.sin(time_s / 40)
        cells = rng.integers(-200, 200, size=2) if step else first_cells
        origin = true + BASIS @ cells + rng.normal(scale=0.004, size=2)
        wide = step % 3 == 1
        basis = BASIS + rng.normal(scale=8e-5 if wide else 3e-4, size=(2, 2))
        drift = register.take(time_s, origin, basis, 20.0 if wide else 2.4)
        assert drift is not None
        assert np.abs(drift - true).max() < 0.08, step
    assert register.basis_nm is not None
    assert np.abs(register.basis_nm - BASIS).max() < 3e-5
    site = np.array([[150, -130], [0, 0]])
    nominal = site @ BASIS.T + true + register.origin_nm
    assert np.array_equal(register.index(nominal[:, 0], nominal[:, 1], drift, np.zeros(2)), site)
    assert np.abs(register.position_nm(site, np.zeros(2)) + true - nominal).max() < 0.03


def test_a_slip_that_cannot_be_excluded_is_not_guessed() -> None:
    register = LatticeRegister()
    assert register.take(0.0, np.zeros(2), BASIS, 20.0) is not None
    assert register.take(3600.0, np.array([0.1, 0.0]), BASIS, 20.0) is None


def one_site(llr_subframes: np.ndarray, action: str) -> FeatureSet:
    return FeatureSet(
        extractor="lattice_sites",
        action_id=action,
        values={},
        arrays={
            "llr": llr_subframes.sum(axis=0, keepdims=True).astype(np.float32),
            "suspect": np.array([0], dtype=np.int32),
            "suspect_llr_subframes": llr_subframes[None].astype(np.float32),
        },
    )


def evidence() -> SiteEvidence:
    return SiteEvidence(("V_Se", "Mo_W"), np.array([0, 1]), np.array([5e-4, 3e-4]), (0, 0, 4, 4), 2, ("V_Se", 2e-8))


@pytest.mark.parametrize(
    ("subframes", "expected"),
    [([8.0, 8.0, 8.0, 8.0], 2), ([-8.0, -8.0, 9.0, 9.0], 1), ([-8.0, -8.0, -8.0, -8.0], 0)],
    ids=["native", "born under the beam", "host"],
)
def test_a_vacancy_born_under_the_beam_is_told_from_a_native_one(subframes: list[float], expected: int) -> None:
    seen = evidence()
    llr = np.full((4, 2), np.nan)
    llr[:, 0] = subframes
    seen.add("a1", np.array([0]), np.array([[1, 1]]), 1000.0, one_site(llr, "a1"), np.array([True]))
    table = seen.table()
    assert table.posterior[0].argmax() == expected
    assert table.posterior[0].sum() == pytest.approx(1)
    if expected == 1:
        assert table.birth[0] is not None
        assert table.birth[0][0] == "a1"
        assert table.birth[0][1] in (1, 2)


def test_evidence_before_a_site_was_suspect_still_counts() -> None:
    seen = evidence()
    calm = FeatureSet(
        extractor="lattice_sites", action_id="a0", values={},
        arrays={
            "llr": np.array([[-14.0, np.nan]], dtype=np.float32), "suspect": np.zeros(0, dtype=np.int32),
            "suspect_llr_subframes": np.zeros((0, 1, 2), dtype=np.float32),
        },
    )  # fmt: skip
    place = (np.array([0]), np.array([[1, 1]]))
    assert seen.add("a0", *place, 500.0, calm, np.array([True])).all()
    llr = np.full((1, 2), np.nan)
    llr[0, 0] = 30.0
    assert not seen.add("a1", *place, 500.0, one_site(llr, "a1"), np.array([True])).any()
    posterior = seen.table().posterior[0]
    assert posterior[1] > 0.9, "whole before, gone after: the beam made it"
    assert seen.table().dose_e_per_a2[0] == pytest.approx(1000)


def test_density_interval_covers_the_truth_and_unvisited_blocks_follow_their_neighbours() -> None:
    rng = np.random.default_rng(3)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5, 200, 10.0), np.arange(5, 200, 10.0)))
    area = np.full(x.size, 40.0)
    visited = np.where(rng.random(x.size) < 0.4, 40.0, 0.0)
    covered = 0
    for _ in range(100):
        count = rng.poisson(0.006 * visited).astype(float)
        found = density_of(BlockCounts(x, y, count, np.zeros_like(count), visited, area))
        covered += found.analysed_low_per_nm2 <= 0.006 <= found.analysed_high_per_nm2
        assert found.whole_low_per_nm2 <= found.whole_per_nm2 <= found.whole_high_per_nm2
    assert covered >= 88


def test_nothing_analysed_gives_an_open_interval() -> None:
    zero = np.zeros(3)
    found = density_of(BlockCounts(zero, zero, zero, zero, zero, zero + 1))
    assert found.analysed_high_per_nm2 == float("inf")
