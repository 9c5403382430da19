"""Whole searches: the Bayesian optimiser against random points, the census against its baselines on the toy world."""

from __future__ import annotations

import numpy as np
import pytest

from policies import SearchSpace, create
from tests.reference.policies.test_census import SIZE_NM
from tests.unit.policies.test_bayesian import MIXED, PLANE, best_of, mixed_hill, two_hills
from tests.unit.policies.toy_world import ToyWorld, context, play, space

pytestmark = pytest.mark.slow

FIELD = {
    "field_of_view_nm": 20.0, "pixel_size_nm": 0.04, "mode": "maadf", "probe_current_pa": 10.0, "defocus_nm": 4.0,
}  # fmt: skip


def verdict(name: str, seed: int, clustering: float) -> tuple[float, float]:
    """(recall, false discovery rate); rank visits fields at the dose of the first world's full raster."""
    options = {"census": {}, "survey_rank": {**FIELD, "dwell_time_us": 6.92}, "thin_raster": FIELD}[name]
    world = ToyWorld(seed, clustering, SIZE_NM)
    play(create(name, space(SIZE_NM), seed=seed, context=context(SIZE_NM), **options), world)
    return world.verdict()


@pytest.mark.parametrize(("space", "truth"), [(PLANE, two_hills), (MIXED, mixed_hill)], ids=["plane", "mixed"])
def test_beats_random(space: SearchSpace, truth) -> None:
    """With three quarters of the frames, each time better than nine of ten random searches."""
    ours = [best_of("bayesian", space, truth, seed, 30) for seed in range(2)]
    theirs = [best_of("random", space, truth, seed, 40) for seed in range(15)]
    assert min(ours) > np.quantile(theirs, 0.9)
    assert min(ours) > 0.98


@pytest.mark.parametrize("clustering", [0.0, 1.2])
def test_beats_raster_and_ranking_at_equal_electrons(clustering: float) -> None:
    """Each time more than half as many again as they find in the median."""
    ours = [verdict("census", seed, clustering) for seed in range(2)]
    for name in ("thin_raster", "survey_rank"):
        theirs = np.median([verdict(name, seed, clustering)[0] for seed in range(3)])
        assert min(recall for recall, _ in ours) > 1.5 * theirs
    assert max(false_discovery_rate for _, false_discovery_rate in ours) <= 0.1
