"""From a frame that is asked for to what a temscript server has to be told, or a refusal; nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any, Final

import numpy as np

from instruments.adapters.temscript_card import STEM, CameraFacts
from instruments.adapters.temscript_config import CameraConfig, StemConfig
from instruments.adapters.temscript_link import parameter_of
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused

_PARTS: Final = {"FULL": 1, "HALF": 2, "QUARTER": 4}
_FIELD_TOLERANCE: Final = 0.005
_EXACT: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing the detectors are told, and where; it is read back at the same place."""

    endpoint: str
    body: Any

    def difference(self, told: Any) -> str | None:
        """How what was read back differs from what was asked for; None if it does not."""
        if not isinstance(self.body, Mapping):
            return None if _same(self.body, told) else f"{self.endpoint} {told!r} instead of {self.body!r}"
        wrong = {key: told.get(key) for key, value in self.body.items() if not _same(value, told.get(key))}
        return ", ".join(f"{key} {value!r} instead of {self.body[key]!r}" for key, value in wrong.items()) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One sub-frame: settings in their order, detectors, what it takes, and what comes of it."""

    detectors: tuple[str, ...]
    settings: tuple[Setting, ...]
    axes: Mapping[str, float | str]
    exposure_s: float
    shape_px: tuple[int, int]
    pixel_size_nm: float
    added_counts: int
    camera_length_mm: float | None = None  # of a pattern, to be read back


def camera_shot(
    command: AcquireFrame, name: str, camera: CameraConfig, facts: CameraFacts, present_index: float | None
) -> Shot:
    """A camera exposure: binning, part of the chip and magnification that give this shape and field.

    Raises CommandRefused where no calibrated magnification gives them.
    """
    scan = command.scan
    if not scan.at_once or scan.rotation_deg != 0:
        raise CommandRefused(f"{name} is a camera: ask with scan.at_once true and scan.rotation_deg 0")
    if scan.beam_shift_x_nm or scan.beam_shift_y_nm:
        raise CommandRefused(f"a beam shift moves the light, not the field of {name}: leave it at 0, move the stage")
    found: list[tuple[bool, int, int, str, float]] = []
    for part, divisor in _PARTS.items():
        for binning in facts.binnings:
            if (facts.rows // binning // divisor, facts.columns // binning // divisor) != scan.shape_px:
                continue
            for index, size_nm in camera.pixel_size_nm.items():
                field_nm = size_nm * binning * scan.shape_px[1]
                if abs(field_nm - scan.field_of_view_nm) <= _FIELD_TOLERANCE * field_nm:
                    found.append((index != present_index, divisor, index, part, size_nm * binning))
    if not found:
        raise CommandRefused(
            f"{name}: no magnification, binning and part of the chip give {scan.shape_px[0]} x {scan.shape_px[1]} px "
            f"of {scan.field_of_view_nm:g} nm; there are {_choices(camera, facts)}"
        )
    _, divisor, index, part, pixel_nm = min(found)
    exposure_s, binning = scan.dwell_time_us * 1e-6, facts.columns // divisor // scan.shape_px[1]
    place = parameter_of("camera_param", name)
    return Shot(
        detectors=(name,),
        settings=(
            Setting("instrument_mode", "TEM"),
            Setting("projection_mode", "IMAGING"),
            Setting(place, {"image_size": part, "binning": binning, "correction": "UNPROCESSED"}),
            Setting(place, {"exposure(s)": exposure_s}),  # by itself and last: a binning may change it
        ),
        axes={"magnification_index": float(index), "screen": "up"},
        exposure_s=exposure_s,
        shape_px=scan.shape_px,
        pixel_size_nm=pixel_nm,
        added_counts=camera.added_counts,
    )


def diffraction_shot(command: AcquireFrame, name: str, camera: CameraConfig, facts: CameraFacts) -> Shot:
    """A pattern of the selected area. Raises CommandRefused for a camera length, shape or area there is not."""
    scan, area_nm = command.scan, camera.selected_area_nm or 0.0
    if not scan.at_once or scan.rotation_deg or scan.beam_shift_x_nm or scan.beam_shift_y_nm:
        raise CommandRefused(f"{name} is a camera: ask with scan.at_once true, without rotation and beam shift")
    if abs(scan.field_of_view_nm - area_nm) > _FIELD_TOLERANCE * area_nm:
        raise CommandRefused(
            f"{name}: the selected area is {area_nm:g} nm, not {scan.field_of_view_nm:g}; ask for that"
        )
    lengths_mm = camera.camera_lengths_mm
    wanted_mm = command.optics.camera_length_mm or (min(lengths_mm.values()) if len(lengths_mm) == 1 else None)
    index = next((index for index, length_mm in lengths_mm.items() if length_mm == wanted_mm), None)
    parts = {
        (facts.rows // binning // divisor, facts.columns // binning // divisor): (part, binning)
        for part, divisor in reversed(_PARTS.items())
        for binning in facts.binnings
    }
    if index is None or wanted_mm is None or scan.shape_px not in parts:
        shapes = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(parts))
        known = ", ".join(f"{length_mm:g}" for length_mm in lengths_mm.values())
        raise CommandRefused(f"{name}: ask for a camera length (optics) of {known} mm, and {shapes} px")
    part, binning = parts[scan.shape_px]
    exposure_s, place = scan.dwell_time_us * 1e-6, parameter_of("camera_param", name)
    return Shot(
        detectors=(name,),
        settings=(
            Setting("instrument_mode", "TEM"),
            Setting("projection_mode", "DIFFRACTION"),
            Setting("magnification_index", index),
            Setting(place, {"image_size": part, "binning": binning, "correction": "UNPROCESSED"}),
            Setting(place, {"exposure(s)": exposure_s}),
        ),
        axes={"screen": "up"},
        exposure_s=exposure_s,
        shape_px=scan.shape_px,
        pixel_size_nm=scan.pixel_size_nm,
        added_counts=camera.added_counts,
        camera_length_mm=wanted_mm,
    )


def stem_shot(command: AcquireFrame, stem: StemConfig, detectors: tuple[str, ...]) -> Shot:
    """A scan. Raises CommandRefused for a shape that no binning gives."""
    scan = command.scan
    if scan.at_once:
        raise CommandRefused(f"mode {STEM!r} is scanned: ask with scan.at_once false")
    shapes = {stem.full_px // binning: binning for binning in stem.binnings}
    rows, columns = scan.shape_px
    if rows != columns or columns not in shapes:
        known = ", ".join(f"{side} x {side}" for side in shapes)
        raise CommandRefused(f"{rows} x {columns} px cannot be scanned; there are {known} px")
    _within("field_of_view_nm", scan.field_of_view_nm, stem.min_field_nm, stem.max_field_nm, "nm")
    _within("dwell_time_us", scan.dwell_time_us, 0.1, stem.max_dwell_us, "us")
    return Shot(
        detectors=detectors,
        settings=(
            Setting("instrument_mode", "STEM"),
            Setting("stem_magnification", stem.field_at_magnification_one_nm / scan.field_of_view_nm),
            Setting("stem_rotation", scan.rotation_deg * pi / 180),
            Setting(
                "stem_acquisition_param",
                {"image_size": "FULL", "binning": shapes[columns], "dwell_time(s)": scan.dwell_time_us * 1e-6},
            ),
        ),
        axes={"screen": "up"},
        exposure_s=scan.duration_s(),
        shape_px=scan.shape_px,
        pixel_size_nm=scan.pixel_size_nm,
        added_counts=stem.added_counts,
    )


def places(command: AcquireFrame) -> dict[str, AxisValue]:
    """What a frame asks of stage, beam shift and lenses."""
    optics, scan = command.optics, command.scan
    return {
        **dict(command.stage),
        "beam_shift_x_nm": scan.beam_shift_x_nm,
        "beam_shift_y_nm": scan.beam_shift_y_nm,
        "defocus_nm": optics.defocus_nm,
        "tilt_x_mrad": optics.tilt_x_mrad,
        "tilt_y_mrad": optics.tilt_y_mrad,
    }


def together(settings: tuple[Setting, ...]) -> dict[str, Any]:
    """What each place holds once all of them were told, in their order."""
    held: dict[str, Any] = {}
    for setting in settings:
        known = held.get(setting.endpoint)
        held[setting.endpoint] = {**known, **setting.body} if isinstance(known, Mapping) else setting.body
    return held


def raw_counts(shot: Shot, arrays: Mapping[str, np.ndarray], *, may_be_empty: bool) -> dict[str, np.ndarray]:
    """The counts as unsigned integers. Raises AcquisitionFailed for another shape, too few counts, or none at all."""
    counts = {name: _unsigned(name, arrays[name], shot) for name in shot.detectors}
    if not may_be_empty and not any(array.any() for array in arrays.values()):
        raise AcquisitionFailed(
            f"exposed, but {', '.join(shot.detectors)} gave zeros alone; see whether it is inserted and its screen up"
        )
    return counts


def _unsigned(name: str, array: np.ndarray, shot: Shot) -> np.ndarray:
    if array.shape != shot.shape_px:
        raise AcquisitionFailed(f"exposed, but {name} gave {array.shape} px instead of {shot.shape_px}")
    if array.dtype.kind == "u":
        return array if shot.added_counts == 0 else array.astype(np.uint32) + np.uint32(shot.added_counts)
    least = int(array.min(initial=0))
    if least + shot.added_counts < 0:
        raise AcquisitionFailed(
            f"exposed, but {name} gave {least} counts in a pixel; set its added_counts to {-least} or more"
        )
    wide = array.astype(np.int64) + shot.added_counts
    return wide.astype(np.dtype(f"u{array.dtype.itemsize}") if shot.added_counts == 0 else np.uint32)


def _choices(camera: CameraConfig, facts: CameraFacts) -> str:
    fields = ", ".join(f"{size_nm * facts.columns:g} nm" for size_nm in camera.pixel_size_nm.values())
    shapes = ", ".join(f"{facts.rows // binning} x {facts.columns // binning}" for binning in facts.binnings)
    return f"fields of {fields} at {shapes} px, and half or a quarter of both at the same pixels"


def _same(asked: Any, told: Any) -> bool:
    if isinstance(asked, float | int) and isinstance(told, float | int):
        return abs(asked - told) <= _EXACT * max(abs(asked), 1e-12)
    return asked == told


def _within(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise CommandRefused(f"{name} {value:g} {unit} is outside {low:g} to {high:g} {unit} of this mode; stay inside")
