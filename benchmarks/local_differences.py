"""Superposed differences against full multislice with frozen phonons: `python -m benchmarks.local_differences`.

A 3 x 3 nm crop of WSe2 with V_Se, Mo_W, and both side by side (0.19 nm apart), at 60 kV and 31.5 mrad. The atoms of the
crop around the defects have the very displacements that the local differences were averaged over, those farther away
have others. So both sides share almost all of their statistical error, and what is left between them is the error of
the method. Independent replicates (other displacements on both sides) say how well it is known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path

import ase
import numpy as np
from scipy.ndimage import map_coordinates

from instruments.optics import Coherence, Optics
from simulation import PixelatedDetector, PointScan, Simulator
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import Specimen, orthogonal_cell, read_structure
from simulation.structure_columns import ColumnLattice, Supercell
from simulation.thermal_displacements import unit_displacements

STRUCTURE = Path(__file__).resolve().parents[1] / "examples" / "structures" / "WSe2.extxyz"
REPEATS = (9, 5)  # 2.95 x 2.84 nm
SUPERCELL_NM = 1.6  # of the local differences, as the first world has it
SIGMA_NM = 0.007
DETECTORS = {"abf": (16.0, 31.0), "maadf": (40.0, 100.0), "haadf": (80.0, 200.0)}
OUTERMOST_MRAD = 203.0
DEFECTS = {"V_Se": Defect("Se2", ("Se",)), "Mo_W": Defect("W", ("Mo",))}
CASES: dict[str, tuple[str, ...]] = {"V_Se": ("V_Se",), "Mo_W": ("Mo_W",), "V_Se + Mo_W": ("V_Se", "Mo_W")}
SHARP = Coherence()
STEPS_NM = np.arange(-3, 3) * 0.12 + 0.04
SAMPLING_NM = 0.0065
_FAR_SEED = 1000


@dataclass(frozen=True)
class Row:
    """Errors of one image: over the spread of the image in focus, and of the difference over its rms, with uncertainty.

    A constant is not counted in the image's error; `level_error` is that constant over the mean signal. Errors are rms
    over places, less (in squares) what the scatter of the replicates explains.
    """

    case: str
    detector: str
    defocus_nm: float
    level_error: float
    image_error: float
    image_error_std: float
    difference_error: float
    difference_error_std: float
    spread: float
    difference_rms: float
    configuration_count: int


def local_images(
    cache_folder: Path | None, *, phonon_count: int, seed: int, supercell_nm: float = SUPERCELL_NM
) -> LatticeImages:
    """The local differences as the first world computes them, from thermal displacements of this seed."""
    return LatticeImages.from_structure(
        read_structure(STRUCTURE), DEFECTS, beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5,
        detector_ranges_mrad=DETECTORS.values(), rms_displacement_nm=SIGMA_NM, phonon_count=phonon_count, seed=seed,
        supercell_nm=supercell_nm, cache_folder=cache_folder,
    )  # fmt: skip


def optics_at(defocus_nm: float) -> Optics:
    """The probe, without aberrations."""
    return Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, defocus_nm=defocus_nm)


class Crop:
    """The crop; its sites are the columns of one cell in the middle, as in the supercell of the local differences."""

    def __init__(self, supercell_nm: float = SUPERCELL_NM) -> None:
        """One slice for each plane of atoms, which stands in its middle; no vacuum to propagate through."""
        cell = orthogonal_cell(read_structure(STRUCTURE))
        planes = np.unique(np.round(cell.positions[:, 2], 3))
        self.slice_nm = float(np.diff(planes).min()) / 10
        cell.positions[:, 2] += 5 * self.slice_nm - planes[0]
        cell.cell[2, 2] = 10 * self.slice_nm * len(planes)
        self._lattice = ColumnLattice.of(Specimen.of(cell))
        self._supercell = Supercell(self._lattice, REPEATS)
        self._small = Supercell.at_least(self._lattice, supercell_nm)
        self._base = self._supercell.atoms()
        height, width = self._supercell.extent_angstrom
        self._cell = (width, height, float(cell.cell[2, 2]))
        middle = (REPEATS[1] // 2) * REPEATS[0] + REPEATS[0] // 2
        self._slots = {
            species: [middle * len(cell) + atom for atom in self._lattice.members[self._lattice.first(defect.column)]]
            for species, defect in DEFECTS.items()
        }

    @property
    def at_rest_angstrom(self) -> np.ndarray:
        """(atoms, 3) of the perfect crop."""
        return self._base.positions_angstrom

    def site_nm(self, species: str) -> np.ndarray:
        """(x, y) of the column that a species sits in."""
        return self._base.positions_angstrom[self._slots[species][0], :2] / 10

    def displaced(self, content: Iterable[str], configuration_count: int, seed: int) -> list[ase.Atoms]:
        """Crops with these defects. The same seed gives every atom the same displacement, whatever the content."""
        unit = self._unit_displacements(configuration_count, seed)
        numbers = self._base.numbers.copy()
        for species in content:
            numbers[self._slots[species][-1]] = {"V_Se": 0, "Mo_W": 42}[species]
        there = numbers > 0
        places = self._base.positions_angstrom + 10 * SIGMA_NM * unit
        return [ase.Atoms(numbers[there], place[there], cell=self._cell, pbc=True) for place in places]

    def _unit_displacements(self, configuration_count: int, seed: int) -> np.ndarray:
        """(configurations, atoms, 3): around the sites those of the local differences, cell by cell, else others."""
        near = unit_displacements(self._small.columns(), configuration_count, seed)
        unit = unit_displacements(self._supercell.columns(), configuration_count, _FAR_SEED + seed)
        size = len(self._lattice.specimen.numbers)
        columns, rows = self._small.repeats
        for row in range(rows):
            for column in range(columns):
                to_row, to_column = row - rows // 2 + REPEATS[1] // 2, column - columns // 2 + REPEATS[0] // 2
                to, of = (to_row * REPEATS[0] + to_column) * size, (row * columns + column) * size
                unit[:, to : to + size] = near[:, of : of + size]
        unit[..., 2] = 0.0  # along the beam an atom does not leave its slice
        return unit


def multislice(
    crop: Crop, content: Sequence[str], configuration_count: int, seed: int, defocus_nm: Sequence[float]
) -> np.ndarray:
    """(defocus, detectors, rows, columns) about the W site, averaged over displaced crops, by full multislice."""
    configurations = crop.displaced(content, configuration_count, seed)
    simulator = Simulator(
        configurations[0], method="multislice", sampling_nm=SAMPLING_NM, slice_thickness_nm=crop.slice_nm,
        phonons=configurations, device="cpu",
    )  # fmt: skip
    x_nm, y_nm = np.meshgrid(*(crop.site_nm("Mo_W")[axis] + STEPS_NM for axis in (0, 1)))
    scan = PointScan(np.column_stack([x_nm.ravel(), y_nm.ravel()]))
    found: list[list[np.ndarray]] = []
    for value in defocus_nm:
        pattern = simulator.image(optics_at(value), scan, {"pattern": PixelatedDetector(OUTERMOST_MRAD)})["pattern"]
        y_mrad, x_mrad = (np.asarray(pattern[name], dtype=float) for name in pattern.dims[1:])
        shares = [_share(y_mrad[:, None], x_mrad[None, :], *ring) for ring in DETECTORS.values()]
        values = np.einsum("pyx,dyx->dp", np.asarray(pattern, dtype=float), np.array(shares))
        found.append(list(values.reshape(len(shares), *x_nm.shape)))
    return np.array(found)


def _share(y_mrad: np.ndarray, x_mrad: np.ndarray, inner_mrad: float, outer_mrad: float) -> np.ndarray:
    """Share of each pixel of a diffraction pattern in a ring, its edges one pixel soft.

    A pixel of this crop is 1.7 mrad wide: hard edges in the direct beam would shift a bright field by 1 % of the beam.
    """
    angle, azimuth = np.hypot(y_mrad, x_mrad), np.arctan2(y_mrad, x_mrad)
    pixel = np.hypot(np.sin(azimuth) * np.diff(y_mrad, axis=0)[0, 0], np.cos(azimuth) * np.diff(x_mrad, axis=1)[0, 0])
    outer, inner = (np.clip((limit - angle) / pixel + 0.5, 0, 1) for limit in (outer_mrad, inner_mrad))
    return outer - inner


def superposed(images: LatticeImages, crop: Crop, content: Sequence[str], defocus_nm: Sequence[float]) -> np.ndarray:
    """The same as a periodic image and one local difference for each defect: (defocus, detectors, rows, columns)."""
    found: list[list[np.ndarray]] = []
    for value in defocus_nm:
        of_focus: list[np.ndarray] = []
        for ring in DETECTORS.values():
            perfect = images.site_image("W", None, *ring, optics_at(value), SHARP, mean_of_lattice=False)
            total = _at(perfect, images.step_nm, np.zeros(2))
            for species in content:
                patch = images.difference_image(species, *ring, optics_at(value), SHARP)
                total = total + _at(patch.values, patch.step_nm, crop.site_nm(species) - crop.site_nm("Mo_W"))
            of_focus.append(total)
        found.append(of_focus)
    return np.array(found)


def _at(patch: np.ndarray, step_nm: float, place_nm: np.ndarray) -> np.ndarray:
    middle = patch.shape[0] // 2
    rows, columns = np.meshgrid(
        middle + (STEPS_NM - place_nm[1]) / step_nm, middle + (STEPS_NM - place_nm[0]) / step_nm, indexing="ij"
    )
    return map_coordinates(patch, [rows, columns], order=3, mode="constant")


@dataclass(frozen=True)
class Replicates:
    """Images of one content by both methods: (replicates, defocus, detectors, rows, columns)."""

    full: np.ndarray
    local: np.ndarray


def compared(
    case: str, changed: Replicates, perfect: Replicates, defocus_nm: Sequence[float], configuration_count: int
) -> list[Row]:
    """Rows for every defocus and detector."""
    rows: list[Row] = []
    sharpest = perfect.full.mean(axis=0).std(axis=(-2, -1)).max(axis=0)
    for number, value in enumerate(defocus_nm):
        for place, detector in enumerate(DETECTORS):
            here = (slice(None), number, place)
            wrong = changed.local[here] - changed.full[here]
            image, image_std = _error(wrong - wrong.mean(axis=(-2, -1), keepdims=True))
            difference, difference_std = _error(wrong - (perfect.local[here] - perfect.full[here]))
            rms = float(np.sqrt(((changed.full[here] - perfect.full[here]).mean(axis=0) ** 2).mean()))
            spread, level = float(sharpest[place]), float(wrong.mean() / changed.full[here].mean())
            rows.append(
                Row(
                    case, detector, value, level, image / spread, image_std / spread, difference / rms,
                    difference_std / rms, spread, rms, configuration_count,
                )
            )  # fmt: skip
    return rows


def _error(wrong: np.ndarray) -> tuple[float, float]:
    """Rms of the mean of (replicates, rows, columns) without the noise of that mean, and its jackknife error."""

    def squared(chosen: np.ndarray) -> float:
        return float((chosen.mean(axis=0) ** 2).mean() - chosen.var(axis=0, ddof=1).mean() / len(chosen))

    count = len(wrong)
    value, noise2 = squared(wrong), float(wrong.var(axis=0, ddof=1).mean()) / count
    error = sqrt(max(value, 0.0))
    if count < 3:
        return error, sqrt(noise2)
    without = np.array([squared(np.delete(wrong, number, axis=0)) for number in range(count)])
    std = sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    return error, std / (2 * max(error, sqrt(std)))


def measured(
    cases: Iterable[str],
    defocus_nm: Sequence[float],
    replicate_count: int,
    configuration_count: int,
    cache_folder: Path | None,
    supercell_nm: float = SUPERCELL_NM,
) -> list[Row]:
    """All rows; each replicate has displacements of its own, on both sides the same."""
    crop, seeds = Crop(supercell_nm), range(replicate_count)
    images = [
        local_images(cache_folder, phonon_count=configuration_count, seed=seed, supercell_nm=supercell_nm)
        for seed in seeds
    ]

    def both(content: Sequence[str]) -> Replicates:
        full = [multislice(crop, content, configuration_count, seed, defocus_nm) for seed in seeds]
        return Replicates(np.array(full), np.array([superposed(each, crop, content, defocus_nm) for each in images]))

    perfect = both(())
    total = replicate_count * configuration_count
    return [row for case in cases for row in compared(case, both(CASES[case]), perfect, defocus_nm, total)]


def main() -> None:
    """Print one row an image, and write them all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--configurations", type=int, default=4, help="displaced crops of a replicate")
    parser.add_argument("--defocus", type=float, nargs="+", default=[0.0, 15.0, 30.0])
    parser.add_argument("--supercell-nm", type=float, default=SUPERCELL_NM, help="of the local differences, below 2.8")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/local_differences.json"))
    parser.add_argument("--cache", type=Path, default=None, help="folder of the forward models")
    given = parser.parse_args()
    started_s = time.process_time()
    rows = measured(CASES, given.defocus, given.replicates, given.configurations, given.cache, given.supercell_nm)
    for row in rows:
        image = f"image {100 * row.image_error:.2f} +- {100 * row.image_error_std:.2f} % of the spread"
        change = f"difference {100 * row.difference_error:.1f} +- {100 * row.difference_error_std:.1f} % of its rms"
        level = f"level {100 * row.level_error:+.2f} %"
        print(f"{row.case:12s} {row.detector:6s} {row.defocus_nm:4.0f} nm: {level}, {image}, {change}", flush=True)
    document = {"rows": [asdict(row) for row in rows], "processor_s": time.process_time() - started_s}
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
