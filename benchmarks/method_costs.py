"""What each method costs beside what is predicted, and whether `auto` takes the cheapest; `-m benchmarks.method_costs`.

Layers, crystals, a particle and an amorphous film, from one to thousands of probes. Methods of one case are timed one
after the other, on one thread, each with all that it does: potential, what is made once, and its check against
multislice. Multislice is timed for two numbers of probes and reckoned for the others. CPU-seconds.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.build import mx2
from ase.cluster import Octahedron

from benchmarks.simulation_cases import Case, doped_strontium_titanate, molybdenum_disulphide, strontium_titanate
from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, MethodUnavailable, Simulator
from simulation.builders import amorphous_film
from simulation.specimens import orthogonal_cell

_ACCURACY = 0.03
_SIDES = (1, 4, 16, 64)
_MULTISLICE_SIDES = (2, 8)
_HOPELESS = 1.5
"""A method is not timed for more probes where it took so much longer for fewer than another does for these."""
_METHODS = ("periodic", "local_difference", "windowed")


def layer(cells: tuple[int, int], gpts: int, *, perfect: bool = False) -> tuple[Case, ase.Atoms]:
    """MoS2 with a dopant and a vacancy, or without."""
    case, atoms = molybdenum_disulphide(cells, gpts, 8)
    if not perfect:
        return replace(case, name=f"mos2 {gpts} px, defects"), atoms
    atoms = orthogonal_cell(mx2("MoS2", kind="2H", a=3.18, thickness=3.19, vacuum=3.0)) * (*cells, 1)
    return replace(case, name=f"mos2 {gpts} px"), atoms


def thin_crystal(cells: int, deep: int, *, doped: bool) -> tuple[Case, ase.Atoms]:
    """SrTiO3 of some unit cells, one of them scanned, perhaps with niobium for one titanium."""
    case, atoms = strontium_titanate()
    a = float(atoms.cell.lengths()[0]) / 5
    unit = atoms[:5]
    unit.set_cell((a, a, a))
    crystal = unit * (cells, cells, deep)
    if doped:
        middle = ((cells // 2 + 0.5) * a, (cells // 2 + 0.5) * a, (deep // 2 + 0.75) * a)
        crystal.numbers[int(np.argmin(np.sum((crystal.positions - middle) ** 2, axis=1)))] = 41
    start = (cells // 2 * a, cells // 2 * a)
    end = (start[0] + a, start[1] + a)
    name = f"srtio3 {deep * a / 10:.0f} nm{', dopant' if doped else ''}"
    return replace(case, name=name, gpts=80 * cells, scan_start=start, scan_end=end), crystal


def particle() -> tuple[Case, ase.Atoms]:
    """Gold, not aligned."""
    gold = Octahedron("Au", 7, 2)
    gold.rotate(17, "z")
    gold.set_cell((50, 50, 36))
    gold.center()
    gold.pbc = True
    return Case("gold particle", 200e3, 25, 480, 2, {"haadf": (80, 160), "abf": (12, 25)}, (0, 0), (50, 50), 8), gold


def film(depth_nm: float) -> tuple[Case, ase.Atoms]:
    """Amorphous carbon."""
    carbon = amorphous_film("C", width_nm=4.0, height_nm=4.0, thickness_nm=depth_nm)
    rings = {"haadf": (60.0, 120.0), "abf": (10.0, 20.0)}
    return Case(f"amorphous carbon {depth_nm:g} nm", 80e3, 20, 320, 2, rings, (0, 0), (40, 40), 8), carbon


_CASES: dict[str, Callable[[], tuple[Case, ase.Atoms]]] = {
    "small layer": lambda: layer((8, 4), 256),
    "layer": lambda: layer((16, 9), 512),
    "perfect layer": lambda: layer((8, 4), 256, perfect=True),
    "thin crystal": lambda: thin_crystal(4, 13, doped=False),
    "thin doped crystal": lambda: thin_crystal(4, 13, doped=True),
    "thick crystal": strontium_titanate,
    "thick doped crystal": doped_strontium_titanate,
    "particle": particle,
    "film": lambda: film(4.0),
    "thick film": lambda: film(10.0),
}


def timed(case: Case, atoms: ase.Atoms, method: str, side: int) -> dict[str, Any] | None:
    """CPU-seconds of an image, what was taken, its stated error; None where the method is not for such a specimen."""
    (x0, y0), (x1, y1) = case.scan_start, case.scan_end
    optics = Optics(beam_energy_ev=case.energy_ev, semi_convergence_angle_mrad=case.semi_angle_mrad)
    scan = GridScan(x0 / 10, y0 / 10, (x1 - x0) / 10, (y1 - y0) / 10, (side, side))
    detectors = {name: AnnularDetector(*ring) for name, ring in case.detectors.items()}
    start = time.process_time()
    simulator = Simulator(atoms, method=method, grid_shape_px=(case.gpts, case.gpts), accuracy=_ACCURACY, device="cpu",
                          slice_thickness_nm=case.slice_angstrom / 10, threads=1)  # fmt: skip
    try:
        images = simulator.image(optics, scan, detectors)
    except MethodUnavailable:
        return None
    used = time.process_time() - start
    found = {"cpu_s": used, "taken": images.attrs["method"], "error_estimate": images.attrs["error_estimate"]}
    if method == "auto":
        fresh = Simulator(atoms, grid_shape_px=(case.gpts, case.gpts), accuracy=_ACCURACY, device="cpu",
                          slice_thickness_nm=case.slice_angstrom / 10, threads=1)  # fmt: skip
        offered = fresh._trial.candidates(optics, side**2, detectors)  # pyright: ignore[reportPrivateUsage]
        found["predicted_gflop"] = {
            f"{each.method} {each.window_px[0] if each.window_px else ''}".strip(): each.work_flops / 1e9
            for each in offered
        }
    return found


def rows(case: Case, atoms: ase.Atoms) -> list[dict[str, Any]]:
    """One for each number of probes: what methods cost, and `auto` over the cheapest that was within the accuracy."""
    few, many = (timed(case, atoms, "multislice", side) for side in _MULTISLICE_SIDES)
    assert few is not None
    assert many is not None
    counts = [side**2 for side in _MULTISLICE_SIDES]
    each_s = (many["cpu_s"] - few["cpu_s"]) / (counts[1] - counts[0])
    made: list[dict[str, Any]] = []
    last: dict[str, float] = {}
    for side in _SIDES:
        costs = {"multislice": few["cpu_s"] + (side**2 - counts[0]) * each_s}
        stated = {"multislice": 0.0}
        for method in _METHODS:
            if method in last and last[method] > _HOPELESS * min(costs.values()):
                continue
            found = timed(case, atoms, method, side)
            if found is not None:
                costs[method], stated[method] = found["cpu_s"], found["error_estimate"]
                last[method] = found["cpu_s"]
        auto = timed(case, atoms, "auto", side)
        assert auto is not None
        cheapest = min((method for method in costs if stated[method] <= _ACCURACY), key=lambda method: costs[method])
        made.append({
            "case": case.name, "probes": side**2, "cpu_s": costs, "error_estimates": stated, "auto": auto,
            "cheapest": cheapest, "auto_over_cheapest": auto["cpu_s"] / costs[cheapest],
        })  # fmt: skip
    return made


def main() -> None:
    """A line a row; JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(_CASES), help=", ".join(_CASES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # steps too wide for a source: there is none here
    timed(*layer((8, 4), 256), "windowed", 2)  # what a process makes once
    found: list[dict[str, Any]] = []
    for name in options.cases.split(","):
        case, atoms = _CASES[name]()
        timed(case, atoms, "multislice", 1)
        for row in rows(case, atoms):
            found.append(row)
            print(json.dumps(row), flush=True)
    if options.out is not None:
        document = {"benchmark": "method_costs", "accuracy": _ACCURACY, "rows": found}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
