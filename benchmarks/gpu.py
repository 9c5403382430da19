"""The simulator on a GPU: each result checked against the CPU first, then timed; `python -m benchmarks.gpu --out FILE`.

Needs torch with CUDA or CuPy, and neither Prefect nor a web framework. Times are wall seconds around a synchronised
device; the first image (with everything to build) and a second one that uses what was kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

from benchmarks.simulation_cases import Case, molybdenum_disulphide, strontium_titanate
from instruments.optics import Optics
from simulation import AnnularDetector, DeviceUnavailable, GridScan, PixelatedDetector, Simulator
from simulation.backend import backend


@dataclass(frozen=True, slots=True)
class Job:
    """One image: a case, a method, how many probes are timed and how many compared, and how far they may differ."""

    name: str
    case: Case
    atoms: ase.Atoms
    method: str
    probes: int
    compared: int
    tolerance: float
    patterns: bool = False


def jobs(scale: str) -> list[Job]:
    """`full` as published tables have it, `small` for a look whether everything runs."""
    sto, crystal = strontium_titanate()
    layer, atoms = molybdenum_disulphide((16, 9), 512, 64)
    small = scale == "small"
    found = [
        Job("srtio3 multislice", sto, crystal, "multislice", 4 if small else 16, 3, 1e-3),
        Job("srtio3 periodic", sto, crystal, "periodic", 8 if small else 64, 3, 1e-3),
        Job("mos2 multislice", layer, atoms, "multislice", 4 if small else 64, 3, 1e-3),
        Job("mos2 windowed", layer, atoms, "windowed", 8 if small else 256, 6, 1e-2),
        Job("mos2 patterns", layer, atoms, "multislice", 2 if small else 32, 2, 1e-3, patterns=True),
    ]
    if not small:
        field, wide = molybdenum_disulphide((64, 37), 2048, 256)
        found.append(Job("mos2 20 nm windowed", field, wide, "windowed", 256, 6, 1e-2))
    return found


def measured(job: Job, device: str) -> dict[str, Any]:
    """Cost on the device and the largest difference from the CPU, over the spread of the CPU's image."""
    own, reference = _simulator(job, device), _simulator(job, "cpu")
    differences: dict[str, float] = {}
    few = _exposure(job, job.compared)
    images, exact = own.image(*few), reference.image(*few)
    for name in few[2]:
        spread = float(exact[name].std()) or 1.0
        differences[name] = float(np.abs(images[name] - exact[name]).max()) / spread
    if max(differences.values()) > job.tolerance:
        raise SystemExit(f"{job.name} on {device} differs from the CPU by {differences} of the spread")
    fresh = _simulator(job, device)
    synchronise = _synchronise(device)
    seconds: list[float] = []
    for _ in range(2):
        synchronise()
        start = time.perf_counter()
        made = fresh.image(*_exposure(job, job.probes))
        synchronise()
        seconds.append(time.perf_counter() - start)
    return {
        "job": job.name, "device": device, "probes": job.probes**2, "first_s": seconds[0], "again_s": seconds[1],
        "largest_difference_over_std": differences, "method": made.attrs["method"],
        "window_px": made.attrs["window_px"],
    }  # fmt: skip


def _simulator(job: Job, device: str) -> Simulator:
    return Simulator(
        job.atoms, method=job.method, grid_shape_px=(job.case.gpts, job.case.gpts),
        slice_thickness_nm=job.case.slice_angstrom / 10, accuracy=0.03, device=device,
    )  # fmt: skip


def _exposure(job: Job, probes: int) -> tuple[Optics, GridScan, dict[str, Any]]:
    case = job.case
    (x0, y0), (x1, y1) = case.scan_start, case.scan_end
    optics = Optics(beam_energy_ev=case.energy_ev, semi_convergence_angle_mrad=case.semi_angle_mrad)
    detectors: dict[str, Any] = {name: AnnularDetector(*ring) for name, ring in case.detectors.items()}
    if job.patterns:
        detectors["patterns"] = PixelatedDetector(max_angle_mrad=60)
    scan = GridScan(x0 / 10, y0 / 10, (x1 - x0) / 10, (y1 - y0) / 10, (probes, probes))
    return optics, scan, detectors


def _synchronise(device: str) -> Callable[[], None]:
    if device == "cuda":
        return importlib.import_module("torch").cuda.synchronize
    if device == "cupy":
        return importlib.import_module("cupy").cuda.Stream.null.synchronize
    return lambda: None


def _described(device: str) -> dict[str, Any]:
    if device == "cuda":
        torch = importlib.import_module("torch")
        return {"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}
    if device == "cupy":
        cupy = importlib.import_module("cupy")
        return {"cupy": cupy.__version__, "gpu": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()}
    return {}


def main() -> None:
    """A line a job; JSON with --out. Ends with status 1 where no device is found or a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default="cuda,cupy")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    devices: dict[str, Any] = {}
    for device in options.devices.split(","):
        try:
            backend(device)
        except DeviceUnavailable as error:
            print(f"{device}: {error}")
            continue
        devices[device] = _described(device)
        for job in jobs(options.scale):
            rows.append(measured(job, device))
            print(json.dumps(rows[-1]), flush=True)
    if options.out is not None:
        document = {"benchmark": "gpu", "scale": options.scale, "devices": devices, "rows": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not rows:
        raise SystemExit("no GPU was found: nothing was checked")


if __name__ == "__main__":
    main()
