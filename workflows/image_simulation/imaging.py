"""What is simulated of a structure, and the raw counts where a dose is given. Neighbours: `structures`, `files`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import numpy as np

from instruments import Coherence, Optics
from instruments.units import electrons as electrons_in
from orchestrator.errors import SpecError
from simulation import AnnularDetector, DebyeWaller, FrozenPhonons, GridScan, SegmentedDetector, Simulator
from simulation.counting import DetectorChain, raw_counts
from simulation.images import Image, Images
from workflows.image_simulation.structures import Built

DEFAULT_PIXEL_NM: Final = 0.02
LARGEST_PIXEL_COUNT: Final = 16_777_216
_LEAST_PIXELS: Final = 16
_NOMINAL_DWELL_US: Final = 1.0
_LARGEST_E_PER_PX: Final = 1e9
_ALL_COUNTS = DetectorChain(saturation_counts=2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How a structure is imaged; None where this module chooses."""

    optics: Optics
    coherence: Coherence = field(default_factory=Coherence)
    detectors: Mapping[str, AnnularDetector | SegmentedDetector] = field(
        default_factory=dict[str, AnnularDetector | SegmentedDetector]
    )
    field_of_view_nm: float | None = None
    shape_px: tuple[int, int] | None = None
    centre_nm: tuple[float, float] | None = None
    dose_e_per_px: float | None = None
    dose_e_per_a2: float | None = None
    dwell_time_us: float | None = None
    phonons: FrozenPhonons | DebyeWaller | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Handed on to `simulation.Simulator`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Images in fractions of the beam, and the counts drawn from them where electrons were asked for."""

    images: Images
    counts: dict[str, np.ndarray]
    scan: GridScan
    optics: Optics
    coherence: Coherence
    dwell_time_us: float
    electrons_e_per_px: float
    assumed: tuple[str, ...] = ()
    """What nobody gave and a file of an exposure has to say: it makes up the dose, where there is one."""

    @property
    def pixel_nm(self) -> float:
        """Side of a pixel."""
        return self.scan.pixel_nm[1]

    @property
    def centre_nm(self) -> tuple[float, float]:
        """x and y of the middle of the scan, in the frame of the cell."""
        rows, columns = self.scan.shape_px
        half = self.pixel_nm / 2
        return self.scan.x_nm + columns * half - half, self.scan.y_nm + rows * half - half


def simulated(built: Built, request: Request) -> Simulated:
    """Image it. Raises SpecError and the errors of `simulation`."""
    scan = _scan(built, request)
    detectors = dict(request.detectors) or _usual_detectors(request)
    optics, dwell_time_us, per_px = _exposure(request, scan)
    simulator = Simulator(
        built.atoms, coherence=request.coherence, phonons=request.phonons, seed=request.seed, **request.settings
    )
    images = _single(simulator.image(optics, scan, detectors))
    rng = np.random.default_rng([request.seed, 1])
    counts = {
        str(name): raw_counts(np.asarray(images[name]), per_px, _ALL_COUNTS, rng)
        for name in images.data_vars
        if per_px > 0
    }
    return Simulated(
        images=images, counts=counts, scan=scan, optics=optics, coherence=request.coherence,
        dwell_time_us=dwell_time_us, electrons_e_per_px=per_px, assumed=_assumed(request, per_px),
    )  # fmt: skip


def _assumed(request: Request, electrons_e_per_px: float) -> tuple[str, ...]:
    has_current = request.optics.probe_current_pa > 0
    is_dwell_known = request.dwell_time_us is not None or (has_current and electrons_e_per_px > 0)
    known = {"dwell_time_us": is_dwell_known, "probe_current_pa": has_current or electrons_e_per_px == 0}
    return tuple(name for name, is_known in known.items() if not is_known)


def _usual_detectors(request: Request) -> dict[str, AnnularDetector | SegmentedDetector]:
    """Dark field from three to eight times the aperture, and where waves interfere the bright field's outer half."""
    angle_mrad = request.optics.semi_convergence_angle_mrad
    if angle_mrad <= 0:
        raise SpecError("a parallel beam has no usual detectors; give --detector NAME=INNER:OUTER")
    dark = {"haadf": AnnularDetector(3 * angle_mrad, 8 * angle_mrad)}
    if request.settings.get("method") == "incoherent":
        return dict(dark)
    return {**dark, "abf": AnnularDetector(angle_mrad / 2, angle_mrad)}


