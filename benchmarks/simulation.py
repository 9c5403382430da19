"""Cost and error of the image methods beside abTEM's, alternately in one run; `python -m benchmarks.simulation`.

Every image is made in a fresh process, the potential included. CPU-seconds count all threads: on a shared machine wall
time says little. `--peer PYTHON` names a Python with abTEM 1.0.11; without it only ours are timed. A peer's run of
fewer probes than asked for is scaled by their number, and the row says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

from benchmarks.simulation_cases import (
    Case,
    doped_strontium_titanate,
    molybdenum_disulphide,
    refocused,
    strontium_titanate,
)
from orchestrator.versions import versions

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs images of cases in processes of their own and keeps what they used."""

    folder: Path
    peer: str | None

    def ours(self, case: Path, method: str, probes: int, *, then: Path | None = None) -> dict[str, Any]:
        """Cost, and the images under `images`."""
        command = [sys.executable, "-m", "benchmarks.simulation_ours"]
        return self._run(command, case, method, probes, [] if then is None else [str(then)])

    def peers(self, case: Path, method: str, probes: int) -> dict[str, Any] | None:
        """The same for abTEM; None without it."""
        if self.peer is None:
            return None
        return self._run([self.peer, "-P", str(_HERE / "simulation_peer.py")], case, method, probes, [])

    def _run(self, command: list[str], case: Path, method: str, probes: int, more: list[str]) -> dict[str, Any]:
        out = self.folder / "images.npz"
        done = subprocess.run(
            [*command, str(case), method, str(probes), str(out), *more],
            capture_output=True, text=True, check=True, cwd=_HERE.parent,
        )  # fmt: skip
        with np.load(out) as stored:
            images = {name: stored[name] for name in stored.files}
        return {**json.loads(done.stdout.splitlines()[-1]), "images": images}


