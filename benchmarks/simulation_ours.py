"""stempilot images one case in a process of its own: `-m benchmarks.simulation_ours CASE.json METHOD PROBES OUT.npz`.

METHOD is `name-placement:accuracy@phonons#drawn`, all but the name optional; `#20` images 20 of the probes, at random.
A second case file, given last, is imaged with what was kept of the first; its cost is printed as `again_...`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import xarray

from benchmarks.simulation_cases import drawn_probes
from instruments.optics import Aberrations, Optics
from simulation import AnnularDetector, FrozenPhonons, GridScan, PointScan, Simulator
from simulation.backend import backend
from simulation.method_choice import Candidate
from simulation.sources import Sources

_RMS_DISPLACEMENT_NM = 0.006
_MARGINAL_COUNT = 4096


def main() -> None:
    """Prints CPU-seconds, wall seconds and memory as JSON; images go to OUT."""
    path, method, probes, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    case = json.loads(path.read_text(encoding="utf-8"))
    method, _, drawn_count = method.partition("#")
    method, _, phonon_count = method.partition("@")
    name, _, accuracy = method.partition(":")
    name, _, placement = name.partition("-")
    backend("cpu")  # imports torch; what is imported, here as by the peer, is before the clock
    xarray.Dataset(coords={"x": [0.0]})  # imports whatever packages of units and arrays xarray finds
    (atoms,) = ase.io.iread(path.with_suffix(".extxyz"))
    phonons = FrozenPhonons(int(phonon_count), _RMS_DISPLACEMENT_NM) if phonon_count else None
    imported_gb = _peak_memory_gb()
    start_cpu, start = time.process_time(), time.perf_counter()
    simulator = Simulator(
        atoms, method=name.rstrip("124"), interpolation=int(name[-1]) if name[-1] in "124" else 1,
        grid_shape_px=(case["gpts"], case["gpts"]), slice_thickness_nm=case["slice_angstrom"] / 10,
        placement=placement or "exact", accuracy=float(accuracy or 0.01), device="cpu", phonons=phonons,
    )  # fmt: skip
    optics, scan, detectors = _exposure(case, probes)
    if drawn_count:
        scan = PointScan(scan.points_angstrom()[drawn_probes(probes, int(drawn_count))] / 10)
    images = simulator.image(optics, scan, detectors)
    used: dict[str, Any] = {"cpu_s": time.process_time() - start_cpu, "wall_s": time.perf_counter() - start}
    used |= {"memory_gb": _peak_memory_gb(), "memory_above_import_gb": _peak_memory_gb() - imported_gb}
    used |= {"method": images.attrs["method"], "window_px": images.attrs["window_px"]}
    used |= {"interpolation": images.attrs["interpolation"], "error_estimate": images.attrs["error_estimate"]}
    if used["method"] == "windowed":
        used["marginal_ms_per_probe"] = _marginal_ms(simulator, tuple(used["window_px"]), *_exposure(case, probes))
    if len(sys.argv) > 5:
        other = json.loads(Path(sys.argv[5]).read_text(encoding="utf-8"))
        start_cpu, start = time.process_time(), time.perf_counter()
        images = simulator.image(*_exposure(other, probes))
        used |= {"again_cpu_s": time.process_time() - start_cpu, "again_wall_s": time.perf_counter() - start}
    made: dict[str, Any] = {name: np.asarray(images[name]) for name in case["detectors"]}
    np.savez(out, **made)
    print(json.dumps(used))


def _marginal_ms(
    simulator: Simulator,
    window_px: tuple[int, int],
    optics: Optics,
    scan: GridScan,
    detectors: dict[str, AnnularDetector],
) -> float:
    """CPU-time of one more probe: the windows alone, without what an image costs once."""
    sources: Sources = vars(simulator)["_sources"]
    source = sources.signal_source(Candidate("windowed", 1, 0.0, window_px), 0, optics)
    assert source is not None
    points = scan.points_angstrom()[:_MARGINAL_COUNT]
    start = time.process_time()
    source.signals(optics, points, detectors)
    return (time.process_time() - start) / len(points) * 1e3


def _peak_memory_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _exposure(case: dict[str, Any], probes: int) -> tuple[Optics, GridScan, dict[str, AnnularDetector]]:
    (x0, y0), (x1, y1) = case["scan_start"], case["scan_end"]
    optics = Optics(
        beam_energy_ev=case["energy_ev"],
        semi_convergence_angle_mrad=case["semi_angle_mrad"],
        defocus_nm=case["defocus_angstrom"] / 10,
        aberrations=Aberrations(c12_nm=case["c12_angstrom"] / 10),
    )
    scan = GridScan(x0 / 10, y0 / 10, (x1 - x0) / 10, (y1 - y0) / 10, (probes, probes))
    return optics, scan, {name: AnnularDetector(*ring) for name, ring in case["detectors"].items()}


if __name__ == "__main__":
    main()
