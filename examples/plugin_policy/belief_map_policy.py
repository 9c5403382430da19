"""The policy of `notebooks/02_design_a_policy.py` as a plug-in: a module, and an entry point in `pyproject.toml`."""

from __future__ import annotations

import numpy as np

from policies import Seen, rule


@rule
def belief_map(seen: Seen, *, reach_nm=10.0, likeness=0.5, greed=1.0, step_nm=None, weigh_by_survey=True):
    """Where much is expected or little is known: a belief about the rate of finds, by place and brightness."""
    places, looked = seen.places_nm(step_nm), seen.fields_nm
    bright, bright_there = seen.survey_at(places), seen.survey_at(looked)
    apart = np.linalg.norm(places[:, None] - looked, axis=2) / reach_nm
    unlike = (bright[:, None] - bright_there) / (likeness * max(bright.max(), 1e-9))
    near = np.exp(-(apart**2 + unlike**2) / 2)  # how much a field taken tells about a place
    area = seen.values("clean_area_nm2", missing_value=1.0)
    worth = 1 + 1e-6 * seen.rng.random(len(places))  # ties are broken at random
    for name in seen.outcomes("found", "counts_"):
        found = seen.values(name)
        rate = (found.sum() + 1) / (area.sum() + 1)
        known = 1 + rate * (near @ area)  # finds that would be average here
        worth += greed * np.sqrt((1 + near @ found) / known) + 0.5 / np.sqrt(known)
    if weigh_by_survey and bright.any():
        worth *= bright
    worth[seen.taken(places)] = 0
    best = int(worth.argmax())
    if worth[best] <= 0:
        return None
    why = f"highest worth of {len(places)} places, survey {bright[best]:.2g}, after {len(looked)} fields"
    return {"x_nm": places[best, 0], "y_nm": places[best, 1]}, {"why": why, "worth": worth[best]}
