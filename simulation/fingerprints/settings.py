"""What a library of fingerprints holds: one set of optics and detectors, and the structures that are candidates."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Self

from pydantic import Field, model_validator

from instruments.models import Record
from instruments.optics import Coherence, Optics
from simulation.argument_kinds import check_fields
from simulation.detectors import AnnularDetector, SegmentedDetector
from simulation.errors import InvalidParameter, InvalidSpecimen
from simulation.method_choice import check_method
from simulation.phonons import FrozenPhonons
from simulation.scans import GridScan
from simulation.scattering_factors import elements
from simulation.specimens import Atoms


class ImageFingerprint(Record):
    """Images of detectors over one field, in the frame of each structure's cell.

    A measured image may be shifted against it by any number of pixels only if the field is a whole period of every
    structure; anything else is refused when it is ranked.
    """

    scan: GridScan
    detectors: dict[str, AnnularDetector | SegmentedDetector] = Field(min_length=1)


class PatternFingerprint(Record):
    """A diffraction pattern on a detector of square pixels `step_mrad` wide, zero angle at index n // 2 of each axis.

    Without points it is averaged over all probe positions of the structure's cell (position-averaged CBED), which
    depends on neither defocus, aberrations nor source. `points_nm`: probe positions (x, y) of single patterns.
    """

    step_mrad: float = Field(gt=0)
    shape_px: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (64, 64)
    points_nm: tuple[tuple[float, float], ...] = ()


class SpectrumFingerprint(Record):
    """Core losses of the named edges ("O K", "Ti L") on an even axis; elements without an edge here add nothing.

    `mean_free_path_nm`, `plasmon_ev` and `plasmon_width_ev` together smear each edge by plural plasmon losses.
    """

    edges: tuple[str, ...] = Field(min_length=1)
    first_loss_ev: float = Field(gt=0)
    step_ev: float = Field(gt=0)
    channel_count: int = Field(ge=8)
    collection_semi_angle_mrad: float = Field(gt=0)
    mean_free_path_nm: float | None = Field(default=None, gt=0)
    plasmon_ev: float = Field(default=20.0, gt=0)
    plasmon_width_ev: float = Field(default=10.0, gt=0)

    @property
    def losses_ev(self) -> list[float]:
        """Centres of the channels."""
        return [self.first_loss_ev + i * self.step_ev for i in range(self.channel_count)]


class LibrarySettings(Record):
    """One set of optics and detectors; the axes of the library are structure, thickness, tilt and defocus.

    `tilts_mrad` lean the specimen from its zone axis by (x, y), as `specimen_tilt_mrad` of `simulate` does;
    `defoci_nm` replaces that of `optics`, which is taken where none are given. `phonon_count` 0 is a static lattice;
    else every element needs its rms displacement per axis.
    """

    optics: Optics
    coherence: Coherence = Coherence()
    tilts_mrad: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    defoci_nm: tuple[float, ...] = ()
    images: ImageFingerprint | None = None
    pattern: PatternFingerprint | None = None
    spectrum: SpectrumFingerprint | None = None
    sampling_nm: float = Field(default=0.01, gt=0)
    slice_thickness_nm: float = Field(default=0.2, gt=0)
    parametrization: str = "lobato"
    method: str = "auto"
    accuracy: float = Field(default=0.01, gt=0)
    phonon_count: int = Field(default=0, ge=0)
    rms_displacements_nm: dict[str, float] = Field(default_factory=dict)
    phonon_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.images is None and self.pattern is None and self.spectrum is None:
            raise ValueError("a fingerprint needs images, a pattern or a spectrum")
        if "defoci_nm" not in self.model_fields_set:
            object.__setattr__(self, "defoci_nm", (self.optics.defocus_nm,))
        if not self.tilts_mrad or not self.defoci_nm:
            raise ValueError("tilts_mrad and defoci_nm need at least one value each")
        check_method(self.method, 1, self.accuracy)
        elements(self.parametrization)
        try:
            FrozenPhonons(1, self.rms_displacements_nm)
        except (InvalidParameter, InvalidSpecimen) as error:
            raise ValueError(f"rms_displacements_nm: {error}") from error
        return self

    @property
    def phonons(self) -> FrozenPhonons | None:
        """The rule for displacements, None for a static lattice."""
        if self.phonon_count == 0:
            return None
        return FrozenPhonons(self.phonon_count, self.rms_displacements_nm, self.phonon_seed)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A named structure, and how thick it may be.

    Without thicknesses `atoms` is the whole specimen. With them it is repeated along the beam as often as needed and
    cut at the slice boundary nearest to each thickness, which is what is then recorded.
    """

    name: str
    atoms: Atoms
    thicknesses_nm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are empty and thicknesses that are none."""
        check_fields(self)
        if not self.name:
            raise InvalidParameter("a candidate structure needs a name")
        for value in self.thicknesses_nm:
            if not (isfinite(value) and value > 0):
                raise InvalidParameter(f"thickness {value} nm of {self.name!r} must be a positive number of nm")
