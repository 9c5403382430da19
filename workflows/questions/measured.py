"""The census's extractor on measured MoS2 images: for the report, which must not rest on simulations alone."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.build import mx2

import orchestrator.features
from instruments import (
    AcquireFrame,
    Coherence,
    Detector,
    Frame,
    MicroscopeState,
    Mode,
    Optics,
    ScanPattern,
    StagePosition,
)
from orchestrator.features.errors import FeatureError, NormalisedCounts
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.features.sites import LatticeSites
from orchestrator.report.measured_image import Measured, MeasuredImage, Substitute
from orchestrator.settings import REAL_DATA_VARIABLE
from simulation.lattice_images import Defect, LatticeImages

FOLDER: Final = Path("real") / "mos2"
NAMES: Final = ("MoS2_stem_Exp-000-2", "MoS2_stem_Exp-001-5")
HOW: Final = (
    f"No measured image: set {REAL_DATA_VARIABLE} to a folder that holds {FOLDER.as_posix()}/{NAMES[0]}.npy (with its "
    ".json beside it), and `stempilot report` shows here what the same extractor says of it."
)
_COHERENCE: Final = Coherence(source_size_nm=0.08, focal_spread_nm=3.3)
_RING_MRAD: Final = (80.0, 200.0)
_CONVERGENCE_MRAD: Final = 31.5
_SUBSTITUTE: Final = "V_Mo"
_ASSUMED: Final = (
    f"{_CONVERGENCE_MRAD:g} mrad convergence, a detector of {_RING_MRAD[0]:g} to {_RING_MRAD[1]:g} mrad, "
    f"{_COHERENCE.source_size_nm:g} nm source, focus within 12 nm"
)


def measured_images(folder: Path | None, cache_folder: Path | None) -> Measured:
    """What the extractor says of the measured images in a folder; from the cache where it has said so before."""
    if folder is None:
        return Measured(note=HOW)
    found: list[MeasuredImage] = []
    notes: list[str] = []
    for name in NAMES:
        path = folder / FOLDER / f"{name}.npy"
        if not path.is_file():
            continue
        try:
            found.append(_measured(_Source.read(path), cache_folder))
        except (OSError, ValueError, KeyError, FeatureError) as error:
            notes.append(f"{path.name}: {error}")
    if not found and not notes:
        return Measured(note=HOW)
    return Measured(images=tuple(found), note="; ".join(notes))


@dataclass(frozen=True, slots=True)
class _Source:
    """A measured file as it was read."""

    name: str
    image: np.ndarray
    pixel_size_nm: float
    material: str
    beam_energy_ev: float
    probe_current_pa: float
    digest: str

    @classmethod
    def read(cls, path: Path) -> _Source:
        """An image with the notes beside it. Raises OSError, ValueError or KeyError where they are not as expected."""
        notes_path = path.with_suffix(".json")
        content, notes = path.read_bytes(), notes_path.read_bytes()
        document: Mapping[str, Any] = json.loads(notes)
        details = document["experimental_details"]
        image = np.load(path, allow_pickle=False).astype(float)
        space = details["spatial_info"]
        if image.ndim != 2 or space["field_of_view_units"] != "nm":
            raise ValueError(f"{notes_path.name}: one image with a field of view in nm is needed")
        return cls(
            path.stem,
            image,
            float(space["field_of_view_x"]) / image.shape[1],
            str(document["material_type"]),
            _number(details["voltage"], "kV") * 1e3,
            _number(details["probe_current"], "pA"),
            hashlib.sha256(content + notes).hexdigest(),
        )

    @property
    def optics(self) -> Optics:
        """What the notes say of the beam, with the convergence assumed."""
        return Optics(
            beam_energy_ev=self.beam_energy_ev,
            semi_convergence_angle_mrad=_CONVERGENCE_MRAD,
            probe_current_pa=self.probe_current_pa,
        )


def _number(text: str, unit: str) -> float:
    value, _, found = text.strip().partition(" ")
    if found != unit:
        raise ValueError(f"{text!r} is not a number of {unit}")
    return float(value)


def _measured(source: _Source, cache_folder: Path | None) -> MeasuredImage:
    sites, images = _extractor(source, cache_folder)
    features = _kept(source, cache_folder) or _described(source, sites, images, cache_folder)
    ratio = features.values["substitute_brightness_ratio"]
    return MeasuredImage(
        name=source.name,
        material=source.material,
        told=f"{source.material}, {source.beam_energy_ev / 1e3:g} kV, {source.probe_current_pa:g} pA, "
        f"{source.image.shape[1] * source.pixel_size_nm:g} nm across",
        assumed=_ASSUMED,
        image=source.image,
        pixel_size_nm=source.pixel_size_nm,
        column_names=sites.column_names,
        substitute=Substitute(name="V", column=images.defects[_SUBSTITUTE].column, brightness_ratio=ratio.value),
        features=features,
        refusal=_refusal(source, sites),
        processor_s=features.values["processor_s"].value,
    )


def _extractor(source: _Source, cache_folder: Path | None) -> tuple[LatticeSites, LatticeImages]:
    """The census's extractor with a forward model of MoS2; nothing of the model is computed yet."""
    images = LatticeImages.from_structure(
        mx2("MoS2", a=3.16, thickness=3.13, vacuum=0.0),
        {_SUBSTITUTE: Defect(column="Mo", becomes=("V",))},
        beam_energy_ev=source.beam_energy_ev,
        semi_convergence_angle_mrad=_CONVERGENCE_MRAD,
        detector_ranges_mrad=[_RING_MRAD],
        rms_displacement_nm=0.007,
        phonon_count=2,
        cache_folder=cache_folder,
    )
    return LatticeSites(images, (_SUBSTITUTE,), coherence=lambda optics: _COHERENCE), images