def compared(images: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Rms difference by detector, over the reference's standard deviation and over its mean."""
    found: dict[str, float] = {}
    for name, image in images.items():
        rms = float(np.sqrt(np.mean((image - reference[name]) ** 2)))
        found |= {f"{name}_over_std": rms / float(reference[name].std())}
        found |= {f"{name}_over_mean": rms / float(reference[name].mean())}
    return found


def crystal_rows(runs: Runs, case: Case, atoms: ase.Atoms) -> list[dict[str, Any]]:
    """A perfect thick crystal: multislice and PRISM against the periodic method, and imaging again."""
    path, other = case.write(runs.folder, atoms), refocused(case).write(runs.folder, atoms)
    ours = runs.ours(path, "periodic", case.probes_a_side, then=other)
    again = runs.ours(other, "multislice", 4)
    fresh = runs.ours(path, "periodic-bilinear", case.probes_a_side)
    small = runs.ours(path, "periodic", 4, then=other)
    rows = [_row(case.name, "periodic", case.probes_a_side, ours)]
    rows[0] |= {"again_over_fresh_multislice": compared(small["images"], again["images"])}
    peer = runs.peers(path, "multislice", case.probes_a_side)
    if peer is not None:
        rows.append(_row(case.name, "abTEM multislice", case.probes_a_side, peer))
        rows[0] |= {"bilinear_over_abtem": compared(fresh["images"], peer["images"])}
        rows[0] |= {
            "abtem_over_ours": peer["cpu_s"] / ours["cpu_s"],
            "abtem_over_again": peer["cpu_s"] / ours["again_cpu_s"],
        }
    rows.append(_row(case.name, "periodic", 64, runs.ours(path, "periodic", 64)))
    if peer is not None:
        rows[-1] |= {
            "abtem_over_ours": peer["cpu_s"] * (64 / case.probes_a_side) ** 2 / rows[-1]["cpu_s"],
            "scaled": True,
        }
    return rows


def defect_rows(runs: Runs, case: Case, atoms: ase.Atoms) -> list[dict[str, Any]]:
    """A thick crystal with one dopant: local differences against multislice, and imaging again."""
    path, other = case.write(runs.folder, atoms), refocused(case).write(runs.folder, atoms)
    ours = runs.ours(path, "local_difference", case.probes_a_side, then=other)
    small = runs.ours(path, "local_difference", 4, then=other)
    rows = [_row(case.name, "local_difference", case.probes_a_side, ours)]
    rows[0] |= {"again_over_fresh_multislice": compared(small["images"], runs.ours(other, "multislice", 4)["images"])}
    peer = runs.peers(path, "multislice", case.probes_a_side)
    if peer is not None:
        rows.append(_row(case.name, "abTEM multislice", case.probes_a_side, peer))
        fresh = runs.ours(path, "local_difference-bilinear", case.probes_a_side)
        rows[0] |= {
            "bilinear_over_abtem": compared(fresh["images"], peer["images"]),
            "abtem_over_ours": peer["cpu_s"] / ours["cpu_s"],
            "abtem_over_again": peer["cpu_s"] / ours["again_cpu_s"],
        }
    rows.append(_row(case.name, "local_difference", 64, runs.ours(path, "local_difference", 64)))
    if peer is not None:
        scale = (64 / case.probes_a_side) ** 2
        rows[-1] |= {"abtem_over_ours": peer["cpu_s"] * scale / rows[-1]["cpu_s"], "scaled": True}
    return rows


def layer_rows(runs: Runs, case: Case, atoms: ase.Atoms, accuracies: tuple[float, ...]) -> list[dict[str, Any]]:
    """A layer with point defects: windows against multislice and PRISM."""
    path, few = case.write(runs.folder, atoms), 16
    reference = runs.ours(path, "multislice", few)
    rows = [_row(case.name, "multislice", few, reference)]
    for accuracy in accuracies:
        row = _row(case.name, f"windowed, accuracy {accuracy:g}", case.probes_a_side,
                   runs.ours(path, f"windowed:{accuracy}", case.probes_a_side))  # fmt: skip
        checked = runs.ours(path, f"windowed:{accuracy}", few)
        rows.append(row | {"error_of_16_x_16": compared(checked["images"], reference["images"])})
    peer_multislice = runs.peers(path, "multislice", few)
    if peer_multislice is not None:
        rows.append(_row(case.name, "abTEM multislice", few, peer_multislice))
        scale = (case.probes_a_side / few) ** 2
        peer_prism = runs.peers(path, "prism4", case.probes_a_side)
        if peer_prism is not None:
            rows.append(_row(case.name, "abTEM PRISM f4", case.probes_a_side, peer_prism))
            coarse = runs.peers(path, "prism4", few)
            if coarse is not None:
                rows[-1] |= {"error_of_16_x_16": compared(coarse["images"], peer_multislice["images"])}
        for row in rows:
            if row["method"].startswith("windowed"):
                row["abtem_multislice_over_ours"] = peer_multislice["cpu_s"] * scale / row["cpu_s"]
                row["abtem_prism_over_ours"] = None if peer_prism is None else peer_prism["cpu_s"] / row["cpu_s"]
    return rows


def _row(case: str, method: str, probes: int, run: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in run.items() if name not in ("images", "method")}
    return {"case": case, "method": method, "probes": probes**2, **kept}


def main() -> None:
    """Print a line a row; JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has abTEM")
    parser.add_argument("--cases", default="crystal,defect,layer", help="crystal, defect, layer")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options.peer)
        if "crystal" in options.cases:
            rows += crystal_rows(runs, *strontium_titanate())
        if "defect" in options.cases:
            rows += defect_rows(runs, *doped_strontium_titanate())
        if "layer" in options.cases:
            rows += layer_rows(runs, *molybdenum_disulphide((16, 9), 512, 64), (0.1, 0.03))
    for row in rows:
        print(json.dumps(row))
    if options.out is not None:
        document = {"benchmark": "simulation", "machine": platform.processor(), "versions": versions(), "rows": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
