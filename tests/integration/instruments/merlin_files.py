"""Patterns of our own simulator as a file of a Merlin: 16 x 16 points over one cell of WSe2, raw counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

import numpy as np

import simulation
from instruments import Optics
from instruments.patterns import PatternGeometry
from simulation.specimens import orthogonal_cell, read_structure

STRUCTURE = Path(__file__).parents[3] / "examples" / "structures" / "WSe2.extxyz"
SIDE_PX = 64
EXPOSURE_S = 1e-3
DARK_FIELD_MRAD = (40.0, 60.0)
HEADER_BYTES = 384
_ELECTRONS = 2000.0  # of one pattern


@dataclass(frozen=True)
class Scan:
    """Raw counts (rows, columns, detector rows, detector columns), and what the simulator says of a ring detector."""

    counts: np.ndarray
    geometry: PatternGeometry
    dark_field: np.ndarray  # electrons expected


@cache
def simulated_scan() -> Scan:
    """With shot noise; periodic, for it covers one cell of a crystal."""
    atoms = orthogonal_cell(read_structure(STRUCTURE)) * (7, 4, 1)  # nearly square, so that its frequencies are
    width_nm, height_nm = atoms.cell.lengths()[:2] / 10
    images = simulation.simulate(
        atoms,
        Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25.0),
        simulation.GridScan(0.0, 0.0, width_nm / 7, height_nm / 4, (16, 16)),
        {
            "merlin": simulation.PixelatedDetector(shape_px=(SIDE_PX, SIDE_PX)),
            "dark_field": simulation.AnnularDetector(*DARK_FIELD_MRAD),
        },
        method="multislice",
        sampling_nm=0.02,
    )
    steps = [float(np.diff(images["merlin"][name])[0]) for name in ("detector_y", "detector_x")]
    middle = SIDE_PX // 2
    geometry = PatternGeometry(
        shape_px=(SIDE_PX, SIDE_PX), centre_y_px=middle, centre_x_px=middle, mrad_per_px=sqrt(steps[0] * steps[1])
    )
    means = np.maximum(np.asarray(images["merlin"]), 0) * _ELECTRONS
    counts = np.random.default_rng(7).poisson(means).astype(np.uint16)
    return Scan(counts, geometry, np.asarray(images["dark_field"]) * _ELECTRONS)


def binned(counts: np.ndarray, factor: int) -> np.ndarray:
    """Patterns with so many pixels a side together."""
    rows, columns, height, width = counts.shape
    parts = counts.reshape(rows, columns, height // factor, factor, width // factor, factor)
    return parts.sum(axis=(3, 5), dtype=np.uint16)


def frame_bytes(number: int, pattern: np.ndarray, exposure_s: float = EXPOSURE_S) -> bytes:
    """One frame as a Merlin writes and sends it, without the length before it; `number` begins at 1."""
    rows, columns = pattern.shape
    at = f"2026-11-22 01:02:03.{number:06d}"
    thresholds = ",".join(["1.200000E+1", "5.110000E+2", *["0.000000E+0"] * 6])
    header = (
        f"MQ1,{number:06d},{HEADER_BYTES:05d},01,{columns:04d},{rows:04d},U16,   1x1,01,{at},{exposure_s:.6f},0,0,0,"
        f"{thresholds},3RX,{','.join(['000'] * 27)},MQ1A,{at.replace(' ', 'T')}000Z,{round(exposure_s * 1e9)}ns,12"
    )
    return header.encode().ljust(HEADER_BYTES) + pattern.astype(">u2").tobytes()


def acquisition_text(count: int, at_a_trigger: int) -> str:
    """What stands before all frames."""
    lines = {
        "Chip ID": "W1_A1", "Counter Depth (number)": "12", "Gain": "SLGM",
        "Thresholds (keV)": "1.200000E+1,5.110000E+2",
        "Frames in Acquisition (Number)": count, "Frames per Trigger (Number)": at_a_trigger,
        "Sensor Bias (V)": "120", "Software Version": "0.67.0.9",
    }  # fmt: skip
    return "HDR,\t\n" + "".join(f"{name}:\t{value}\n" for name, value in lines.items()) + "End\t"


def write_files(folder: Path, counts: np.ndarray, exposure_s: float = EXPOSURE_S) -> Path:
    """`scan.mib` and the `scan.hdr` beside it, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    patterns = counts.reshape(-1, *counts.shape[2:])
    with (folder / "scan.mib").open("wb") as file:
        for number, pattern in enumerate(patterns, 1):
            file.write(frame_bytes(number, pattern, exposure_s))
    path = folder / "scan.hdr"
    path.write_text(acquisition_text(len(patterns), counts.shape[1]), newline="\n")
    return path
