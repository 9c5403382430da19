"""Cost and error of the image methods beside abTEM's, alternately in one run; `python -m benchmarks.simulation`.

Every image is made in a fresh process, the potential included. CPU-seconds count all threads: on a shared machine wall
time says little, and ours run on one thread, because threads that wait for each other spin. `--peer PYTHON` names a
Python with abTEM 1.0.11; without it only ours are timed. A peer's run of fewer probes than asked for is scaled by their
number: `abtem_scaled_from_probes` says how many it imaged. Memory is the peak, in 1e9 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

from benchmarks.simulation_cases import (
    Case,
    doped_strontium_titanate,
    drawn_probes,
    molybdenum_disulphide,
    refocused,
    strontium_titanate,
    vibrating_strontium_titanate,
)
from orchestrator.versions import versions

_HERE = Path(__file__).parent
_DRAWN_COUNT = 144
_FEW = 17
"""Probes a side that are compared: 16 would meet the same places of 16 unit cells again and again."""
_TURNS = 3


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
            capture_output=True, text=True, check=True, cwd=_HERE.parent, env=os.environ | {"OMP_NUM_THREADS": "1"},
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
            "abtem_scaled_from_probes": case.probes_a_side**2,
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
        rows[-1] |= {
            "abtem_over_ours": peer["cpu_s"] * scale / rows[-1]["cpu_s"],
            "abtem_scaled_from_probes": case.probes_a_side**2,
        }
    return rows


def layer_rows(runs: Runs, case: Case, atoms: ase.Atoms, accuracies: tuple[float, ...]) -> list[dict[str, Any]]:
    """A layer with point defects: windows against multislice and PRISM."""
    path, few, compared_as = case.write(runs.folder, atoms), _FEW, f"error_of_{_FEW}_x_{_FEW}"
    reference = runs.ours(path, "multislice", few)
    rows = [_row(case.name, "multislice", few, reference)]
    for accuracy in accuracies:
        row = _row(case.name, f"windowed, accuracy {accuracy:g}", case.probes_a_side,
                   runs.ours(path, f"windowed:{accuracy}", case.probes_a_side))  # fmt: skip
        checked = runs.ours(path, f"windowed:{accuracy}", few)
        rows.append(row | {compared_as: compared(checked["images"], reference["images"])})
    peer_multislice = runs.peers(path, "multislice", few)
    if peer_multislice is not None:
        rows.append(_row(case.name, "abTEM multislice", few, peer_multislice))
        scale = (case.probes_a_side / few) ** 2
        peer_prism = runs.peers(path, "prism4", case.probes_a_side)
        if peer_prism is not None:
            rows.append(_row(case.name, "abTEM PRISM f4", case.probes_a_side, peer_prism))
            coarse = runs.peers(path, "prism4", few)
            if coarse is not None:
                rows[-1] |= {compared_as: compared(coarse["images"], peer_multislice["images"])}
        for row in rows:
            if row["method"].startswith("windowed"):
                row["abtem_multislice_over_ours"] = peer_multislice["cpu_s"] * scale / row["cpu_s"]
                row["abtem_scaled_from_probes"] = few**2
                row["abtem_prism_over_ours"] = None if peer_prism is None else peer_prism["cpu_s"] / row["cpu_s"]
    return rows


def drawn_error(images: dict[str, Any], exact: dict[str, Any], probes: int) -> dict[str, float]:
    """Rms difference at probes drawn at random, by detector, over the standard deviation of the whole image."""
    drawn = drawn_probes(probes, _DRAWN_COUNT)
    return {
        name: float(np.sqrt(np.mean((image.ravel()[drawn] - exact[name]) ** 2)) / image.std())
        for name, image in images.items()
    }


def field_rows(
    runs: Runs, sizes: tuple[tuple[tuple[int, int], int, int], ...], accuracy: float
) -> list[dict[str, Any]]:
    """A layer in fields of growing size at constant step: windows, whole cost and that of one more probe.

    Sizes take turns, and of each the run that cost least counts: a machine that others use makes some dearer by half.
    Of a peer two numbers of probes are imaged: what it makes once counts once.
    """
    rows: list[dict[str, Any]] = []
    few, more = 4, 8
    cases = [(molybdenum_disulphide(cells, gpts, probes), probes) for cells, gpts, probes in sizes]
    paths = [case.write(runs.folder, atoms) for (case, atoms), _ in cases]
    turns = [
        [runs.ours(path, f"windowed:{accuracy}", probes) for path, (_, probes) in zip(paths, cases, strict=True)]
        for _ in range(_TURNS)
    ]
    for number, ((case, _), probes) in enumerate(cases):
        path, costs = paths[number], [turn[number]["cpu_s"] for turn in turns]
        ours = turns[costs.index(min(costs))][number]
        exact = runs.ours(path, f"multislice#{_DRAWN_COUNT}", probes)
        row = _row(case.name, f"windowed, accuracy {accuracy:g}", probes, ours)
        row |= {
            "cpu_ms_per_probe": ours["cpu_s"] / probes**2 * 1e3,
            "cpu_s_of_runs": costs,
            "multislice_memory_gb": exact["memory_above_import_gb"],
            f"error_of_{_DRAWN_COUNT}_drawn_over_std": drawn_error(ours["images"], exact["images"], probes),
        }
        once, peer = (runs.peers(path, "multislice", side) for side in (few, more))
        if once is not None and peer is not None:
            each_s = (peer["cpu_s"] - once["cpu_s"]) / (more**2 - few**2)
            all_s = peer["cpu_s"] + (probes**2 - more**2) * each_s
            row |= {
                "abtem_ms_per_probe": all_s / probes**2 * 1e3,
                "abtem_over_ours": all_s / ours["cpu_s"],
                "abtem_reckoned_from_probes": [few**2, more**2],
                "abtem_memory_above_import_gb": peer["memory_above_import_gb"],
            }
        rows.append(row)
    return rows


def equal_rows(runs: Runs, case: Case, atoms: ase.Atoms) -> list[dict[str, Any]]:
    """Multislice against multislice on the same potential: ours merges empty slices."""
    path, few = case.write(runs.folder, atoms), _FEW
    rows = [_row(case.name, "multislice, bilinear", few, runs.ours(path, "multislice-bilinear", few))]
    peer = runs.peers(path, "multislice", few)
    if peer is not None:
        ours = runs.ours(path, "multislice-bilinear", few)
        rows[0] |= {
            "error": compared(ours["images"], peer["images"]),
            "abtem_over_ours": peer["cpu_s"] / rows[0]["cpu_s"],
        }
        rows.append(_row(case.name, "abTEM multislice", few, peer))
    return rows


def phonon_rows(runs: Runs, case: Case, atoms: ase.Atoms, accuracy: float) -> list[dict[str, Any]]:
    """Frozen phonons beside a static run of the same probes."""
    path, count = case.write(runs.folder, atoms), 8
    static = _row(case.name, "static", case.probes_a_side, runs.ours(path, f"windowed:{accuracy}", case.probes_a_side))
    vibrating = runs.ours(path, f"windowed:{accuracy}@{count}", case.probes_a_side)
    row = _row(case.name, f"{count} phonon configurations", case.probes_a_side, vibrating)
    row["configuration_over_static"] = row["cpu_s"] / count / static["cpu_s"]
    return [static, row]


def large_rows(runs: Runs, case: Case, atoms: ase.Atoms) -> list[dict[str, Any]]:
    """A specimen of a hundred thousand atoms, none like another, with whatever method `auto` takes."""
    path = case.write(runs.folder, atoms)
    row = _row(case.name, "auto", case.probes_a_side, runs.ours(path, "auto:0.03", case.probes_a_side))
    return [row | {"atoms": len(atoms)}]


def _row(case: str, method: str, probes: int, run: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in run.items() if name not in ("images", "method")}
    taken = {"taken": run["method"]} if "method" in run else {}
    return {"case": case, "method": method, "probes": probes**2, **taken, **kept}


_LAYER = ((16, 9), 512, 64)
_FIELDS = (_LAYER, ((32, 18), 1024, 128), ((64, 37), 2048, 256))
_ROWS: dict[str, Callable[[Runs], list[dict[str, Any]]]] = {
    "crystal": lambda runs: crystal_rows(runs, *strontium_titanate()),
    "defect": lambda runs: defect_rows(runs, *doped_strontium_titanate()),
    "layer": lambda runs: layer_rows(runs, *molybdenum_disulphide(*_LAYER), (0.1, 0.03)),
    "equal": lambda runs: equal_rows(runs, *molybdenum_disulphide(*_LAYER)),
    "phonons": lambda runs: phonon_rows(runs, *molybdenum_disulphide(*_LAYER), 0.1),
    "field": lambda runs: field_rows(runs, _FIELDS, 0.1),
    "large": lambda runs: large_rows(runs, *vibrating_strontium_titanate()),
}


def main() -> None:
    """Print a line a row; JSON with --out, where rows of other groups stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="a Python that has abTEM")
    parser.add_argument("--rows", default=",".join(_ROWS), help=", ".join(_ROWS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    asked = options.rows.split(",")
    if options.out is not None and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in before if row["group"] not in asked]
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options.peer)
        for name in asked:
            load = os.getloadavg()[0]
            made = [{"group": name, "load": load, **row} for row in _ROWS[name](runs)]
            print(*map(json.dumps, made), sep="\n", flush=True)
            rows += made
            if options.out is not None:
                known = {"benchmark": "simulation", "machine": machine(), "versions": versions()}
                options.out.write_text(json.dumps(known | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    """The processor's name where the system tells it, and how many there are."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} processors"


if __name__ == "__main__":
    main()
