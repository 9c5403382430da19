"""One frame as one NeXus file (application definition NXem): counts, axes and the complete context that made them.

Neighbours: `nexus_tree` writes fields, `nexus_reader` reads the file back into the same frame.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from platform import python_version
from typing import Any, Final

import h5py
import numpy as np

from instruments import Aberrations, Frame, Optics
from instruments.frames import PATTERN_NDIM
from orchestrator.catalogue.nexus_tree import (
    UNITLESS,
    group,
    number,
    permitted,
    write_axis,
    write_counts,
    write_text,
    write_values,
)
from orchestrator.plain_json import plain, to_text

ENTRY: Final = "entry1"
EVENT: Final = "entry1/measurement/event1"
RECORD: Final = "entry1/stempilot"
DOCUMENTS: Final = "entry1/stempilot/documents"
STACK: Final = "stack_2d"  # counts by sub-frame
PATTERNS: Final = "patterns"  # counts by sub-frame and scan point, where each has a pattern
FORMAT_VERSION: Final = 1
_LIBVER: Final = ("v110", "v110")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecord:
    """Where a frame comes from, for its file; `context` is what `Catalogue.begin` was given."""

    frame_id: str
    experiment_id: str
    decision_id: str
    suggestion_id: str
    ordinal: int
    intended_at: datetime
    acquired_at: datetime
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    decision: Mapping[str, Any] = field(default_factory=dict[str, Any])


def encode(frame: Frame, record: FrameRecord) -> bytes:
    """The bytes of the file. Raises TypeError for signed counts, or a context without JSON form."""
    _check(frame)
    with h5py.File("frame.nxs", "w", driver="core", backing_store=False, block_size=1 << 20, libver=_LIBVER) as file:
        _write(file, frame, record)
        file.flush()
        return bytes(file.id.get_file_image())


def write(path: Path, frame: Frame, record: FrameRecord) -> None:
    """The same file, written as it is made: for scans of patterns, of which memory has no room for a second copy.

    Raises TypeError as `encode` does, OSError where the disk fails.
    """
    _check(frame)
    try:
        with h5py.File(path, "w", libver=_LIBVER, locking=False) as file:
            _write(file, frame, record)
    except RuntimeError as error:  # what HDF5 raises where its last bytes cannot be written
        raise OSError(errno.EIO, " ".join(str(error).split())) from error


def _check(frame: Frame) -> None:
    for name, counts in frame.counts.items():
        if counts.dtype.kind != "u" or counts.ndim not in (3, PATTERN_NDIM):
            raise TypeError(
                f"counts of {name!r} are {counts.dtype} with {counts.ndim} dimensions; give unsigned integers, "
                "(sub-frames, rows, columns) or (sub-frames, rows, columns, detector rows, detector columns)"
            )


def _write(file: h5py.File, frame: Frame, record: FrameRecord) -> None:
    file.attrs["default"] = ENTRY
    file.attrs["NX_class"] = "NXroot"
    file.attrs["creator"] = "stempilot"
    entry = group(file, ENTRY, "NXentry", default="measurement")
    _write_head(entry, frame, record)
    _write_sample(entry, frame, record)
    _write_measurement(entry, frame, record)
    _write_record(entry, frame, record)


@cache
def software_versions() -> dict[str, str]:
    """Versions of what makes and stores a frame."""
    found = {"python": python_version(), "hdf5": h5py.version.hdf5_version}
    for name in ("stempilot", "numpy", "h5py", "scipy", "torch", "pydantic", "sqlalchemy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _write_head(entry: h5py.Group, frame: Frame, record: FrameRecord) -> None:
    write_text(entry, "definition", "NXem")
    write_text(entry, "identifier_experiment", record.experiment_id)
    write_text(entry, "experiment_alias", str(record.context.get("experiment", record.experiment_id)))
    write_text(entry, "start_time", record.intended_at.isoformat())
    write_text(entry, "end_time", record.acquired_at.isoformat())
    profiling = group(entry, "profiling", "NXcs_profiling")
    for name, found in _versions(frame, record).items():
        write_text(group(profiling, _program(profiling, name), "NXprogram"), "program", name, version=found)


def _program(profiling: h5py.Group, name: str) -> str:
    """A name that NeXus permits and the group does not have: letters, digits and underscores only."""
    made = f"program_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
    while made in profiling:
        made += "_"
    return made


def _versions(frame: Frame, record: FrameRecord) -> dict[str, str]:
    given = {**record.context.get("versions", {}), **frame.context.get("software", {})}
    return {**{str(name): str(found) for name, found in given.items()}, **software_versions()}


def _write_sample(entry: h5py.Group, frame: Frame, record: FrameRecord) -> None:
    specimen: Mapping[str, Any] = record.context.get("specimen") or {}
    sample = group(entry, "sampleID", "NXsample")
    material = str(specimen.get("material") or "unknown")
    write_text(sample, "name", material)
    name = str(specimen.get("id") or f"{record.experiment_id}/specimen")
    write_text(sample, "identifier_sample", name, type="stempilot")
    sample["identifier_sample"].attrs["type_custom"] = np.bool_(True)
    sample.create_dataset("is_simulation", data=np.bool_(frame.simulated))
    write_text(sample, "atom_types", atom_types(specimen))
    prepared = specimen.get("preparation_date")
    write_text(sample, "preparation_date", _moment(prepared, record.intended_at))
    if not prepared:
        note = group(sample, "preparation_note", "NXnote")
        write_text(note, "description", "no preparation date was given: the start of this exposure stands in its place")
    if specimen.get("thickness_nm") is not None:
        number(sample, "thickness", float(specimen["thickness_nm"]), "nm")
    if specimen:
        write_text(sample, "description", to_text(specimen))


def atom_types(specimen: Mapping[str, Any]) -> str:
    """Comma-separated element symbols: as given, else those read in the material's formula, else `unknown`.

    >>> atom_types({"material": "WSe2 monolayer"}), atom_types({"atom_types": ["Mo", "S"]}), atom_types({})
    ('Se, W', 'Mo, S', 'unknown')
    """
    given = specimen.get("atom_types")
    if given:
        return given if isinstance(given, str) else ", ".join(map(str, given))
    from ase.data import chemical_symbols

    formula = re.match(r"(?:[A-Z][a-z]?[\d.]*)+", str(specimen.get("material", "")))
    found = set(re.findall(r"[A-Z][a-z]?", formula.group())) if formula else set()
    return ", ".join(sorted(found)) if found and found <= set(chemical_symbols[1:]) else "unknown"


def _moment(given: Any, otherwise: datetime) -> str:
    if not given:
        return otherwise.isoformat()
    text = str(given)
    return f"{text}T00:00:00+00:00" if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else text


def _write_measurement(entry: h5py.Group, frame: Frame, record: FrameRecord) -> None:
    measurement = group(entry, "measurement", "NXem_measurement", default="event1")
    about: Mapping[str, Any] = frame.context.get("instrument") or {}
    instrument = group(measurement, "instrument", "NXem_instrument")
    write_text(instrument, "name", str(about.get("name", frame.instrument)))
    write_text(instrument, "type", "tem")
    fabrication = group(instrument, "fabrication", "NXfabrication")
    write_text(fabrication, "vendor", str(about.get("vendor", "unknown")))
    write_text(fabrication, "model", str(about.get("model", frame.instrument)))
    if about.get("serial"):
        write_text(fabrication, "serial_number", str(about["serial"]))
    source = group(group(instrument, "ebeam_column", "NXebeam_column"), "electron_source", "NXsource")
    write_text(source, "emitter_type", str(about.get("emitter_type", "unknown")))
    write_text(source, "probe", "electron")
    number(source, "voltage", frame.state.optics.beam_energy_ev, "V")
    _write_event(measurement, frame, record)


def _write_event(measurement: h5py.Group, frame: Frame, record: FrameRecord) -> None:
    first = next(iter(frame.counts), None)
    event = group(
        measurement, "event1", "NXem_event_data", **({"default": f"image_{permitted(first)}"} if first else {})
    )
    write_text(event, "start_time", record.intended_at.isoformat())
    write_text(event, "end_time", record.acquired_at.isoformat())
    write_text(event, "type", frame.requested.purpose)
    event.create_dataset("identifier_event", data=np.int64(record.ordinal))
    instrument = group(event, "instrument", "NXem_instrument")
    _write_stage(instrument, frame)
    _write_optics(instrument, frame)
    _write_column(instrument, frame)
    for detector in frame.mode.detectors:
        made = group(instrument, f"detector_{permitted(detector.name)}", "NXdetector")
        write_text(made, "local_name", detector.name)
        write_text(made, "type", frame.mode.kind)
        write_text(made, "operation_mode", frame.mode.name)
    for name, counts in frame.counts.items():
        _write_image(event, frame, name, counts)


def _write_stage(instrument: h5py.Group, frame: Frame) -> None:
    stage = frame.state.stage
    made = group(instrument, "stage1", "NXmanipulator")
    number(made, "tilt1", stage.alpha_deg, "deg")
    number(made, "tilt2", stage.beta_deg, "deg")
    number(made, "rotation", np.nan, "deg")
    write_text(made, "design", "two tilts; it reports no rotation, which is why that is not a number")
    number(made, "position", [stage.x_nm, stage.y_nm, stage.z_nm], "nm")


def _write_optics(instrument: h5py.Group, frame: Frame) -> None:
    optics, scan = frame.state.optics, frame.requested.scan
    made = group(instrument, "optics", "NXem_optical_system")
    number(made, "defocus", optics.defocus_nm, "nm")
    number(made, "semi_convergence_angle", optics.semi_convergence_angle_mrad, "mrad")
    number(made, "probe_current", optics.probe_current_pa, "pA")
    number(made, "field_of_view", scan.field_of_view_nm, "nm")
    number(made, "rotation", scan.rotation_deg, "deg")
    if optics.camera_length_mm is not None:
        number(made, "camera_length", optics.camera_length_mm, "mm")
    seconds = scan.duration_s(frame.requested.subframe_count)
    number(made, "dose_rate", frame.dose_e_per_a2 / seconds, "1/(angstrom^2*s)")


def _write_column(instrument: h5py.Group, frame: Frame) -> None:
    scan = frame.requested.scan
    column = group(instrument, "ebeam_column", "NXebeam_column")
    controller = group(column, "scan_controller", "NXscan_controller")
    write_text(controller, "scan_schema", "raster, fast axis along the columns")
    number(controller, "dwell_time", scan.dwell_time_us, "us")
    number(controller, "flyback_time", scan.flyback_time_us, "us")
    corrector = group(column, "corrector_cs", "NXcorrector_cs")
    tableau = group(corrector, "tableau1", "NXprocess")
    write_text(tableau, "description", "set, not measured: magnitude and azimuth from +x towards +y")
    write_text(tableau, "model", "nion")
    for name, magnitude_nm, azimuth_deg in _aberrations(frame.state.optics):
        made = group(tableau, name, "NXaberration")
        number(made, "magnitude", magnitude_nm, "nm")
        if azimuth_deg is not None:
            number(made, "angle", azimuth_deg, "deg")


def _aberrations(optics: Optics) -> list[tuple[str, float, float | None]]:
    """(NeXus name, magnitude in nm, azimuth in degrees) of C10 = -defocus and of every commanded coefficient.

    NeXus lists only the two components of a coefficient of the Nion notation (c_1_2_a, c_1_2_b); magnitude and azimuth
    go into the first, whose fields `magnitude` and `angle` are made for them.
    """
    set_values = optics.aberrations
    found: list[tuple[str, float, float | None]] = [("c_1_0", -optics.defocus_nm, None)]
    for name in Aberrations.model_fields:
        if not name.startswith("c"):
            continue
        order, symmetry = name[1], name[2]
        if symmetry == "0":
            found.append((f"c_{order}_0", getattr(set_values, name), None))
        else:
            azimuth = getattr(set_values, f"phi{order}{symmetry}_deg")
            found.append((f"c_{order}_{symmetry}_a", getattr(set_values, name), azimuth))
    return found


def _write_image(event: h5py.Group, frame: Frame, name: str, counts: np.ndarray) -> None:
    known = permitted(name)
    original = {} if known == name else {"detector": name}
    image = group(event, f"image_{known}", "NXimage", default="image_2d", **original)
    subframes = counts.shape[0]
    summed = group(image, "image_2d", "NXdata", signal="real", axes=["axis_j", "axis_i"])
    write_text(summed, "title", f"{name}: counts of {subframes} sub-frame(s) together")
    write_counts(summed, "real", _picture(frame, name), long_name=f"{name} (counts)")
    of_detector = ["detector_j", "detector_i"] if frame.has_patterns(name) else []
    axes = ["indices_image", "axis_j", "axis_i", *of_detector]
    stack = group(image, PATTERNS if of_detector else STACK, "NXdata", signal="real", axes=axes)
    write_text(stack, "title", f"{name}: counts by sub-frame{' and scan point' if of_detector else ''}")
    write_counts(stack, "real", counts, long_name=f"{name} (counts)")
    write_axis(stack, "indices_image", np.arange(subframes, dtype=np.int32), UNITLESS, "sub-frame", 0)
    _write_place(stack, counts.shape[1:3], frame.pixel_size_nm, 1)
    if of_detector:
        _write_pixels(stack, of_detector, counts.shape[3:], 3)
    if frame.is_one_pattern(name):
        _write_pixels(summed, ["axis_j", "axis_i"], counts.shape[3:], 0)
    else:
        _write_place(summed, counts.shape[1:3], frame.pixel_size_nm, 0)


def _picture(frame: Frame, name: str) -> np.ndarray:
    """`Frame.picture` in the smallest unsigned integers that hold any sum."""
    counts = frame.counts[name]
    over = (0, 1, 2) if frame.is_one_pattern(name) else (0, *range(3, counts.ndim))
    summed_count = prod(counts.shape[axis] for axis in over)
    fits = np.iinfo(counts.dtype).max * summed_count <= np.iinfo(np.uint32).max
    return counts.sum(axis=over, dtype=np.uint32 if fits else np.uint64)


def _write_place(made: h5py.Group, shape_px: tuple[int, ...], pixel_size_nm: float, first: int) -> None:
    """Axes of the scan, in nm; `first` is the dimension of its rows."""
    rows, columns = shape_px
    write_axis(made, "axis_j", _positions_nm(rows, pixel_size_nm), "nm", "y from the centre (nm)", first)
    write_axis(made, "axis_i", _positions_nm(columns, pixel_size_nm), "nm", "x from the centre (nm)", first + 1)


def _write_pixels(made: h5py.Group, names: list[str], shape_px: tuple[int, ...], first: int) -> None:
    """Axes of a detector, its pixels counted from 0; `first` is the dimension of its rows."""
    for offset, (name, count, line) in enumerate(zip(names, shape_px, ("row", "column"), strict=True)):
        pixels = np.arange(count, dtype=np.int32)
        write_axis(made, name, pixels, "pixel", f"detector {line} (pixel)", first + offset)


def _positions_nm(count: int, pixel_size_nm: float) -> np.ndarray:
    """Pixel positions from the centre of the raster, along its own axes."""
    return (np.arange(count) - (count - 1) / 2) * pixel_size_nm


def _write_record(entry: h5py.Group, frame: Frame, record: FrameRecord) -> None:
    made = group(entry, "stempilot", "NXcollection")
    made.attrs["format_version"] = FORMAT_VERSION
    ids = {
        "frame_id": record.frame_id,
        "action_id": frame.action_id,
        "decision_id": record.decision_id,
        "suggestion_id": record.suggestion_id,
        "experiment_id": record.experiment_id,
    }
    write_values(group(made, "ids", "NXcollection"), ids)
    write_values(group(made, "exposure", "NXcollection"), _exposure(frame))
    detectors = group(made, "detectors", "NXcollection")
    for detector in frame.mode.detectors:
        write_values(group(detectors, detector.name, "NXcollection"), plain(detector))
    documents: dict[str, Any] = {
        "requested": frame.requested,
        "read_back": frame.state,
        "mode": frame.mode,
        "instrument_context": frame.context,
        "context": record.context,
        "decision": record.decision,
    }
    texts = group(made, "documents", "NXcollection")
    for name, document in documents.items():
        readable = plain(document)
        write_text(texts, name, to_text(readable), media_type="application/json")
        write_values(group(made, name, "NXcollection"), readable)


def _exposure(frame: Frame) -> dict[str, Any]:
    return {
        "dose_e_per_a2": frame.dose_e_per_a2,
        "electrons": frame.electrons,
        "started_s": frame.started_s,
        "ended_s": frame.ended_s,
        "clock": "the instrument's, since it was opened",
        "pixel_size_nm": frame.pixel_size_nm,
        "instrument": frame.instrument,
        "simulated": frame.simulated,
        "detectors": list(frame.counts),
    }
