"""Cost and error of the image methods on a MoS2 monolayer with defects; run with `python -m benchmarks.simulation`.

5 x 5 nm, 512 x 512 pixels, ten slices, 60 kV, 30 mrad, annular dark field 80-160 mrad and annular bright field
15-30 mrad. CPU-seconds of this process (all its threads), once with everything to build and once re-imaged.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import ase
import numpy as np
from ase.build import mx2

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, Simulator
from simulation.specimens import orthogonal_cell

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30)
DETECTORS = {"adf": AnnularDetector(80, 160), "abf": AnnularDetector(15, 30)}
METHODS = ({"method": "multislice"}, {"method": "prism", "interpolation": 4}, {"method": "auto", "accuracy": 0.05})


def specimen() -> ase.Atoms:
    """A layer of 16 x 9 rectangular cells with one tungsten dopant and one sulphur vacancy."""
    layer = orthogonal_cell(mx2("MoS2", kind="2H", a=3.18, thickness=3.19, vacuum=3.0)) * (16, 9, 1)
    metals = np.flatnonzero(layer.numbers == 42)
    layer.numbers[metals[len(metals) // 2]] = 74
    del layer[int(np.flatnonzero(layer.numbers == 16)[40])]
    return layer


def measure(pixels_count: int, device: str) -> list[dict[str, Any]]:
    """One row a method, with errors against multislice, the first."""
    atoms = specimen()
    width_nm, height_nm = atoms.cell.lengths()[:2] / 10
    scan = GridScan(0, 0, width_nm, height_nm, (pixels_count, pixels_count))
    rows: list[dict[str, Any]] = []
    reference = None
    for method in METHODS:
        simulator = Simulator(atoms, grid_shape_px=(512, 512), slice_thickness_nm=0.0919, device=device, **method)
        cpu_s: list[float] = []
        for _ in range(2):
            start_s = time.process_time()
            images = simulator.image(OPTICS, scan, DETECTORS)
            cpu_s.append(time.process_time() - start_s)
        reference = images if reference is None else reference
        errors = {
            name: float(np.sqrt(((images[name] - reference[name]) ** 2).mean()) / reference[name].std())
            for name in DETECTORS
        }
        used = f"{images.attrs['method']} f{images.attrs['interpolation']}"
        rows.append(
            {
                "asked": method["method"],
                "used": used,
                "probes_count": pixels_count**2,
                "first_cpu_s": cpu_s[0],
                "again_cpu_s": cpu_s[1],
                "rms_over_std": errors,
                "error_estimate": images.attrs["error_estimate"],
            }
        )
    return rows


def main() -> None:
    """Print a row a method, as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels-count", type=int, default=16, help="scan pixels a side (64 takes a minute)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.pixels_count, options.device)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        errors = ", ".join(f"{name} {value:.2%}" for name, value in row["rms_over_std"].items())
        print(
            f"{row['asked']:>11} -> {row['used']:13} {row['probes_count']:6d} probes"
            f" {row['first_cpu_s']:7.2f} CPU-s, again {row['again_cpu_s']:7.2f}; error over std: {errors}"
        )


if __name__ == "__main__":
    main()
