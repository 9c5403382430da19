"""Images of a lattice with isolated point defects: a periodic image, and a local difference for each changed column.

Both are exact averages over thermal configurations of the wave optics of a supercell (`gram`), so a change of defocus,
aberrations, focal spread or source size costs milliseconds. Why this may be superposed: docs/decisions/0010.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Coherence, Optics
from simulation.errors import InvalidParameter
from simulation.gram import GramCalculator, GramSettings
from simulation.gram_cache import GramCache, gram_key
from simulation.probe_pairs import ProbePairs
from simulation.scattering_factors import symbol_of
from simulation.specimens import Specimen, orthogonal_cell
from simulation.structure_columns import Column, ColumnLattice, Defect, Supercell, placed

__all__ = ["Column", "Defect", "DifferenceImage", "LatticeImages"]

Ring = tuple[float, float]
Content = tuple[str, ...]

_TAPER_START_FRACTION = 0.8
_IMAGES_KEPT = 512
_LEANING_SHARE = 0.85  # of the sides of a supercell that the same columns, seen at an angle, must fill


@dataclass(frozen=True, slots=True)
class DifferenceImage:
    """What one changed column adds to the periodic image, in fractions of the beam.

    `values` is (n, n), n odd, float64, (y, x), the site in the middle of the central pixel, one pixel every `step_nm`.
    A cosine takes it to zero between 80 % and 100 % of the distance to the edge; `outside_fraction` is the share of
    the squared difference, over the whole supercell, that this removes.
    """

    values: NDArray[np.float64]
    step_nm: float
    outside_fraction: float = 0.0


class LatticeImages:
    """Periodic image and difference images of one material for one gun and set of detectors; safe among threads."""

    def __init__(
        self,
        supercell: Supercell,
        settings: GramSettings,
        defects: Mapping[str, Defect],
        *,
        cache_folder: Path | None = None,
        step_nm: float = 0.01,
    ) -> None:
        """Prefer `from_structure`."""
        if not (isfinite(step_nm) and 0 < step_nm <= 0.05):
            raise InvalidParameter(f"step_nm = {step_nm} must be above 0 and at most 0.05 nm")
        width, height, _ = supercell.lattice.specimen.cell_angstrom
        self.cell_width_nm = width / 10
        self.cell_height_nm = height / 10
        self.columns = supercell.lattice.columns
        self.defects = dict(defects)
        self.step_nm = step_nm
        self._supercell = supercell
        self._settings = settings
        self._calculator = GramCalculator(supercell, settings)
        self._cache = None if cache_folder is None else GramCache(cache_folder)
        self._optics = ProbePairs(supercell, settings, self._calculator)
        self._grams: dict[tuple[str | None, Content], NDArray[np.complex64]] = {}
        self._locks: dict[tuple[str | None, Content], threading.Lock] = {}
        self._lock = threading.Lock()
        self._recent = _Recent(_IMAGES_KEPT)
        for species, defect in self.defects.items():
            self._check(species, defect)

    @classmethod
    def from_structure(
        cls,
        atoms: Any,
        defects: Mapping[str, Defect],
        *,
        beam_energy_ev: float,
        semi_convergence_angle_mrad: float,
        detector_ranges_mrad: Iterable[tuple[float, float]],
        rms_displacement_nm: float | Mapping[str, float],
        phonon_count: int = 12,
        seed: int = 0,
        cache_folder: str | Path | None = None,
        slices: Literal[1, "planes"] = "planes",
        supercell_nm: float = 1.6,
        step_nm: float = 0.01,
        potential_sampling_nm: float = 0.0016,
        parametrization: str = "lobato",
    ) -> LatticeImages:
        """Images of an `ase.Atoms` whose third cell vector lies along the beam; made orthogonal where it is not.

        `detector_ranges_mrad`: (inner, outer) of every detector that will be asked for. `rms_displacement_nm`: thermal
        displacement per axis, one number or by element, newcomers included; `phonon_count` = 0 leaves atoms at rest.
        `slices`: one per atomic plane, or all atoms in one (cheaper; wrong at high angles, see `OneSlice`).
        Focus counts from the first plane of atoms. Twelve thermal configurations leave 1 % of noise in a difference.
        Nothing is computed yet: each content of a column is when first asked for, or all of them by `prepare`.
        """
        specimen = Specimen.of(orthogonal_cell(atoms))
        elements = {symbol_of(int(number)) for number in specimen.numbers}
        elements |= {symbol_of(symbol) for defect in defects.values() for symbol in defect.becomes}
        settings = GramSettings(
            beam_energy_ev=beam_energy_ev,
            semi_convergence_angle_mrad=semi_convergence_angle_mrad,
            rings_mrad=_disjoint_rings(detector_ranges_mrad),
            rms_displacements_nm=_by_element(rms_displacement_nm, elements),
            phonon_count=phonon_count,
            seed=seed,
            slices=slices,
            potential_sampling_nm=potential_sampling_nm,
            parametrization=parametrization,
        )
        supercell = Supercell.at_least(ColumnLattice.of(specimen), supercell_nm)
        folder = None if cache_folder is None else Path(cache_folder)
        return cls(supercell, settings, defects, cache_folder=folder, step_nm=step_nm)

    def of_lattice(self, lattice: ColumnLattice) -> LatticeImages:
        """The same gun, detectors, defects and thermal motion on a lattice of the same columns, as one that leans."""
        side_nm = min(self._supercell.extent_angstrom) / 10 * _LEANING_SHARE
        supercell = Supercell.at_least(lattice, side_nm)
        folder = None if self._cache is None else self._cache.folder
        return LatticeImages(supercell, self._settings, self.defects, cache_folder=folder, step_nm=self.step_nm)

    @property
    def lattice(self) -> ColumnLattice:
        """The columns of the cell."""
        return self._supercell.lattice

    def prepare(self, contents: Iterable[tuple[str, Content]] = (), *, worker_count: int = 1) -> None:
        """Compute, or read from the cache, the perfect lattice, all defects, and other (column name, content) pairs."""
        wanted: list[tuple[str | None, Content]] = [(None, ())]
        wanted += [(defect.column, defect.becomes) for defect in self.defects.values()]
        wanted += [(column, tuple(content)) for column, content in contents]
        with ThreadPoolExecutor(max_workers=worker_count) as pool:
            list(pool.map(lambda key: self._gram(*key), dict.fromkeys(wanted)))

    def cell_image(
        self, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence
    ) -> NDArray[np.float64]:
        """Image of the perfect cell, (rows, columns), fraction of the beam, periodic and band-limited.

        Pixel (r, c) lies at (x, y) = (c * cell_width_nm / columns, r * cell_height_nm / rows). Averaged over all
        translations of the lattice, centring included. Read-only.
        """

        def compute() -> NDArray[np.float64]:
            harmonics = self._harmonics(None, (), inner_mrad, outer_mrad, optics, coherence)
            x, y = (
                np.arange(round(side / self.step_nm)) / round(side / self.step_nm) * side * 10
                for side in (self.cell_width_nm, self.cell_height_nm)
            )
            return self._optics.synthesised(harmonics, x, y)

        return self._recent.get(("cell", *self._key(inner_mrad, outer_mrad, optics, coherence)), compute)

    def difference_image(
        self, species: str, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence
    ) -> DifferenceImage:
        """Defect minus perfect lattice around a site of that species."""
        defect = self.defect(species)
        return self.difference_for(defect.column, defect.becomes, inner_mrad, outer_mrad, optics, coherence)

    def difference_for(
        self,
        column: str,
        content: Content,
        inner_mrad: float,
        outer_mrad: float,
        optics: Optics,
        coherence: Coherence,
    ) -> DifferenceImage:
        """The same for any content of a column, such as () for no atom left; zero for what the column holds anyway."""

        def compute() -> DifferenceImage:
            content_key = self._canonical(column, content)
            changed = self._harmonics(column, content_key, inner_mrad, outer_mrad, optics, coherence)
            perfect = self._harmonics(None, (), inner_mrad, outer_mrad, optics, coherence, every=True)
            return self._patch(changed - perfect, column)

        key = ("difference", column, content, *self._key(inner_mrad, outer_mrad, optics, coherence))
        return self._recent.get(key, compute)

    def site_image(
        self,
        column: str,
        content: Content | None,
        inner_mrad: float,
        outer_mrad: float,
        optics: Optics,
        coherence: Coherence,
        *,
        mean_of_lattice: bool = True,
    ) -> NDArray[np.float64]:
        """The whole image around a site, on the pixels of a difference image; `content` None is the host.

        Without `mean_of_lattice` the perfect part is that of the site's own supercell, with its thermal displacements.
        """
        axis = self._patch_axis_angstrom()
        x, y = self._supercell.site_angstrom(column)
        every = not mean_of_lattice
        harmonics = self._harmonics(None, (), inner_mrad, outer_mrad, optics, coherence, every=every)
        image = self._optics.synthesised(harmonics, x + axis, y + axis)
        if content is None:
            return image
        return image + self.difference_for(column, content, inner_mrad, outer_mrad, optics, coherence).values

    def defect(self, species: str) -> Defect:
        """The defect of that name."""
        if species not in self.defects:
            raise InvalidParameter(
                f"unknown species {species!r}; this specimen has {', '.join(self.defects) or 'none'}"
            )
        return self.defects[species]

    def _check(self, species: str, defect: Defect) -> None:
        try:
            host = self.columns[self._supercell.lattice.first(defect.column)].symbols
            same = bool(np.all(placed(host, defect.becomes) == placed(host, host)))
        except InvalidParameter as error:
            raise InvalidParameter(f"defect {species}: {error}") from error
        if same:
            raise InvalidParameter(f"defect {species}: {defect.column} becomes what it is ({', '.join(host)})")

    def _canonical(self, column: str, content: Content) -> Content:
        """Content in the order of the column's slots, so that ("O", "Se") and ("Se", "O") are one."""
        host = self.columns[self._supercell.lattice.first(column)].symbols
        return tuple(symbol_of(int(number)) for number in placed(host, content) if number)

    def _gram(self, column: str | None, content: Content) -> NDArray[np.complex64]:
        if column is not None:
            content = self._canonical(column, content)
        key = (column, content)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._grams:
                self._grams[key] = self._load_or_compute(column, content)
            return self._grams[key]

    def _load_or_compute(self, column: str | None, content: Content) -> NDArray[np.complex64]:
        if self._cache is None:
            return self._calculator.matrices(column, content)
        count = len(self._calculator.beam_indices)
        return self._cache.load_or_compute(
            gram_key(self._supercell, self._settings, column, content),
            (len(self._settings.rings_mrad), count, count),
            lambda: self._calculator.matrices(column, content),
        )

    def _harmonics(
        self,
        column: str | None,
        content: Content,
        inner_mrad: float,
        outer_mrad: float,
        optics: Optics,
        coherence: Coherence,
        *,
        every: bool = False,
    ) -> NDArray[np.complex128]:
        """Fourier coefficients of an image of the supercell; of the perfect one only those of the lattice, or all."""

        def compute() -> NDArray[np.complex128]:
            gram = self._gram(column, content)
            first, *others = self._rings_of(inner_mrad, outer_mrad)
            total = gram[first].astype(np.complex128)
            for ring in others:
                total += gram[ring]
            return self._optics.harmonics(total, optics, coherence)

        key = ("harmonics", column, content, *self._key(inner_mrad, outer_mrad, optics, coherence))
        harmonics = self._recent.get(key, compute)
        return harmonics if every or column is not None else harmonics * self._optics.lattice_mask

    def _key(self, inner_mrad: float, outer_mrad: float, optics: Optics, coherence: Coherence) -> tuple[Any, ...]:
        self._optics.check(optics)
        angle_mrad, defocus_nm = optics.semi_convergence_angle_mrad, optics.defocus_nm
        return (inner_mrad, outer_mrad, angle_mrad, defocus_nm, optics.aberrations, coherence)

    def _rings_of(self, inner_mrad: float, outer_mrad: float) -> list[int]:
        rings = self._settings.rings_mrad
        inside = [i for i, (a, b) in enumerate(rings) if a >= inner_mrad - 1e-9 and b <= outer_mrad + 1e-9]
        covered = sum(rings[i][1] - rings[i][0] for i in inside)
        if not inside or abs(covered - (outer_mrad - inner_mrad)) > 1e-6:
            known = ", ".join(f"{a:g}-{b:g}" for a, b in rings)
            raise InvalidParameter(
                f"a detector of {inner_mrad:g}-{outer_mrad:g} mrad cannot be put together from the rings {known} mrad;"
                " name it in detector_ranges_mrad"
            )
        return inside

    def _patch_axis_angstrom(self) -> NDArray[np.float64]:
        half_nm = min(self._supercell.extent_angstrom) / 20
        half_px = floor(half_nm / self.step_nm + 1e-9)
        return np.arange(-half_px, half_px + 1, dtype=np.float64) * (self.step_nm * 10)

    def _patch(self, harmonics: NDArray[np.complex128], column: str) -> DifferenceImage:
        x, y = self._supercell.site_angstrom(column)
        axis = self._patch_axis_angstrom()
        radius = np.hypot(axis[:, None], axis[None, :]) / axis[-1]
        ramp = np.clip((radius - _TAPER_START_FRACTION) / (1 - _TAPER_START_FRACTION), 0, 1)
        taper = 0.5 * (1 + np.cos(np.pi * ramp))
        values = self._optics.synthesised(harmonics, x + axis, y + axis)
        kept = float(np.sum((values * (1 - taper)) ** 2)) * (self.step_nm * 10) ** 2
        inside = float(np.sum(values**2)) * (self.step_nm * 10) ** 2
        height, width = self._supercell.extent_angstrom
        whole = float(np.sum(np.abs(harmonics) ** 2)) * height * width
        outside = (max(whole - inside, 0.0) + kept) / whole if whole > 0 else 0.0
        patch = values * taper
        patch.setflags(write=False)
        return DifferenceImage(patch, self.step_nm, outside)


