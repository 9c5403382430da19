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
# # A first experiment
#
# An hour with stempilot, without a microscope: what an experiment's spec says, what the simulated instrument can do, what its
# frames look like, a run with every decision and its reason, and where everything is kept.
#
# The question: which native point defects does a WSe₂ monolayer have, how many of each, without counting those the beam
# makes? The specimen here is small (60 nm), so that all of this takes seconds.

# %%
from pathlib import Path

import h5py
import matplotlib.pyplot as plt

from instruments import CommandRefused
from workflows.notebook import Laboratory

EXAMPLES = next(folder for folder in (Path("examples"), Path("../examples")) if folder.is_dir())

# %% [markdown]
# ## What a spec says
#
# A spec is a YAML file: specimen, instrument, what a policy may choose and between which bounds, the question, the budget and
# the limits nobody may exceed. `stempilot new` writes a commented one. Keys can be set from here, as `--set` does on the
# command line; these make the specimen small and the run short.

# %%
SMALL = {
    "name": "Native defects, a small piece",
    "instrument.config": {
        "width_nm": 60, "height_nm": 60, "window_min_nm": 8, "window_max_nm": 20, "phonon_count": 2,
        "densities_per_nm2": {"V_Se": 0.018, "O_Se": 0.006, "V_Se2": 0.002, "Mo_W": 0.009},
    },
    "search_space.x_nm": {"low": -30, "high": 30, "resolution": 0.1},
    "search_space.y_nm": {"low": -30, "high": 30, "resolution": 0.1},
    "search_space.field_of_view_nm": {"low": 2, "high": 60},
    "objective.options.phonon_count": 2,
    "budget": {"electrons": 5e7, "instrument_time_s": 600},
}
laboratory = Laboratory(EXAMPLES / "native_defects.yaml", SMALL)
laboratory.spec

# %% [markdown]
# ## What the instrument can do
#
# Every instrument says what it can do before anything is asked of it: its modes (detectors that are read together), what can
# be set and how long it takes to settle, and its quirks. A policy never sees the instrument, only the search space.

# %%
laboratory.capabilities

# %%
laboratory.capabilities.plot();

# %% [markdown]
# ## Two frames by hand
#
# The forward model of this specimen (what its lattice and each defect look like at these optics) is computed once and kept in
# the data folder: some fifteen seconds the first time. Then a frame at a low dose over a large field, and one that
# resolves the lattice.

# %%
laboratory.prepare()
SEED = 3
scan = {"mode": "maadf", "probe_current_pa": 30, "defocus_nm": 0}
survey = laboratory.frame_at(
    {"purpose": "survey", "x_nm": 0, "y_nm": 0, "field_of_view_nm": 60, "pixel_size_nm": 0.2, "dwell_time_us": 1, **scan},
    seed=SEED,
)
field = laboratory.frame_at(
    {"purpose": "field", "x_nm": 12, "y_nm": 8, "field_of_view_nm": 8, "pixel_size_nm": 0.04, "dwell_time_us": 4, **scan},
    seed=SEED,
)
survey

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
survey.plot("maadf", axes=left)
field.plot("maadf", axes=right);

# %% [markdown]
# In the survey the clean specimen is dark and the contamination bright; in the field every dot is a column of atoms.
#
# Dose is guarded outside of any policy: whatever asks, a frame beyond the limits is refused before the beam moves.

# %%
try:
    laboratory.frame_at(
        {"purpose": "field", "x_nm": 0, "y_nm": 0, "field_of_view_nm": 1, "pixel_size_nm": 0.02, "dwell_time_us": 80, **scan},
        seed=SEED,
    )
except CommandRefused as refusal:
    print(refusal)

# %% [markdown]
# ## A run, recorded
#
# The whole loop, as `stempilot run` does it: suggestion, command, frame, features, score, record. Every intent is on disk before
# the microscope is told, every frame before it is looked at. Each line below is one decision: what it was for, where, why, and
# what is known after it.

# %%
run = laboratory.record(seed=SEED, say=print)

# %%
run

# %% [markdown]
# ## The same run, in memory
#
# For trying things out nothing need be written. The same seed is the same world, and the same decisions follow.

# %%
trial = laboratory.run(seed=SEED)
recorded_points = [decision["point"] for decision in run.document()["decisions"]]
print("decisions:", len(trial.steps), "- the same as recorded:", recorded_points == trial.points)
trial

# %% [markdown]
# Where did it look? First the survey, then a short focus series on a spot that is worth least, then fields where the clean
# specimen promises most confirmed defects for what they cost, and second looks at undecided sites.

# %%
trial.plot_points();

# %%
trial.ledger.plot();

# %% [markdown]
# One decision with its numbers, and what was measured in its frame:

# %%
decided = trial.of_purpose("field")[0]
decided

# %%
decided.features

# %% [markdown]
# This world is simulated, so it can be asked afterwards for the truth (nothing that decides ever can). Recall is the share of
# native defects that were found and confirmed with the right species.

# %%
trial.plot("recall");

# %% [markdown]
# ## In the catalogue
#
# The data folder holds a database and one NeXus file for every frame. The rows know where each file is; any HDF5 reader opens
# it, and the frame is also at hand as an xarray data set.

# %%
stored = next(frame for frame in run.frames() if frame.purpose == "field")
stored

# %%
with h5py.File(run.path(stored)) as file:
    event = file["entry1/measurement/event1"]
    print(file["entry1/definition"].asstr()[()], "from", event["start_time"].asstr()[()], "to", event["end_time"].asstr()[()])
    for name in event:
        if name.startswith("image_"):
            counts = event[name]["stack_2d/real"]
            print(name, counts.shape, counts.dtype, "largest count", int(counts[()].max()))

# %%
dataset = run.load(stored).to_xarray()
dataset

# %%
print("mean counts of a pixel:", {name: round(float(counts.mean()), 2) for name, counts in dataset.sum("subframe").items()})

# %% [markdown]
# ## The report
#
# One HTML file that needs no network: headline numbers, densities with their intervals, what cannot be determined, every decision.
# Open it in a browser. The same run is now known to the command line: `stempilot list`, `show`, `replay`.

# %%
print(run.report())

# %% [markdown]
# Next: `02_design_a_policy` writes a policy of its own and holds it against the built-in one.
