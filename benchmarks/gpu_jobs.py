"""What `benchmarks.gpu` images: the cases of the CPU's table, with all the probes that published figures have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ase

from benchmarks.simulation_cases import Case, molybdenum_disulphide, strontium_titanate
from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, PixelatedDetector, Simulator
from simulation.slices import EMPTY, slices_of
from simulation.specimens import Specimen

_BYTES_PER_PIXEL_AND_STEP = 96
"""Of complex64 waves in memory for a slice: two transforms (32 each), one product (16) and one with its factor (16)."""
_COMPARED_A_SIDE = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One image: a case, a method, how many probes a side are timed, how far they may differ from the CPU's."""

    name: str
    case: Case
    atoms: ase.Atoms
    method: str
    probes: int
    tolerance: float
    peer: str | None = None
    peer_probes: int = 0
    """abTEM's method, and how many probes a side it images: its time is scaled to all of them."""
    patterns_mrad: float | None = None

    def exact(self) -> Simulator:
        """What is compared with, in double precision on a CPU: multislice for PRISM, which has the same result."""
        return self.simulator("cpu", "double", "multislice" if self.method == "prism" else self.method)

    def simulator(self, device: str, precision: str = "single", method: str | None = None) -> Simulator:
        """With nothing computed yet."""
        return Simulator(
            self.atoms, method=method or self.method, grid_shape_px=(self.case.gpts, self.case.gpts), accuracy=0.03,
            slice_thickness_nm=self.case.slice_angstrom / 10, device=device, precision=precision,
        )  # fmt: skip

    def exposure(self, probes: int | None = None) -> tuple[Optics, GridScan, dict[str, Any]]:
        """All probes, or the few that are compared with the CPU's."""
        case, count = self.case, probes or self.probes
        (x0, y0), (x1, y1) = case.scan_start, case.scan_end
        optics = Optics(beam_energy_ev=case.energy_ev, semi_convergence_angle_mrad=case.semi_angle_mrad)
        detectors: dict[str, Any] = {name: AnnularDetector(*ring) for name, ring in case.detectors.items()}
        if self.patterns_mrad is not None:
            detectors["patterns"] = PixelatedDetector(max_angle_mrad=self.patterns_mrad)
        return optics, GridScan(x0 / 10, y0 / 10, (x1 - x0) / 10, (y1 - y0) / 10, (count, count)), detectors

    def few(self) -> tuple[Optics, GridScan, dict[str, Any]]:
        """The probes that are compared with the CPU's."""
        return self.exposure(_COMPARED_A_SIDE)

    def propagated_bytes(self, window_px: list[int]) -> float | None:
        """Memory traffic of propagating every probe with perfect kernels; None for methods that sum instead."""
        if self.method not in ("multislice", "windowed"):
            return None
        order = slices_of(Specimen.of(self.atoms), self.case.slice_angstrom / 10).order
        steps = sum(index != EMPTY for index in order)
        return float(_BYTES_PER_PIXEL_AND_STEP * steps * window_px[0] * window_px[1] * self.probes**2)


def jobs(scale: str) -> list[Job]:
    """`full` as published tables have it, `small` for a look whether everything runs."""
    sto, crystal = strontium_titanate()
    layer, atoms = molybdenum_disulphide((16, 9), 512, 64)
    patch, few_atoms = molybdenum_disulphide((8, 4), 256, 64)
    if scale == "small":
        return [
            Job("srtio3 periodic", sto, crystal, "periodic", 8, 1e-3),
            Job("mos2 multislice", layer, atoms, "multislice", 4, 1e-3, "multislice", 2),
            Job("mos2 windowed", layer, atoms, "windowed", 8, 1e-2),
            Job("monolayer frame with patterns", patch, few_atoms, "prism", 6, 1e-3, patterns_mrad=40),
        ]
    field, wide = molybdenum_disulphide((64, 37), 2048, 256)
    return [
        Job("srtio3 multislice", sto, crystal, "multislice", 16, 1e-3, "multislice", 16),
        Job("srtio3 periodic", sto, crystal, "periodic", 64, 1e-3),
        Job("mos2 multislice", layer, atoms, "multislice", 64, 1e-3, "multislice", 64),
        Job("mos2 prism f1", layer, atoms, "prism", 64, 1e-3, "prism4", 64),
        Job("mos2 windowed", layer, atoms, "windowed", 64, 1e-2, "multislice", 64),
        Job("mos2 20 nm windowed", field, wide, "windowed", 256, 1e-2, "multislice", 16),
        Job("monolayer frame with patterns", patch, few_atoms, "prism", 512, 1e-3, patterns_mrad=40),
    ]