def _scan(built: Built, request: Request) -> GridScan:
    """Square pixels around the centre; the whole cell where nothing is said."""
    width_nm, height_nm, _ = built.cell_nm
    asked_nm = request.field_of_view_nm
    if asked_nm is not None and not 0 < asked_nm <= 1e6:
        raise SpecError(f"--field-of-view-nm {asked_nm:g}: give more than 0, up to 1e6 nm")
    across_nm = width_nm if asked_nm is None else asked_nm
    if request.shape_px is not None:
        rows, columns = request.shape_px
    else:
        columns = max(_LEAST_PIXELS, ceil(across_nm / DEFAULT_PIXEL_NM - 1e-6))
        high_nm = height_nm if asked_nm is None else asked_nm
        rows = max(1, round(high_nm / (across_nm / columns)))
    if min(rows, columns) < 2 or rows * columns > LARGEST_PIXEL_COUNT:
        raise SpecError(
            f"{rows} x {columns} pixels: give 2 or more a side, and no more than {LARGEST_PIXEL_COUNT} together;"
            " --shape-px ROWS,COLUMNS says how many"
        )
    pixel_nm = across_nm / columns
    x_nm, y_nm = (width_nm / 2, height_nm / 2) if request.centre_nm is None else request.centre_nm
    corner = (x_nm - (columns - 1) / 2 * pixel_nm, y_nm - (rows - 1) / 2 * pixel_nm)
    return GridScan(*corner, columns * pixel_nm, rows * pixel_nm, (rows, columns))


def _exposure(request: Request, scan: GridScan) -> tuple[Optics, float, float]:
    """Optics with the current that fits, dwell time, electrons on one pixel (0: no counts are drawn)."""
    given = [
        name
        for name, value in (
            ("--dose-e-per-px", request.dose_e_per_px),
            ("--dose-e-per-a2", request.dose_e_per_a2),
            ("--dwell-time-us", request.dwell_time_us),
        )
        if value is not None
    ]
    if not given:
        return request.optics, _NOMINAL_DWELL_US, 0.0
    if len(given) > 1:
        raise SpecError(f"{' and '.join(given)} each say the dose; give one of them")
    current_pa = request.optics.probe_current_pa
    if request.dwell_time_us is not None:
        if current_pa <= 0 or not 0 < request.dwell_time_us <= 1e9:
            raise SpecError(
                f"--dwell-time-us {request.dwell_time_us:g} at {current_pa:g} pA gives no electrons; both must be"
                " positive (--optics probe_current_pa=...)"
            )
        return request.optics, request.dwell_time_us, electrons_in(current_pa, request.dwell_time_us * 1e-6)
    per_px = _electrons_e_per_px(request, scan)
    if current_pa > 0:
        return request.optics, per_px / electrons_in(current_pa, 1e-6), per_px
    fitting_pa = per_px / electrons_in(1.0, _NOMINAL_DWELL_US * 1e-6)
    return request.optics.model_copy(update={"probe_current_pa": fitting_pa}), _NOMINAL_DWELL_US, per_px


def _electrons_e_per_px(request: Request, scan: GridScan) -> float:
    """Of a dose that was given by area or by pixel."""
    if request.dose_e_per_px is not None:
        if not 0 < request.dose_e_per_px <= _LARGEST_E_PER_PX:
            raise SpecError(
                f"--dose-e-per-px {request.dose_e_per_px:g}: give more than 0, up to {_LARGEST_E_PER_PX:g} electrons"
            )
        return request.dose_e_per_px
    asked_e_per_a2 = request.dose_e_per_a2 or 0.0
    pixel_a2 = scan.pixel_nm[0] * scan.pixel_nm[1] * 100
    if not 0 < asked_e_per_a2 <= _LARGEST_E_PER_PX / pixel_a2:
        raise SpecError(
            f"--dose-e-per-a2 {asked_e_per_a2:g}: give more than 0, up to {_LARGEST_E_PER_PX / pixel_a2:.3g} e/A2"
            f" ({_LARGEST_E_PER_PX:g} electrons on each pixel of {scan.pixel_nm[1]:.3g} nm)"
        )
    return asked_e_per_a2 * pixel_a2


def _single(images: Images) -> Images:
    """Every segment as an image of its own, named after its ring and its place in it."""
    found: dict[str, Image] = {}
    for name in map(str, images.data_vars):
        image = images[name]
        extra = [dim for dim in image.dims if dim not in ("y", "x")]
        if not extra:
            found[name] = image
            continue
        ring_dim, segment_dim = extra
        for ring in range(image.sizes[ring_dim]):
            for segment in range(image.sizes[segment_dim]):
                part = Image(image.isel({ring_dim: ring, segment_dim: segment}))
                label = f"{name}_{ring + 1}_{segment + 1}"
                part.attrs["long_name"] = f"{image.attrs['long_name']}, ring {ring + 1}, segment {segment + 1}"
                found[label] = Image(part.rename(label))
    return Images(found, attrs=images.attrs)
