# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Design a policy
#
# A policy decides where and how the next frame is taken. Here one is written in about twenty lines, held against a raster and
# the built-in policy on the simulated microscope and on a measured spectrum image, checked, and made a plug-in.
#
# What is compared is one number and a few seeds: enough to see whether an idea is worth a benchmark, not enough to publish.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from policies import Seen, rule
from workflows.notebook import Candidate, Laboratory

EXAMPLES = next(folder for folder in (Path("examples"), Path("../examples")) if folder.is_dir())

# %% [markdown]
# ## The idea
#
# After a survey, each place has a brightness. Keep a belief about how much will be found at each: a field tells most about places
# near it and of its brightness. The belief is a Gamma distribution of a rate (finds per area looked at), and is taken on the
# scale of its square root, where counting noise is the same everywhere. The next field goes where the square root of the
# expected rate plus its standard deviation is largest: an *upper confidence bound*. With `greed=0` only the uncertainty counts,
# and the policy maps instead of hunting.
#
# A **rule** is a function of what was `seen` to the values chosen and the reason, or to None when nothing is left. It keeps no
# state and draws what is random from `seen.rng`; then ids, costs, budgets, batches, snapshots and restarts are taken care of.

# %%
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


# %% [markdown]
# ## On the simulated microscope
#
# Rare, clustered point defects in a small WSe₂ monolayer, most of it contaminated. The search space says what a policy may
# choose, the context what it is told beforehand; the survey comes from the first frames.

# %%
HALF_NM = 30
WORLD = {
    "name": "Clustered defects, a small piece",
    "instrument.config": {
        "width_nm": 2 * HALF_NM, "height_nm": 2 * HALF_NM, "window_min_nm": 8, "window_max_nm": 20, "phonon_count": 2,
        "clustering_sigma": 1.2, "clustering_length_nm": 12,
        "densities_per_nm2": {"V_Se": 0.018, "O_Se": 0.006, "V_Se2": 0.002, "Mo_W": 0.009},
    },
    "search_space.x_nm": {"low": -HALF_NM, "high": HALF_NM, "resolution": 0.1},
    "search_space.y_nm": {"low": -HALF_NM, "high": HALF_NM, "resolution": 0.1},
    "search_space.field_of_view_nm": {"low": 2, "high": 2 * HALF_NM},
    "objective.options.phonon_count": 2,
    "budget": {"electrons": 6e7, "instrument_time_s": 600},
}
defects = Laboratory(EXAMPLES / "native_defects.yaml", WORLD)
defects.prepare()
defects.space

# %%
defects.context

# %% [markdown]
# ### Do the laws hold?
#
# The same observations must give the same suggestions, whatever happened in between; suggestions stay in the space and survive
# JSON; a failed, a refused and an unanswered frame are borne. `check` holds them against frames of this experiment.

# %%
FIELD = {
    "purpose": "field", "mode": "maadf", "field_of_view_nm": 8, "pixel_size_nm": 0.05, "dwell_time_us": 9,
    "probe_current_pa": 10,
}
SURVEY = {"field_of_view_nm": 30, "pixel_size_nm": 0.2, "dwell_time_us": 0.5}
RULE = {"survey": SURVEY, "step_nm": 2, "reach_nm": 8}
suggestions = defects.check(belief_map, options={**FIELD, **RULE, "defocus_nm": 0})
print(len(suggestions), "suggestions, every law holds; the last one:")
suggestions[-1]

# %% [markdown]
# ### Three policies, the same worlds, the same electrons
#
# The built-in policy `census` also chooses field sizes and doses, and takes second looks. The two others take equal fields at one
# dose, with the focus frames `census` took and the focus it found, so they differ in nothing but *where* they look: the rule
# after a survey of its own, the raster on a coarse grid without one.

# %%
SEEDS = (1, 2)


built_in = defects.compare({"census (built in)": None}, seeds=SEEDS, say=print)


def same_conditions(seed):
    """The field settings, after the focus frames that census took in this world and with the focus it found."""
    trial = built_in.trial("census (built in)", seed)
    focus = [step.point for step in trial.of_purpose("focus")]
    return {**FIELD, "defocus_nm": trial.of_purpose("field")[0].point["defocus_nm"], "prelude": focus}


