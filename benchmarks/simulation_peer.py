"""abTEM images one case, run by a Python that has it.

`PYTHON simulation_peer.py CASE.json METHOD PROBES OUT.npz [gpu]`.

A separate program under its own licence: stempilot neither imports it nor needs it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import abtem
import ase.io
import numpy as np


def main() -> None:
    """Prints CPU-seconds, wall seconds and memory as JSON; images go to OUT."""
    path, method, probes, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    case = json.loads(path.read_text(encoding="utf-8"))
    device = sys.argv[5] if len(sys.argv) > 5 else "cpu"
    abtem.config.set({"device": device, "fftw.planning_effort": "FFTW_MEASURE", "diagnostics.progress_bar": False})
    import dask

    dask.config.set(scheduler="threads", num_workers=2)
    atoms = ase.io.read(path.with_suffix(".extxyz"))
    imported_gb = _peak_memory_gb()
    start_cpu, start = time.process_time(), time.perf_counter()
    potential = abtem.Potential(
        atoms, gpts=case["gpts"], slice_thickness=case["slice_angstrom"], parametrization="lobato"
    )
    aberrations = {"C10": -case["defocus_angstrom"], "C12": case["c12_angstrom"]}
    scan = abtem.GridScan(case["scan_start"], case["scan_end"], gpts=probes)
    detectors = [abtem.AnnularDetector(*ring) for ring in case["detectors"].values()]
    if method == "multislice":
        probe = abtem.Probe(energy=case["energy_ev"], semiangle_cutoff=case["semi_angle_mrad"], **aberrations)
        measured = probe.scan(potential, scan=scan, detectors=detectors)
    else:
        matrix = abtem.SMatrix(
            potential=potential, energy=case["energy_ev"], semiangle_cutoff=case["semi_angle_mrad"],
            interpolation=int(method.removeprefix("prism")),
        )  # fmt: skip
        measured = matrix.scan(scan=scan, detectors=detectors)
    images = abtem.stack(measured).compute() if not isinstance(measured, list) else [m.compute() for m in measured]
    used = {"cpu_s": time.process_time() - start_cpu, "wall_s": time.perf_counter() - start}
    used |= {"memory_gb": _peak_memory_gb(), "memory_above_import_gb": _peak_memory_gb() - imported_gb}
    np.savez(out, **{name: image.to_cpu().array.T for name, image in zip(case["detectors"], images, strict=True)})
    print(json.dumps(used))


def _peak_memory_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
