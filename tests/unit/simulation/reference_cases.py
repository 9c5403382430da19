"""The arrays of tests/reference in this package's conventions: (row, column) = (y, x), nm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from instruments.optics import Aberrations, Optics
from simulation import AnnularDetector, GridScan

_FOLDER = Path(__file__).parents[2] / "reference"


@dataclass(frozen=True)
class Case:
    name: str
    parameters: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def atoms(self) -> ase.Atoms:
        return ase.io.read(_FOLDER / ("03_srtio3_multislice" if self.name[:2] == "05" else self.name) / "structure.xyz")

    @property
    def optics(self) -> Optics:
        probe, tilt = self.parameters["probe"], self.parameters.get("tilt_mrad", [0, 0])
        return optics(self.parameters["energy_eV"], probe["semiangle_cutoff_mrad"], probe["aberrations"], tilt)

    @property
    def scan(self) -> GridScan:
        scan = self.parameters["scan"]
        (x0, y0), (x1, y1) = np.array(scan["start_A"]) / 10, np.array(scan["end_A"]) / 10
        return GridScan(x0, y0, x1 - x0, y1 - y0, (scan["gpts"][1], scan["gpts"][0]))

    @property
    def detectors(self) -> dict[str, AnnularDetector]:
        return {name: AnnularDetector(*ring) for name, ring in self.parameters["detectors_mrad"].items()}

    @property
    def settings(self) -> dict[str, Any]:
        columns, rows = self.parameters["gpts"]
        return {
            "grid_shape_px": (rows, columns),
            "slice_thickness_nm": self.parameters["slice_thickness_A"] / 10,
            "parametrization": self.parameters["parametrization"],
            "placement": "bilinear",
            "device": "cpu",
        }

    def image(self, name: str) -> np.ndarray:
        """Stored (x, y); wanted (y, x)."""
        return self.arrays[f"image_{name}"].T


@cache
def case(number: str) -> Case:
    folder = next(_FOLDER.glob(f"{number}_*"))
    with np.load(folder / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Case(folder.name, json.loads((folder / "parameters.json").read_text(encoding="utf-8")), arrays)


def optics(energy_ev: float, angle_mrad: float, aberrations: dict[str, float], tilt: Any = (0, 0)) -> Optics:
    """From abTEM's words: coefficients in angstrom, azimuths in radian."""
    terms = {
        name.lower() + ("_nm" if name[0] == "C" else "_deg"): value / 10 if name[0] == "C" else np.degrees(value)
        for name, value in aberrations.items()
        if name != "defocus"
    }
    return Optics(
        beam_energy_ev=energy_ev,
        semi_convergence_angle_mrad=angle_mrad,
        defocus_nm=aberrations.get("defocus", 0.0) / 10,
        aberrations=Aberrations(**terms),
        tilt_x_mrad=tilt[0],
        tilt_y_mrad=tilt[1],
    )


def rms_over_std(value: Any, reference: Any) -> float:
    difference = np.asarray(value) - np.asarray(reference)
    return float(np.sqrt(np.mean(np.abs(difference) ** 2)) / np.std(reference))