class _Recent:
    """The results used last, each computed once for every time it is missing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._limit:
                self._results.popitem(last=False)
        return result


def _disjoint_rings(ranges_mrad: Iterable[Ring]) -> tuple[Ring, ...]:
    """The rings between successive edges of the detectors that lie in at least one of them."""
    ranges = [(float(inner), float(outer)) for inner, outer in ranges_mrad]
    if not ranges:
        raise InvalidParameter("detector_ranges_mrad is empty; give (inner, outer) of at least one detector")
    for inner, outer in ranges:
        if not (isfinite(outer) and 0 <= inner < outer):
            raise InvalidParameter(f"a detector of {inner}-{outer} mrad is empty; give 0 <= inner < outer, in mrad")
    edges = sorted({edge for ring in ranges for edge in ring})
    return tuple((a, b) for a, b in pairwise(edges) if any(inner <= a and b <= outer for inner, outer in ranges))


def _by_element(rms_displacement_nm: float | Mapping[str, float], elements: set[str]) -> tuple[tuple[str, float], ...]:
    if not isinstance(rms_displacement_nm, Mapping):
        return tuple((symbol, float(rms_displacement_nm)) for symbol in sorted(elements))
    missing = sorted(elements - set(rms_displacement_nm))
    if missing:
        raise InvalidParameter(f"rms_displacement_nm names no value for {', '.join(missing)}; give one, in nm")
    return tuple(sorted((symbol, float(value)) for symbol, value in rms_displacement_nm.items()))
