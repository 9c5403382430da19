"""WSe2 as the tests see it, and images of it made another way: probe on the grid, times exp(i sigma V), detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from instruments.optics import Aberrations, Coherence, Optics
from simulation import probe, projected_potential
from simulation.electron import interaction_parameter, wavelength_angstrom
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import orthogonal_cell, read_structure

STRUCTURE = Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz"
DEFECTS = {
    "V_Se": Defect("Se2", ("Se",)),
    "O_Se": Defect("Se2", ("Se", "O")),
    "V_Se2": Defect("Se2", ()),
    "Mo_W": Defect("W", ("Mo",)),
}
MAADF, HAADF, BF = (40.0, 100.0), (80.0, 160.0), (0.0, 10.0)
SHARP = Coherence()
FOCUSED = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5)
ABERRATED = Optics(
    beam_energy_ev=60e3,
    semi_convergence_angle_mrad=31.5,
    defocus_nm=6.0,
    aberrations=Aberrations(c12_nm=1.5, phi12_deg=25.0, c21_nm=30.0, phi21_deg=70.0, c30_nm=1000.0),
)


def lattice_images(**changes: Any) -> LatticeImages:
    """A small supercell (1.0 x 1.1 nm) at rest, unless changed."""
    options: dict[str, Any] = {
        "beam_energy_ev": 60e3,
        "semi_convergence_angle_mrad": 31.5,
        "detector_ranges_mrad": [MAADF, HAADF, BF],
        "rms_displacement_nm": 0.007,
        "phonon_count": 0,
        "supercell_nm": 0.9,
        "potential_sampling_nm": 0.0025,
    }
    structure = changes.pop("structure", None)
    structure = read_structure(STRUCTURE) if structure is None else structure
    return LatticeImages.from_structure(structure, changes.pop("defects", DEFECTS), **{**options, **changes})


def supercell(repeats: tuple[int, int], structure: Any = None) -> Any:
    """The orthogonal cell repeated (x, y), as `ase.Atoms`."""
    return orthogonal_cell(read_structure(STRUCTURE) if structure is None else structure).repeat((*repeats, 1))


def column_atoms(atoms: Any, x_nm: float, y_nm: float) -> list[int]:
    """Indices of the atoms at that place, in the order the beam meets them."""
    positions = np.asarray(atoms.positions)
    step = positions[:, :2] / 10 - (x_nm, y_nm)
    found = np.flatnonzero(np.hypot(step[:, 0], step[:, 1]) < 0.01)
    return [int(index) for index in found[np.argsort(positions[found, 2])]]


def one_slice_image(atoms: Any, optics: Optics, points_nm: np.ndarray, *detectors: tuple[float, float]) -> np.ndarray:
    """Signals (detectors, points) of all atoms as one phase object at (n, 2) points; detector edges one pixel soft."""
    depth_nm = float(atoms.cell.lengths()[2]) / 10
    potential = projected_potential(atoms, sampling_nm=0.0025, slice_thickness_nm=depth_nm)[0].astype(np.float64)
    transmission = np.exp(1j * interaction_parameter(optics.beam_energy_ev) * potential)
    extent_nm = (float(atoms.cell.lengths()[1]) / 10, float(atoms.cell.lengths()[0]) / 10)
    grid: dict[str, Any] = {
        "shape_px": potential.shape,
        "sampling_nm": (extent_nm[0] / potential.shape[0], extent_nm[1] / potential.shape[1]),
    }
    shares = [_ring(potential.shape, extent_nm, optics, *detector) for detector in detectors]
    found = []
    for x_nm, y_nm in points_nm:
        wave = probe(optics, x_nm=float(x_nm), y_nm=float(y_nm), **grid)
        intensity = np.abs(np.fft.fft2(wave * transmission)) ** 2
        found.append([float(np.sum(intensity * share)) for share in shares])
    return np.array(found).T


def _ring(
    shape: tuple[int, int], extent_nm: tuple[float, float], optics: Optics, inner_mrad: float, outer_mrad: float
) -> np.ndarray:
    step_y, step_x = (1e3 * wavelength_angstrom(optics.beam_energy_ev) / (extent * 10) for extent in extent_nm)
    y = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None] * step_y
    x = np.fft.fftfreq(shape[1], 1 / shape[1])[None, :] * step_x
    angle = np.hypot(y, x)
    pixel = np.hypot(np.sin(np.arctan2(y, x)) * step_y, np.cos(np.arctan2(y, x)) * step_x)

    def within(limit: float) -> np.ndarray:
        return np.where(angle == 0, limit > 0, np.clip((limit - angle) / pixel + 0.5, 0, 1) * (limit > 0))

    return within(outer_mrad) - within(inner_mrad)
