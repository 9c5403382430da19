"""What a few probes say about the errors of all: a bound that holds, whatever the doubts they were drawn by."""

import numpy as np
import pytest

from simulation.check_probes import CHECK_POINT_COUNT, atoms_under, drawn, unusual
from simulation.specimens import Specimen

COUNT = 3000
DRAWS = 300


def errors(seed=0):
    """Squares of errors that are large at few places, and doubts that tell most of these places."""
    rng = np.random.default_rng(seed)
    squares = rng.normal(size=COUNT) ** 2 * np.where(rng.uniform(size=COUNT) < 0.06, 60.0, 1.0)
    return squares, squares * rng.lognormal(0.0, 1.0, COUNT)


def bounds(squares, doubts, alike=None):
    found = []
    for seed in range(DRAWS):
        probes = drawn(doubts, np.random.default_rng(seed))
        others = None
        if alike is not None:
            others = alike[probes.chosen], alike[np.random.default_rng(seed + 1).choice(COUNT, 256, replace=False)]
        found.append(probes.upper_rms(squares[probes.chosen], others))
    return np.array(found) / np.sqrt(squares.mean())


def test_the_bound_holds_where_doubts_tell_most():
    squares, doubts = errors()
    assert np.mean(bounds(squares, doubts) >= 1) >= 0.97


def test_false_doubts_hide_nothing():
    squares, _ = errors()
    probes = [drawn(1 / (squares + 0.01), np.random.default_rng(seed)) for seed in range(DRAWS)]
    assert max(each.shares.max() for each in probes) < 4 / CHECK_POINT_COUNT
    means = [each.shares @ squares[each.chosen] for each in probes]
    assert np.mean(means) == pytest.approx(squares.mean(), rel=0.2)


def test_what_is_alike_brings_the_bound_nearer_and_it_still_holds():
    squares, doubts = errors()
    alike = squares * np.random.default_rng(5).uniform(0.7, 1.3, COUNT)
    alone, aided = bounds(squares, doubts), bounds(squares, doubts, alike)
    assert np.mean(aided >= 1) >= 0.96
    assert np.median(aided) < 0.9 * np.median(alone)


def test_of_few_probes_all_are_drawn_and_the_mean_is_theirs():
    squares = np.random.default_rng(0).uniform(size=CHECK_POINT_COUNT)
    probes = drawn(squares, np.random.default_rng(1))
    assert probes.chosen.tolist() == list(range(CHECK_POINT_COUNT))
    assert probes.upper_rms(squares) == pytest.approx(1.3 * np.sqrt(squares.mean()))
    assert probes.spread(squares) == pytest.approx(squares.std())


@pytest.mark.parametrize("doubts", [np.zeros(100), np.eye(1, 100)[0], np.arange(100.0), np.ones(1)])
def test_as_many_probes_are_drawn_as_are_to_be_compared(doubts):
    for seed in range(20):
        probes = drawn(doubts, np.random.default_rng(seed))
        assert len(np.unique(probes.chosen)) == len(probes.chosen) == min(CHECK_POINT_COUNT, len(doubts))
        assert probes.shares.sum() == pytest.approx(1)


def test_no_error_is_no_bound_above_zero():
    probes = drawn(np.ones(100), np.random.default_rng(0))
    none = np.zeros(CHECK_POINT_COUNT)
    assert probes.upper_rms(none) == 0
    assert probes.upper_rms(none, (none, np.zeros(50))) == 0


def test_a_heavy_column_among_light_ones_is_nearly_always_compared():
    light = np.array([[x, y, 1.0] for x in range(0, 30, 3) for y in range(0, 24, 3)])
    heavy = np.array([[29.9, 23.95, 1.0]])  # seen from the other side of the cell as well
    numbers = np.array([6] * len(light) + [50])
    specimen = Specimen(numbers, np.concatenate([light, heavy]), (30.0, 24.0, 2.0))
    points = np.array([[x, y] for y in np.arange(0, 24, 1.5) for x in np.arange(0, 30, 1.5)])
    met = atoms_under(specimen, np.concatenate([points, points + np.array([30.0, -24.0])]))
    assert met[: len(points)] == pytest.approx(met[len(points) :])
    assert np.argmax(met[: len(points)]) == 0
    doubts = unusual(met[: len(points), None])
    found = [0 in drawn(doubts, np.random.default_rng(seed)).chosen for seed in range(DRAWS)]
    assert np.mean(found) > 0.9
    assert np.all(unusual(np.ones((5, 2))) == 0)
