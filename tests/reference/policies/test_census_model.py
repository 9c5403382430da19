"""The closed forms behind the census against Monte Carlo, and its small models against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from policies import Cost, Observation
from policies.census.density import DensityMap, mean_densities
from policies.census.detection import confirm_probability, exceeds, false_alarm, information_matrix
from policies.census.field_plan import FieldModel, outcome_per_nm2, outcomes_of, plan_fields
from policies.census.focus import best_defocus
from policies.fields import dwell_for_dose_us
from tests.unit.policies.toy_world import COLUMN, DENSITY, SIGNAL, SITES_PER_NM2, SPECIES, information

COUNT = 40_000
ODDS = DENSITY / SITES_PER_NM2


def matrix(dose: float, mode: str = "maadf") -> np.ndarray:
    columns = ["Se2", "Se2", "Se2", "W"]
    return dose * information_matrix(information, SPECIES, columns, mode, {})


def posteriors(kind: int, dose: float, prior: np.ndarray, rng: np.random.Generator, mode: str = "maadf") -> np.ndarray:
    """(COUNT, 1 + S) posterior of sites that truly are `kind` (-1: host) after `dose`."""
    u = np.concatenate([[0.0], SIGNAL[mode]])
    x = u[kind + 1] * dose + np.sqrt(dose) * rng.standard_normal(COUNT)
    weight = prior * np.exp(x[:, None] * u - u**2 * dose / 2)
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "dose"), [(0, 900.0), (0, 1500.0), (0, 6000.0), (1, 2700.0), (3, 300.0), (3, 1500.0), (3, 4000.0)]
)
def test_confirmation_is_that_of_simulated_sites(dose: float, kind: int) -> None:
    prior = np.where(COLUMN[kind] == COLUMN, ODDS, 0.0)
    prior = np.concatenate([[1 - prior.sum()], prior])
    closed = confirm_probability(prior, matrix(dose), 0.05)[kind]
    simulated = (posteriors(kind, dose, prior, np.random.default_rng(1))[:, kind + 1] > 0.95).mean()
    assert closed == pytest.approx(simulated, abs=0.02)


@pytest.mark.parametrize("posterior", [[0.5, 0.3, 0.2, 0, 0], [0.05, 0.6, 0.35, 0, 0], [0.7, 0, 0, 0, 0.3]])
def test_a_second_look_at_an_undecided_site(posterior: list[float]) -> None:
    prior = np.array(posterior)
    kind = int(np.argmax(prior[1:]))
    for dose in (1200.0, 4000.0):
        closed = confirm_probability(prior, matrix(dose), 0.05)[kind]
        simulated = (posteriors(kind, dose, prior, np.random.default_rng(2))[:, kind + 1] > 0.95).mean()
        assert closed == pytest.approx(simulated, abs=0.02)


def test_confirmed_sites_stay_confirmed_and_impossible_species_never_are() -> None:
    nothing = np.zeros((5, 5))
    assert confirm_probability(np.array([0.01, 0.98, 0.01, 0, 0]), nothing + 1e-9, 0.05)[0] == pytest.approx(1.0)
    np.testing.assert_array_equal(confirm_probability(np.array([1.0, 0, 0, 0, 0]), matrix(5000.0), 0.05), 0.0)


def test_threshold_probabilities() -> None:
    rng = np.random.default_rng(3)
    llr = 4.0 * rng.standard_normal(COUNT)
    assert exceeds(np.array(2.0), np.array(16.0)) == pytest.approx((8 + llr > 2).mean(), abs=0.01)
    assert false_alarm(np.array(-3.0), np.array(16.0)) == pytest.approx((-8 + llr > -3).mean(), abs=0.01)


def field_model(doses: list[float], field_share_scale: float = 1.0) -> FieldModel:
    revisits = np.array([1200.0, 4000.0, 8000.0])
    return FieldModel(
        field_distance=np.array([matrix(dose) for dose in doses]),
        revisit_distance=np.array([matrix(dose) for dose in revisits]),
        field_share_per_nm2=field_share_scale * np.array(doses) * 100 / 2e9,
        revisit_share=revisits * 100 * 6 / 2e9,
        revisit_fits=np.ones((len(doses), 3), dtype=bool),
        density_per_nm2=DENSITY,
        site_density_per_nm2=np.full(4, SITES_PER_NM2),
        column=COLUMN,
        wanted=np.array([True, False, True, True]),
        error_probability=0.05,
    )


@pytest.mark.parametrize("dose", [450.0, 1300.0])
def test_plan_is_what_simulated_sites_bring(dose: float) -> None:
    """First look, a second where it is worth its cost by the rule itself, confirmed or not: value and cost per nm2."""
    model, rate, revisit = field_model([dose]), 300.0, 2
    model = FieldModel(**{f: getattr(model, f) for f in FieldModel.__slots__} | {
        "revisit_distance": model.revisit_distance[revisit:], "revisit_share": model.revisit_share[revisit:],
        "revisit_fits": np.ones((1, 1), dtype=bool),
    })  # fmt: skip
    value, again = outcome_per_nm2(model, outcomes_of(model), rate)
    rng = np.random.default_rng(4)
    simulated_value = simulated_again = 0.0
    price = float(model.revisit_share[0])
    for kind in (0, 2, 3):
        prior = np.where(COLUMN[kind] == COLUMN, ODDS, 0.0)
        prior = np.concatenate([[1 - prior.sum()], prior])
        first = posteriors(kind, dose, prior, rng)
        confirmed = first[:, kind + 1] > 0.95
        gain = outcomes_of(model).both[0, 0, kind]
        likelihood = first[:, kind + 1] / first[:, 0] / (prior[kind + 1] / prior[0])
        worth = likelihood * ODDS[kind] > rate * price / gain / (1 - rate * price / gain)
        u = np.concatenate([[0.0], SIGNAL["maadf"]])
        more = 8000.0
        x = u[kind + 1] * more + np.sqrt(more) * rng.standard_normal(COUNT)
        both = first * np.exp(np.clip(x[:, None] * u - u**2 * more / 2, -700, 700))
        later = both[:, kind + 1] / both.sum(axis=1) > 0.95
        simulated_value += DENSITY[kind] * (confirmed | (worth & later)).mean()
        simulated_again += DENSITY[kind] * (worth & ~confirmed).mean() * price
        host = posteriors(-1, dose, prior, rng)
        false = host[:, kind + 1] / host[:, 0] > rate * price / gain / (1 - rate * price / gain)
        simulated_again += SITES_PER_NM2 * false.mean() * price
        if kind == 0:  # the species that does not count but looks the same
            alike = posteriors(1, dose, prior, rng)
            passing = alike[:, 2] / alike[:, 0] > rate * price / gain / (1 - rate * price / gain)
            simulated_again += DENSITY[1] * passing.mean() * price
    assert value[0] == pytest.approx(simulated_value, rel=0.1)
    assert again[0] == pytest.approx(simulated_again, rel=0.35)


def test_plan_avoids_both_extremes_of_dose() -> None:
    doses = [30.0, 100.0, 300.0, 900.0, 2700.0, 8000.0]
    plan = plan_fields(field_model(doses), 16_000.0)
    assert 100.0 <= doses[plan.chosen] <= 2700.0
    ratio = plan.value_by_option / plan.share_by_option
    assert ratio[plan.chosen] > 1.5 * max(ratio[0], ratio[-1])


def test_plan_spends_more_where_the_budget_outlasts_the_area() -> None:
    doses = [100.0, 300.0, 900.0, 2700.0, 8000.0]
    scarce, plenty = (plan_fields(field_model(doses), area) for area in (100_000.0, 500.0))
    assert not scarce.is_area_limited
    assert plenty.is_area_limited
    assert doses[plenty.chosen] > doses[scarce.chosen]
    assert plenty.rate < scarce.rate


def test_mean_densities_learn_from_counts() -> None:
    prior = np.array([0.005, 0.003])
    np.testing.assert_allclose(mean_densities(prior, 0.0, 0.0, np.zeros(2)), prior)
    learned = mean_densities(prior, 200.0, 10_000.0, np.array([150.0, 50.0]))
    assert learned.sum() == pytest.approx(0.02, rel=0.02)
    assert learned[0] / learned[1] == pytest.approx(3.0, rel=0.05)


def fields_at(density, count: int, seed: int) -> list[Observation]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        x, y = rng.uniform(-100, 100, 2)
        found = float(rng.poisson(density(x) * 200.0))
        outcomes = {"found": (found, 0.5), "clean_area_nm2": (200.0, 0.0)}
        made.append(Observation(suggestion_id=str(i), point={"x_nm": x, "y_nm": y}, outcomes=outcomes))
    return made


def test_density_map_is_flat_without_clustering_and_not_with_it() -> None:
    grid = np.column_stack([np.linspace(-90, 90, 19), np.zeros(19)])
    flat = [DensityMap().relative(fields_at(lambda x: 0.01, 40, s), 0.01, grid)[0] for s in range(4)]
    assert np.median([np.abs(f).max() for f in flat]) < 0.25
    clustered = fields_at(lambda x: 0.02 if x > 0 else 0.003, 40, 5)
    f, std = DensityMap().relative(clustered, 0.0115, grid)
    assert f[15:].mean() - f[:4].mean() > 1.0
    assert (std > 0).all()
    assert not DensityMap().relative(clustered[:5], 0.01, grid)[0].any()


def test_focus_finds_and_follows_the_best_defocus() -> None:
    options = np.arange(-15, 15.5, 0.5)

    def look(defocus: float, best: float) -> Observation:
        contrast = float(np.exp(-((defocus - best) ** 2) / (2 * 7.0**2)))
        outcomes = {"contrast_ratio": (contrast, 0.02)}
        return Observation(suggestion_id="f", point={"defocus_nm": defocus}, outcomes=outcomes, cost=Cost(0, 1.0))

    assert best_defocus([], options, 0.5) is None
    seen = [look(d, 5.0) for d in (0.0, 5.0, -5.0, 10.5, -10.5)]
    found = best_defocus(seen, options, 0.0)
    assert found is not None
    assert found.defocus_nm == pytest.approx(5.0, abs=1.5)
    for step in range(60):
        chosen = best_defocus(seen, options, 0.5)
        assert chosen is not None
        seen.append(look(chosen.defocus_nm, 5.0 + 0.1 * step))
    assert chosen.defocus_nm == pytest.approx(11.0, abs=3.0)


def test_dwell_and_dose_are_inverse() -> None:
    assert dwell_for_dose_us(1230.8, 30.0, 0.039) == pytest.approx(1.0, rel=1e-3)
