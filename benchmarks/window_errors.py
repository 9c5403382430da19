"""Whether the error that windows state holds: `python -m benchmarks.window_errors`, forty cases against multislice.

Layers with defects, twisted bilayers and gold particles on carbon, in and out of focus, at three voltages and on rings
and segments. For each: the error stated and the true one, both over the spread of the image, worst detector. Where
windows state more than was asked for, `auto` images the same probes and must be within it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import ase
import numpy as np

from instruments.optics import Optics
from orchestrator.versions import versions
from simulation import AnnularDetector, GridScan, MethodUnavailable, SegmentedDetector, Simulator
from simulation.builders import PointDefect, monolayer, nanoparticle, on_film, twisted_bilayer, with_random_defects
from simulation.detectors import Detector

_SAMPLING_NM = 0.018
_SLICE_NM = 0.2
_DETECTORS: dict[str, dict[str, Detector]] = {
    "wide": {"adf": AnnularDetector(50, 80), "abf": AnnularDetector(15, 30)},
    "narrow": {"maadf": AnnularDetector(32, 46), "bf": AnnularDetector(0, 10)},
    "segments": {"dpc": SegmentedDetector(8, 28, 1, 4)},
}


@dataclass(frozen=True, slots=True)
class Exposed:
    """One case: which specimen, how it is lit, and what is asked for."""

    specimen: str
    seed: int
    beam_energy_ev: float
    defocus_nm: float
    detectors: str
    accuracy: float

    @property
    def optics(self) -> Optics:
        """Of an aberration-corrected microscope: no aberration but defocus."""
        angle = 30.0 if self.beam_energy_ev < 1e5 else 22.0
        return Optics(beam_energy_ev=self.beam_energy_ev, semi_convergence_angle_mrad=angle, defocus_nm=self.defocus_nm)


def cases() -> list[Exposed]:
    """Forty, in the order in which they are run."""
    found: list[Exposed] = []
    for specimen, voltages in (("layer", (60e3, 80e3)), ("twisted", (60e3, 200e3)), ("particle", (200e3, 80e3))):
        for seed, energy in enumerate(voltages):
            for defocus in (0.0, 20.0, -20.0):
                found += [
                    Exposed(specimen, seed, energy, defocus, detectors, accuracy)
                    for detectors, accuracy in ((_ring(energy), 0.1), ("segments", 0.05))
                ]
    extra = [Exposed("layer", 2, 60e3, defocus, "wide", 0.02) for defocus in (0.0, 5.0)]
    extra += [Exposed("twisted", 2, 80e3, defocus, "narrow", 0.03) for defocus in (0.0, -5.0)]
    return [*found, *extra]


def _ring(beam_energy_ev: float) -> str:
    return "wide" if beam_energy_ev < 1e5 else "narrow"


@cache
def specimen(name: str, seed: int) -> ase.Atoms:
    """About 5 nm a side."""
    return _SPECIMENS[name](seed)


def _layer(seed: int) -> ase.Atoms:
    layer = monolayer("MoS2" if seed != 1 else "WSe2", width_nm=4.8, height_nm=4.8, vacuum_nm=0.3)
    metal, chalcogen = ("Mo", "S") if seed != 1 else ("W", "Se")
    densities = {PointDefect("vacancy", chalcogen): 0.3, PointDefect("substitution", metal, "V"): 0.2}
    return with_random_defects(layer, densities, seed=seed).atoms


def _twisted(seed: int) -> ase.Atoms:
    twisted = twisted_bilayer("MoS2" if seed != 1 else "WS2", (21.79, 13.17, 27.80)[seed], vacuum_nm=0.3)
    width, height, _ = twisted.cell.lengths()
    return twisted * (max(1, round(48 / width)), max(1, round(48 / height)), 1)


def _particle(seed: int) -> ase.Atoms:
    particle = nanoparticle("Au", "sphere", diameter_nm=(5.0, 3.0)[seed], axis=((1, 1, 0), (1, 2, 3))[seed])
    return on_film(particle, film_thickness_nm=2.0, margin_nm=1.0, seed=seed)


_SPECIMENS: dict[str, Callable[[int], ase.Atoms]] = {"layer": _layer, "twisted": _twisted, "particle": _particle}


def scan_of(atoms: ase.Atoms, probes: int) -> GridScan:
    """From a corner over the middle; the step is no part of a lattice's period."""
    width, height, _ = (atoms.cell.lengths() / 10).tolist()
    return GridScan(0.031, 0.047, 0.61 * width, 0.59 * height, (probes, probes))


