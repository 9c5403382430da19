"""From a specimen to images: the public `simulate`, and `Simulator`, which keeps what re-imaging can use again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from instruments.optics import Coherence, Optics
from simulation.argument_kinds import kinds_checked
from simulation.arguments import checked_coherence, checked_optics, checked_seed
from simulation.atom_layers import Cut, check_slicing
from simulation.backend import backend
from simulation.coherence import focal_nodes
from simulation.detectors import Detector, PixelatedDetector, check_detectors, check_not_empty, value_count
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, MethodUnavailable
from simulation.exposure import Exposure
from simulation.method_choice import check_method
from simulation.method_trial import Measurement, MethodTrial, Wanted
from simulation.phonons import DebyeWaller, FrozenPhonons, Phonons, configurations
from simulation.potential import PotentialModel
from simulation.probe import check_aperture, check_aperture_edge
from simulation.probe_size import check_room
from simulation.progress import watched
from simulation.results import dataset
from simulation.scans import GridScan, PointScan, Scan
from simulation.slices import slice_count
from simulation.source_blur import SourceBlur
from simulation.sources import Prepared, Sources
from simulation.specimen_tilt import checked_tilt_mrad, seen_from_specimen
from simulation.specimens import Atoms, Specimen, Structure
from simulation.threads import checked_threads
from simulation.wave_grid import WaveGrid
from simulation.working_set import bounded, check_result

if TYPE_CHECKING:
    from simulation.images import Image, Images

_INCOHERENT_GRID_ANGSTROM = 40.0


def simulate(
    atoms: Atoms,
    optics: Optics,
    scan: Scan,
    detectors: Mapping[str, Detector],
    *,
    method: str = "auto",
    sampling_nm: float = 0.005,
    grid_shape_px: tuple[int, int] | None = None,
    slice_thickness_nm: float = 0.2,
    slicing: str = "equal",
    interpolation: int = 1,
    parametrization: str = "lobato",
    placement: str = "exact",
    projection: str = "infinite",
    coherence: Coherence | None = None,
    phonons: Phonons | None = None,
    accuracy: float = 0.01,
    device: str = "auto",
    precision: str = "single",
    aperture: str = "soft",
    specimen_tilt_mrad: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    threads: int | None = None,
    memory_gib: float | None = None,
) -> Images:
    """Image a specimen: one float32 variable a detector, in fractions of the incident beam.

    `atoms`: `ase.Atoms` or anything with its `numbers positions cell`, angstrom, orthogonal periodic cell, beam
    along +z. The wave grid has ceil(cell / sampling) pixels a side, FFT-friendly upwards unless `grid_shape_px`
    fixes it, and ceil(depth / slice_thickness) equal slices; with `slicing="layers"` slices begin where layers of
    atoms are instead (`height_rounding_nm` of the attributes says how far atoms are from where they act).
    `interpolation` is PRISM's factor, or the distance of partitioned PRISM's parents. `accuracy` bounds the error that
    `method="auto"` accepts, as rms difference from multislice over the image's standard deviation.
    `phonons`: `FrozenPhonons` or displaced structures, averaged over; `DebyeWaller` smears the potential instead.
    `coherence` averages over focal spread and over the source, whatever the steps of the scan: `probes_per_pixel` of
    the attributes says how many probes that took. `precision="double"` propagates
    in complex128 and returns float64. `aperture`: its edge is a ramp one reciprocal pixel wide (`soft`), so that images
    depend less on the cell's size, or `hard`. `specimen_tilt_mrad` (x, y) leans the specimen: atoms at depth z are met
    at x + z tan(tilt), which is right for small angles (`specimen_tilt`). Attributes of the result say which method was
    used, its estimated error (nan where none is known: `incoherent`, and images that a `Simulator` makes from the kept
    waves of interpolated PRISM after the one it checked), and every parameter.
    `threads`: batches of probes and waves computed at once on a CPU; images have the same bits for any number. None:
    OMP_NUM_THREADS, or else half of the processors, four at most. `memory_gib`: what an image may take
    in all: `auto` chooses within it, and what needs more is refused; None keeps 1 GiB (on a GPU 40 % of what is free).
    """
    simulator = Simulator(
        atoms,
        method=method,
        sampling_nm=sampling_nm,
        grid_shape_px=grid_shape_px,
        slice_thickness_nm=slice_thickness_nm,
        slicing=slicing,
        interpolation=interpolation,
        parametrization=parametrization,
        placement=placement,
        projection=projection,
        coherence=coherence,
        phonons=phonons,
        accuracy=accuracy,
        device=device,
        precision=precision,
        aperture=aperture,
        specimen_tilt_mrad=specimen_tilt_mrad,
        seed=seed,
        threads=threads,
        memory_gib=memory_gib,
    )
    return simulator.image(optics, scan, detectors)


class Simulator:
    """A specimen ready to be imaged many times; arguments as for `simulate`.

    Transmission functions are kept between images of one beam energy, scattering matrices between images of one
    energy and tilt whose aperture is no larger (with `partitioned_prism` and `local_difference` the same): with
    `method="prism"` or `"periodic"` another defocus, aberration, scan or detector propagates nothing. What is kept is
    dropped, oldest first, beyond 1 GiB (40 % of a GPU's), or two thirds of what `memory_gib` leaves for it. It can be
    pickled (for `multiprocessing`, joblib), without what it keeps.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        method: str = "auto",
        sampling_nm: float = 0.005,
        grid_shape_px: tuple[int, int] | None = None,
        slice_thickness_nm: float = 0.2,
        slicing: str = "equal",
        interpolation: int = 1,
        parametrization: str = "lobato",
        placement: str = "exact",
        projection: str = "infinite",
        coherence: Coherence | None = None,
        phonons: Phonons | None = None,
        accuracy: float = 0.01,
        device: str = "auto",
        precision: str = "single",
        aperture: str = "soft",
        specimen_tilt_mrad: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        threads: int | None = None,
        memory_gib: float | None = None,
    ) -> None:
        """Check everything that does not depend on optics, scan or detectors."""
        self._arguments = {name: given for name, given in locals().items() if name != "self"}
        check_method(method, interpolation, accuracy)
        self._specimen = Specimen.of(atoms)
        self._arguments["atoms"] = Structure.of(atoms)
        rms_angstrom = phonons.rms_angstrom(self._specimen) if isinstance(phonons, DebyeWaller) else ()
        self._model = PotentialModel(parametrization, placement, projection, rms_angstrom)
        self._specimen.check_distances()
        width, height, depth = self._specimen.cell_angstrom
        if method == "incoherent" and rms_angstrom:
            raise MethodUnavailable(
                "method 'incoherent' knows no DebyeWaller; leave phonons out, or use another method"
            )
        if method == "incoherent":  # no wave spans the field: the grid says how finely the probe is drawn
            width, height = (min(side, _INCOHERENT_GRID_ANGSTROM) for side in (width, height))
        check_aperture_edge(aperture)
        self.grid = replace(WaveGrid.for_cell(width, height, sampling_nm, grid_shape_px), aperture_edge=aperture)
        self.slice_count = slice_count(depth, slice_thickness_nm)
        self._wanted = Wanted(method, int(interpolation), accuracy, slice_thickness_nm, checked_seed(seed))
        self._coherence, self._phonons = _checked_coherence(coherence), phonons
        on_device = backend(device, precision, checked_threads(threads))
        self._on, self._memory_gib = bounded(on_device, self.grid, memory_gib), memory_gib
        self._tilt_mrad = checked_tilt_mrad(specimen_tilt_mrad)
        check_slicing(slicing, method, placement, projection)
        cut = Cut.at_layers if slicing == "layers" else Cut.equal
        moved = configurations(self._specimen, phonons, self._wanted.seed)
        self._cut = cut(self._specimen, moved, slice_thickness_nm)
        self._sources = Sources(self._cut.specimens, self.grid, self._cut.thickness_nm, self._model, self._on)
        self._trial = MethodTrial(self._sources, self.grid, self._on, self._wanted)

    def __getstate__(self) -> dict[str, Any]:
        """What it was made from; what it keeps stays here, and a copy computes it again."""
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        """Made anew, for the processors and devices of where it arrives."""
        self.__init__(**arguments)

    def __repr__(self) -> str:
        """How many atoms in which cell, the method and the wave grid."""
        cell = " x ".join(f"{side / 10:.4g}" for side in self._specimen.cell_angstrom)
        rows, columns = self.grid.shape_px
        count = len(self._specimen.numbers)
        return f"Simulator({count} atoms in {cell} nm, method={self._wanted.method!r}, {rows} x {columns} waves)"

    @watched()
    def image(
        self,
        optics: Optics,
        scan: Scan,
        detectors: Mapping[str, Detector],
        *,
        coherence: Coherence | None = None,
        specimen_tilt_mrad: tuple[float, float] | None = None,
    ) -> Images:
        """One exposure on all detectors; `coherence` and `specimen_tilt_mrad` override the simulator's."""
        coherence = self._coherence if coherence is None else _checked_coherence(coherence)
        tilt_mrad = self._tilt_mrad if specimen_tilt_mrad is None else checked_tilt_mrad(specimen_tilt_mrad)
        clipped = self._check(optics, scan, detectors)
        blur = self._blur(scan, coherence, optics)
        seen = seen_from_specimen(optics, tilt_mrad)
        wanted = self._wanted
        if wanted.method not in ("incoherent", "windowed"):
            check_room(optics, self._specimen.cell_angstrom, wanted.interpolation if wanted.method == "prism" else 1)

        foci = focal_nodes(seen, coherence.focal_spread_nm)
        exposure = Exposure(foci, scan, detectors, blur)
        self._check_room_for(exposure)
        with self._on.one_thread_each():
            measured = self._trial.measured(exposure)
        attributes = self._attributes(optics, coherence, measured) | {
            "specimen_tilt_mrad": list(tilt_mrad),
            "clipped_outer_mrad": json.dumps(clipped),
            "probes_per_pixel": self._probes_per_pixel(measured, exposure),
        }
        axes_mrad = self._trial.detection.axes_mrad(measured.candidate, seen, detectors)
        return dataset(measured.signals, scan, detectors, axes_mrad, attributes, self._on.real_type)

    def diffraction(
        self,
        optics: Optics,
        points_nm: ArrayLike,
        *,
        max_angle_mrad: float | None = None,
        coherence: Coherence | None = None,
        specimen_tilt_mrad: tuple[float, float] | None = None,
    ) -> Image:
        """Diffraction patterns (point, detector_y, detector_x) at (n, 2) probe positions (x, y).

        The source size does not apply to single points; the focal spread does.
        """
        detector = PixelatedDetector(max_angle_mrad=max_angle_mrad)
        coherence = self._coherence if coherence is None else _checked_coherence(coherence)
        pointlike = coherence.model_copy(update={"source_size_nm": 0.0})
        made = self.image(
            optics,
            PointScan(points_nm),
            {"diffraction": detector},
            coherence=pointlike,
            specimen_tilt_mrad=specimen_tilt_mrad,
        )
        return made["diffraction"]

    @kinds_checked
    def prepared(self, beam_energy_ev: float) -> Prepared:
        """The specimen's transmission functions at an energy, for those who propagate waves themselves."""
        with self._on.one_thread_each():
            return self._sources.prepared(beam_energy_ev, self._tilt_mrad)

    def _check(self, optics: Optics, scan: Scan, detectors: Mapping[str, Detector]) -> dict[str, float]:
        checked_optics(optics)
        if not isinstance(scan, GridScan | PointScan):
            raise InvalidParameter(f"scan is a {type(scan).__name__}; give a GridScan or a PointScan")
        check_aperture(optics, self.grid.cutoff_per_angstrom)
        wavelength = wavelength_angstrom(optics.beam_energy_ev)
        clipped = check_detectors(detectors, self.grid.cutoff_mrad(wavelength))
        if self._wanted.method == "incoherent":  # knows no waves, so nothing of a ring is cut off
            return {}
        check_not_empty(detectors, self.grid, wavelength)
        return clipped

    def _check_room_for(self, exposure: Exposure) -> None:
        """Images are small, but patterns of every probe may fill a memory many times over."""
        wanted, wavelength = self._wanted, wavelength_angstrom(exposure.optics.beam_energy_ev)
        factor = wanted.interpolation if wanted.method == "prism" else 1
        window = replace(
            self.grid,
            shape_px=tuple(count // factor for count in self.grid.shape_px),
            extent_angstrom=tuple(length / factor for length in self.grid.extent_angstrom),
        )
        values = value_count(exposure.detectors, window, wavelength, self.grid.cutoff_mrad(wavelength))
        averaged = len(self._sources.specimens) > 1 or len(exposure.foci) > 1 or exposure.blur is not None
        check_result(prod(exposure.scan.shape), values, self._on, self._memory_gib, averaged=averaged)

    def _blur(self, scan: Scan, coherence: Coherence, optics: Optics) -> SourceBlur | None:
        if coherence.source_size_nm == 0:
            return None
        of_pixels = self._model.placement == "bilinear"
        return SourceBlur(scan, coherence.source_size_nm, optics, self._sources.specimens[0], of_pixels=of_pixels)

    def _probes_per_pixel(self, measured: Measurement, exposure: Exposure) -> float:
        """Of one focus; more than 1 where a blur takes probes between the pixels."""
        if exposure.blur is None or self._trial.detection.takes_source_in(measured.candidate, exposure):
            return 1.0
        return exposure.blur.probe_count / prod(exposure.scan.shape)

    def _attributes(self, optics: Optics, coherence: Coherence, measured: Measurement) -> dict[str, Any]:
        tilt = {"tilt_x_mrad": optics.tilt_x_mrad, "tilt_y_mrad": optics.tilt_y_mrad}
        return {
            "method": measured.candidate.method,
            "interpolation": measured.candidate.interpolation,
            "window_px": list(measured.candidate.window_px or self.grid.shape_px),
            "error_estimate": measured.error_estimate.ratio,
            "error_estimate_optics": measured.error_estimate.optics.model_copy(update=tilt).model_dump_json(),
            "phonon_standard_error": measured.phonon_standard_error,
            "requested_method": self._wanted.method,
            "accuracy": self._wanted.accuracy,
            "optics": optics.model_dump_json(),
            "coherence": coherence.model_dump_json(),
            "parametrization": self._model.parametrization,
            "placement": self._model.placement,
            "projection": self._model.projection,
            "grid_shape_px": list(self.grid.shape_px),
            "sampling_nm": [value / 10 for value in self.grid.sampling_angstrom],
            "slice_count": self.slice_count,
            "slice_thickness_nm": self._specimen.cell_angstrom[2] / self.slice_count / 10,
            "slicing": self._arguments["slicing"],
            "height_rounding_nm": self._cut.rounding_nm,
            "antialias_cutoff_mrad": self.grid.cutoff_mrad(wavelength_angstrom(optics.beam_energy_ev)),
            "thermal_motion": _thermal_motion(self._phonons),
            "phonon_configurations_count": 0 if _is_static(self._phonons) else len(self._sources.specimens),
            "phonon_sigmas_nm": json.dumps(_sigmas_nm(self._phonons)),
            "device": self._on.name,
            "precision": self._on.precision,
            "aperture": self.grid.aperture_edge,
            "seed": self._wanted.seed,
        }


def _checked_coherence(coherence: Coherence | None) -> Coherence:
    return Coherence() if coherence is None else checked_coherence(coherence)


def _is_static(phonons: Phonons | None) -> bool:
    return phonons is None or isinstance(phonons, DebyeWaller)


def _thermal_motion(phonons: Phonons | None) -> str:
    if isinstance(phonons, FrozenPhonons | DebyeWaller):
        return type(phonons).__name__
    return "none" if phonons is None else "given structures"


def _sigmas_nm(phonons: Phonons | None) -> Any:
    if not isinstance(phonons, FrozenPhonons | DebyeWaller):
        return None
    return dict(phonons.sigmas_nm) if isinstance(phonons.sigmas_nm, Mapping) else phonons.sigmas_nm