on_defects = built_in | defects.compare(
    {
        "belief map": Candidate(belief_map, lambda seed: {**same_conditions(seed), **RULE}),
        "raster": Candidate("raster", lambda seed: {**same_conditions(seed), "step_nm": 20}),
    },
    seeds=SEEDS,
    say=print,
)
on_defects

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
on_defects.plot(axes=left)
on_defects.plot(against="instrument_time_s", axes=right);

# %% [markdown]
# Why the curves differ: where ours looked, and where the raster did, on the same world. White is clean specimen, tan is dirt, and
# grey is what no survey frame has shown.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
on_defects.trial("belief map", SEEDS[0]).plot_points(axes=left)
on_defects.trial("raster", SEEDS[0]).plot_points(axes=right);

# %% [markdown]
# ## On a measured spectrum image
#
# A recorded X-ray spectrum image stands in for a microscope: a policy sees its survey image and buys spectra, one cell of the map
# at a time. Half of the recorded counts are held out; how much of their deviance a map explains is the measure. The rule is the
# same, with other options: no greed, every place counts.
#
# The file is not part of stempilot: the folder that holds `replay/idp_tilt0_maps.npz` is named by `STEMPILOT_REAL_DATA`.

# %%
RECORD = Path(os.environ.get("STEMPILOT_REAL_DATA", "no-such-folder")) / "replay" / "idp_tilt0_maps.npz"
SPECTRA = 16
on_maps = None
if RECORD.is_file():
    maps = Laboratory(
        EXAMPLES / "fe_map_replay.yaml",
        {
            "instrument.config.file": str(RECORD.resolve()),
            "budget": {"frames": SPECTRA + 1, "instrument_time_s": 600},
            "objective.options.target_error": 1e-3,  # so that every policy takes all its spectra
        },
    )
    survey = {"purpose": "survey", "mode": "survey", "x_nm": 0, "y_nm": 0, "field_of_view_nm": 3349, "dwell_time_us": 1}
    cell = {"purpose": "field", "mode": "eds", "field_of_view_nm": 52.3, "dwell_time_us": 2170, "prelude": [survey]}
    step_nm = 3349 / SPECTRA**0.5
    on_maps = maps.compare(
        {
            "mapping (built in)": None,
            "belief map": Candidate(belief_map, {**cell, "reach_nm": 120, "greed": 0, "weigh_by_survey": False}),
            "raster": Candidate("raster", {**cell, "step_nm": step_nm}),
        },
        seeds=(0, 1),
        say=print,
    )
else:
    print("STEMPILOT_REAL_DATA names no folder with replay/idp_tilt0_maps.npz: going on with the simulated part only.")
on_maps

# %%
if on_maps is not None:
    on_maps.plot(against="instrument_time_s")

# %%
if on_maps is not None:
    last = on_maps.trials["belief map"][0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    last.plot_points(axes=left)
    last.plot_map("rate_Fe_Ka", axes=right)

# %% [markdown]
# ## What the numbers say
#
# Computed, not typed: run the notebook with other options or more seeds, and these sentences change.

# %%
def verdict_of(comparison, ours="belief map"):
    """A sentence for each other policy."""
    medians, measure = comparison.medians(), comparison.measure
    for other in comparison.trials:
        if other != ours:
            better = "above" if medians[ours] > medians[other] else "not above"
            print(
                f"{ours}: median {measure} {medians[ours]:.2f}, {better} {other} ({medians[other]:.2f}); "
                f"ahead on {comparison.won(ours, other)} of {len(comparison.seeds)} seeds"
            )


print("Simulated defects, at most", f"{defects.spec.budget.electrons:.2g} electrons:")
verdict_of(on_defects)
if on_maps is not None:
    print("Measured spectrum image,", SPECTRA, "spectra:")
    verdict_of(on_maps)

# %% [markdown]
# ## From here to a plug-in
#
# `examples/plugin_policy` is this rule as a package: one module, and one line in its `pyproject.toml`,
#
# ```toml
# [project.entry-points."stempilot.policies"]
# belief_map = "belief_map_policy:belief_map"
# ```
#
# After `pip install ./examples/plugin_policy` the policy has a name everywhere: `stempilot run SPEC.yaml --policy belief_map`, in a
# spec, in the queue. A policy that needs more than a rule implements the five methods of `policies.Policy`; the same check holds.

# %%
for path in sorted((EXAMPLES / "plugin_policy").iterdir()):
    if path.is_file():
        print(f"{path.name:24} {len(path.read_text(encoding='utf-8').splitlines())} lines")