def _described(source: _Source, sites: LatticeSites, images: LatticeImages, cache_folder: Path | None) -> FeatureSet:
    started_s = time.process_time()
    features = sites.describe_normalised(
        source.image, source.pixel_size_nm, inner_mrad=_RING_MRAD[0], outer_mrad=_RING_MRAD[1], optics=source.optics
    )
    more = {
        "substitute_brightness_ratio": Feature(value=_brightness_ratio(source, images)),
        "processor_s": Feature(value=time.process_time() - started_s),
    }
    features = replace(features, values={**features.values, **more})
    if cache_folder is not None:
        path = _cache_path(source, cache_folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(features.to_bytes())
        temporary.replace(path)
    return features


def _brightness_ratio(source: _Source, images: LatticeImages) -> float:
    """Height of the changed column over that of the perfect one, both above the darkest place of the cell, in focus."""
    cell = images.cell_image(*_RING_MRAD, source.optics, _COHERENCE)
    change = images.difference_image(_SUBSTITUTE, *_RING_MRAD, source.optics, _COHERENCE).values
    column = next(column for column in images.columns if column.name == images.defects[_SUBSTITUTE].column)
    row = round(column.y_nm / images.cell_height_nm * cell.shape[0]) % cell.shape[0]
    across = round(column.x_nm / images.cell_width_nm * cell.shape[1]) % cell.shape[1]
    height = float(cell[row, across] - cell.min())
    return (height + float(change[change.shape[0] // 2, change.shape[1] // 2])) / height


def _cache_path(source: _Source, cache_folder: Path) -> Path:
    """A name that changes with the file, with what was assumed, and with any line of the extractor."""
    parts = [source.digest, _ASSUMED, Path(__file__).read_text(encoding="utf-8")]
    modules = Path(orchestrator.features.__path__[0])
    parts += [path.read_text(encoding="utf-8") for path in sorted(modules.glob("*.py"))]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return cache_folder / "measured" / f"{source.name}-{key[:24]}.npz"


def _kept(source: _Source, cache_folder: Path | None) -> FeatureSet | None:
    """What was computed before, None where it was not or the file is damaged."""
    if cache_folder is None:
        return None
    try:
        return FeatureSet.from_bytes(_cache_path(source, cache_folder).read_bytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _refusal(source: _Source, sites: LatticeSites) -> str:
    """The extractor's own words when the image is handed to it as a frame to be counted."""
    mode = Mode(
        name="haadf",
        detectors=(Detector(name="haadf", inner_mrad=_RING_MRAD[0], outer_mrad=_RING_MRAD[1], raw_counts=False),),
    )
    scan = ScanPattern(
        field_of_view_nm=source.image.shape[1] * source.pixel_size_nm, shape_px=source.image.shape, dwell_time_us=1.0
    )
    command = AcquireFrame(
        action_id=source.name, deadline_s=60, optics=source.optics, mode="haadf", stage=StagePosition(), scan=scan
    )
    frame = Frame(
        action_id=source.name, requested=command, mode=mode, counts={"haadf": source.image[None]},
        state=MicroscopeState(time_s=0.0, stage=StagePosition(), optics=source.optics, mode="haadf"),
        pixel_size_nm=source.pixel_size_nm, dose_e_per_a2=0.0, electrons=0.0, started_s=0.0, ended_s=0.0,
        instrument="file", simulated=False,
    )  # fmt: skip
    try:
        sites.extract(frame)
    except NormalisedCounts as error:
        return str(error)
    raise FeatureError(f"{source.name}: the extractor took an image for counts; report this as a fault")
