"""How well `focus_series` finds the focus of hidden worlds, and how well somebody does who takes the sharpest frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import median
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from instruments import AcquireFrame, HiddenTruth
from instruments.units import wavelength_nm
from orchestrator import loop
from orchestrator.errors import SpecError
from orchestrator.features.sharpness import ring_power
from orchestrator.mapping import command_for
from orchestrator.memory_record import MemoryRecord
from orchestrator.objectives.focus import FocusSearch
from orchestrator.settings import InstrumentSettings, Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import parse_spec
from orchestrator.versions import versions
from simulation.microscope import SimulatedMicroscope
from workflows.assembly import Parts, join, make_policy, prepare

PLACES = ("clean", "contaminated")
_DWELL_US = {"clean": 1.0, "contaminated": 4.0}
_FIELD_NM = {"clean": 4.0, "contaminated": 8.0}
_LOOK_US = 0.5
_CURRENT_PA = {"clean": 10.0, "contaminated": 30.0}
_SWEEP_NM = np.arange(-5.0, 5.01, 0.5)  # about where the best is expected
_EXPECTED_BEST_NM = 0.75  # of total defocus: half of c30 angle^2 and a little more


def bench_focus(seeds: int, settings: Settings, say: Callable[[str], None], progress: object = None) -> dict[str, Any]:
    """Errors of the defocus found on `seeds` worlds, against the best contrast that noiseless images show."""
    del progress  # short enough to be run again
    rows: list[dict[str, Any]] = []
    for place in PLACES:
        for seed in range(seeds):
            row = focus_once(seed, place, settings.data_folder / "cache")
            rows.append(row)
            say(_line(row))
    summary = {place: _summary([row for row in rows if row["place"] == place]) for place in PLACES}
    for place, numbers in summary.items():
        say(f"{place}: " + ", ".join(f"{name} {_short(value)}" for name, value in numbers.items()))
    result = {"benchmark": "focus", "versions": versions(), "seeds": seeds, "summary": summary, "runs": rows}
    say(table(result))
    return result


def focus_once(seed: int, place: str, cache_folder: Any) -> dict[str, Any]:
    """One series on one world: what was found, what would have been best, and what it cost."""
    spec = _spec()
    point = {"field_of_view_nm": _FIELD_NM[place], "dwell_time_us": _DWELL_US[place], "x_nm": 106.0, "y_nm": 0.0}
    point["probe_current_pa"] = _CURRENT_PA[place]
    parts = _opened(spec, seed, cache_folder)
    if place == "clean":
        point["x_nm"], point["y_nm"] = _clean_spot(parts.microscope)
    policy = make_policy(parts, spec.policy.name, {**spec.policy.options, **point})
    experiment = join(parts, policy, MemoryRecord("focus"), lambda kind, payload: None)
    ending = loop.run(experiment)
    search, twin = parts.question.objective, parts.microscope
    if not isinstance(search, FocusSearch) or not isinstance(twin, SimulatedMicroscope):
        raise SpecError("this benchmark looks into the simulated microscope; instrument.name must be simulated")
    focus = search.summary()["focus"]
    actions = [twin.truth()["actions"][name] for name in search.action_ids]
    tried_nm = search.maps()["focus_tried_nm"]
    # By the defocus that the images were made with, which the twin takes in steps of 0.5 nm.
    offset_nm = float(np.mean([action["true_defocus_nm"] for action in actions]) - np.mean(tried_nm))
    best_nm = best_contrast_nm(twin, spec, {**_FIXED, **point}) - offset_nm
    maps = search.maps()
    sharpest_nm = float(tried_nm[int(np.argmax(maps["focus_sharpness"]))])
    found_nm = focus["defocus_nm"]
    set_nm = None if found_nm is None else float(np.round(found_nm / search.step_nm) * search.step_nm)
    return {
        "seed": seed,
        "place": place,
        "reason": ending.reason,
        "frames": focus["frames"],
        "dose_e_per_a2": focus["dose_e_per_a2"],
        "electrons": experiment.microscope.ledger.electrons,
        "instrument_time_s": experiment.spent.instrument_time_s,
        "hidden_offset_nm": offset_nm,
        "found_nm": found_nm,
        "std_nm": focus["std_nm"],
        "best_contrast_total_defocus_nm": best_nm + offset_nm,
        "error_nm": None if found_nm is None else found_nm - best_nm,
        "error_as_set_nm": None if set_nm is None else set_nm - best_nm,
        "error_to_gaussian_nm": None if found_nm is None else found_nm + offset_nm,
        "sharpest_frame_error_nm": sharpest_nm - best_nm,
    }


_FIXED: dict[str, Any] = {"pixel_size_nm": 0.05, "mode": "maadf", "probe_current_pa": 30.0, "purpose": "calibrate"}


def _spec() -> ExperimentSpec:
    from importlib.resources import files

    template = str(files("workflows") / "templates" / "WSe2.extxyz")
    document: dict[str, Any] = {
        "name": "focus benchmark",
        "specimen": {
            "material": "WSe2 monolayer",
            "structure": template,
            "defects": {
                "V_Se": {"column": "Se2", "becomes": ["Se"]},
                "O_Se": {"column": "Se2", "becomes": ["Se", "O"]},
                "V_Se2": {"column": "Se2", "becomes": []},
                "Mo_W": {"column": "W", "becomes": ["Mo"]},
            },
        },
        "instrument": {
            "optics": {"beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5},
            "config": {"phonon_count": 4},
            "fixed": _FIXED,
        },
        "search_space": {"defocus_nm": {"low": -20, "high": 20, "resolution": 0.5}},
        "objective": {"name": "focus"},
        "policy": {"name": "focus_series", "options": {"low_nm": -10, "high_nm": 10}},
        "budget": {"frames": 40},
    }
    from pathlib import Path

    return parse_spec(document, Path("/"))


def _opened(spec: ExperimentSpec, seed: int, cache_folder: Any) -> Parts:
    return prepare(spec, seed, InstrumentSettings(adapter="simulated"), cache_folder)


def _clean_spot(world: Any) -> tuple[float, float]:
    """The middle of the largest clean window, as somebody finds it who has a survey image."""
    if not isinstance(world, HiddenTruth):
        raise SpecError("this benchmark needs a world that knows its truth")
    truth = world.truth()
    depth = distance_transform_edt(np.pad(truth["clean_mask"], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return column + 0.5 + truth["dose_map_x_min_nm"], row + 0.5 + truth["dose_map_y_min_nm"]


def best_contrast_nm(twin: SimulatedMicroscope, spec: ExperimentSpec, point: Mapping[str, Any]) -> float:
    """Total defocus at which the noiseless image of this area is sharpest, by exposing it again at twenty-one defoci.

    Scan jitter alone changes the sharpness of a frame by a few per cent, as 1 nm of defocus does near the best; so
    all of these frames are needed, by a cubic through the logarithm. Only for looking behind the curtain after a run.
    """
    optics = spec.instrument.optics
    limit_per_nm = 2e-3 * optics.semi_convergence_angle_mrad / wavelength_nm(optics.beam_energy_ev)
    totals, sharpness = [], []
    offset_nm = twin.truth()["focus_offset_nm"]
    there_and_back = [*_SWEEP_NM[::2], *_SWEEP_NM[1::2][::-1]]  # what the beam does meanwhile is no slope
    for number, wanted_nm in enumerate(there_and_back):
        command: AcquireFrame = command_for(
            {**point, "defocus_nm": float(wanted_nm + _EXPECTED_BEST_NM - offset_nm), "dwell_time_us": _LOOK_US},
            spec, twin.capabilities(), f"look-{number}",
        )  # fmt: skip
        twin.acquire(command)
        image = twin.noiseless(command.action_id, 0)["maadf"].astype(float)
        totals.append(twin.truth()["actions"][command.action_id]["true_defocus_nm"])
        sharpness.append(ring_power(image * 1e9, command.scan.pixel_size_nm, limit_per_nm).power.sum())
    return top_of_cubic(np.array(totals), np.log(sharpness))


def top_of_cubic(x: np.ndarray, y: np.ndarray) -> float:
    """Where a cubic through the points has its maximum."""
    middle = float(x.mean())
    cubic = np.polynomial.Polynomial.fit(x - middle, y, 3, domain=[])
    roots = [root.real for root in cubic.deriv().roots() if abs(root.imag) < 1e-9]
    tops = [root for root in roots if cubic.deriv(2)(root) < 0 and x.min() <= middle + root <= x.max()]
    if not tops:
        raise SpecError(f"sharpness has no maximum from {x.min():.1f} to {x.max():.1f} nm of defocus")
    return middle + min(tops, key=abs)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = [row for row in rows if row["error_nm"] is not None]
    return {
        "seeds": len(rows),
        "found": len(found),
        "rms_error_nm": _rms([row["error_nm"] for row in found]),
        "rms_error_as_set_nm": _rms([row["error_as_set_nm"] for row in found]),
        "worst_error_as_set_nm": max((abs(row["error_as_set_nm"]) for row in found), default=None),
        "rms_of_stated_std_nm": _rms([row["std_nm"] for row in found]),
        "rms_sharpest_frame_nm": _rms([row["sharpest_frame_error_nm"] for row in found]),
        "rms_to_gaussian_nm": _rms([row["error_to_gaussian_nm"] for row in found]),
        "median_frames": median(row["frames"] for row in rows),
        "median_dose_e_per_a2": median(row["dose_e_per_a2"] for row in rows),
        "median_electrons": median(row["electrons"] for row in rows),
        "median_time_s": median(row["instrument_time_s"] for row in rows),
    }


_COLUMNS = (
    "sacrificial area", "found", "rms error as set", "worst", "rms of stated error", "rms error as found",
    "sharpest frame, rms", "dose", "electrons", "microscope time",
)  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """The summary as the table in `docs/flows.md`."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for place, numbers in result["summary"].items():
        cells = [
            f"{place}, {_FIELD_NM[place]:g} nm, {_CURRENT_PA[place]:g} pA",
            f"{numbers['found']} of {numbers['seeds']}",
            f"{numbers['rms_error_as_set_nm']:.2f} nm",
            f"{numbers['worst_error_as_set_nm']:.2f} nm",
            f"{numbers['rms_of_stated_std_nm']:.2f} nm",
            f"{numbers['rms_error_nm']:.2f} nm",
            f"{numbers['rms_sharpest_frame_nm']:.2f} nm",
            f"{numbers['median_dose_e_per_a2']:,.0f} e/Å²",
            f"{numbers['median_electrons']:.2g}",
            f"{numbers['median_time_s']:.2g} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rms(values: list[float]) -> float | None:
    return sqrt(sum(value**2 for value in values) / len(values)) if values else None


def _line(row: Mapping[str, Any]) -> str:
    if row["error_nm"] is None:
        return f"{row['place']:13s} seed {row['seed']:3d}  {row['reason']}"
    return (
        f"{row['place']:13s} seed {row['seed']:3d}  offset {row['hidden_offset_nm']:+.2f} nm, found "
        f"{row['found_nm']:+.2f} +/- {row['std_nm']:.2f}, error {row['error_nm']:+.2f} (sharpest frame "
        f"{row['sharpest_frame_error_nm']:+.2f}) nm, {row['frames']} frames, {row['dose_e_per_a2']:.0f} e/A2"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