def checked(case: Exposed, probes: int) -> dict[str, Any]:
    """Stated and true error of windows, and what `auto` does where they are not good enough."""
    atoms = specimen(case.specimen, case.seed)
    scan, detectors = scan_of(atoms, probes), _DETECTORS[case.detectors]
    exact = _simulator(atoms, "multislice", case).image(case.optics, scan, detectors)
    row: dict[str, Any] = {"case": asdict(case), "probes": probes**2}
    try:
        made = _simulator(atoms, "windowed", case).image(case.optics, scan, detectors)
    except MethodUnavailable:
        row |= {"window_px": None, "stated": None, "true": None, "holds": None}
    else:
        true = true_error(made, exact, detectors)
        stated = made.attrs["error_estimate"]
        row |= {"window_px": made.attrs["window_px"], "stated": stated, "true": true, "holds": true <= stated}
    if row["stated"] is None or row["stated"] > case.accuracy:
        chosen = _simulator(atoms, "auto", case).image(case.optics, scan, detectors)
        true = true_error(chosen, exact, detectors)
        row |= {"auto": chosen.attrs["method"], "auto_true": true, "auto_holds": true <= case.accuracy}
    return row


def true_error(made: Any, exact: Any, detectors: dict[str, Detector]) -> float:
    """Rms difference over the spread, worst detector."""
    return max(
        float(np.sqrt(np.mean((np.asarray(made[name]) - np.asarray(exact[name])) ** 2)) / np.asarray(exact[name]).std())
        for name in detectors
    )


def _simulator(atoms: ase.Atoms, method: str, case: Exposed) -> Simulator:
    return Simulator(
        atoms, method=method, accuracy=case.accuracy, sampling_nm=_SAMPLING_NM, slice_thickness_nm=_SLICE_NM,
        device="cpu", seed=case.seed,
    )  # fmt: skip


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many estimates hold, of windows and of what `auto` takes instead."""
    stated = [row for row in rows if row["holds"] is not None]
    return {
        "cases": len(rows), "with_windows": len(stated), "held": sum(row["holds"] for row in stated),
        "auto_asked": sum("auto" in row for row in rows),
        "auto_held": sum(row.get("auto_holds", False) for row in rows),
        "median_stated_over_true": median(row["stated"] / row["true"] for row in stated),
        "largest_true_over_stated": max(row["true"] / row["stated"] for row in stated),
        "cpu_s": sum(row["cpu_s"] for row in rows),
    }  # fmt: skip


def main() -> None:
    """A line a case; JSON with --out, written after each case. Cases that OUT has already are not run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=12, help="along a side of the scan")
    parser.add_argument("--only", help="a kind of specimen")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.out is not None and options.out.exists():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    known = {json.dumps(row["case"]) for row in rows}
    for case in cases():
        if options.only not in (None, case.specimen) or json.dumps(asdict(case)) in known:
            continue
        count = options.probes if case.specimen != "particle" else options.probes * 2 // 3  # 37 slices
        start = time.process_time()
        row = checked(case, count)
        rows.append(row | {"cpu_s": time.process_time() - start, "load": os.getloadavg()[0]})
        print(json.dumps(rows[-1]), flush=True)
        if options.out is not None:
            document = {"benchmark": "window_errors", "versions": versions(), "summary": summary_of(rows), "rows": rows}
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary_of(rows)))


if __name__ == "__main__":
    main()
