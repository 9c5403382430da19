"""The names of what can be set, with unit and frame: one name per quantity, whatever the instrument.

An axis of one device among several carries the device first and a dot: `haadf.position`, `holder.temperature_k`.
Neighbour: `capabilities` says which of them an instrument has, and how far they go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from instruments.commands import AcquireFrame, AxisValue, Command, Park, SetAxes
from instruments.scans import ScanPattern, StagePosition

AxisFrame = Literal["stage", "beam_shift", "scan", "detector", "optics", "column", "holder"]
Permission = Literal["valves", "high_tension", "vacuum", "procedures"]

UNITS: Final[Mapping[str, str]] = {
    "nm": "nm", "mm": "mm", "um": "um", "px": "px", "mrad": "mrad", "deg": "deg", "ev": "eV", "pa": "pA", "us": "us",
    "s": "s", "hz": "Hz", "k": "K", "v": "V", "mbar": "mbar", "ua": "uA", "ml_per_min": "ml/min", "fraction": "",
    "index": "", "count": "", "e_per_a2": "e/A2",
}  # fmt: skip
"""Suffix of a name -> unit as it is written; `_pa` is picoampere, pressures are in `_mbar`."""


@dataclass(frozen=True, slots=True)
class KnownAxis:
    """One name: where it acts, what it does, and the permission without which nobody may set it."""

    frame: AxisFrame
    words: str
    permission: Permission | None = None


def _known(frame: AxisFrame, permission: Permission | None = None, **words: str) -> dict[str, KnownAxis]:
    return {name: KnownAxis(frame, text, permission) for name, text in words.items()}


KNOWN_AXES: Final[Mapping[str, KnownAxis]] = {
    **_known(
        "stage",
        x_nm="specimen position x: the point under the unshifted beam",
        y_nm="specimen position y",
        z_nm="specimen height, upwards positive",
        alpha_deg="tilt about the holder's axis",
        beta_deg="tilt across the holder's axis",
    ),
    **_known(
        "beam_shift",
        beam_shift_x_nm="beam on the specimen, x",
        beam_shift_y_nm="beam on the specimen, y",
        park_s="how long a blanked beam may be parked",
    ),
    **_known(
        "scan",
        field_of_view_nm="width of the raster",
        pixel_size_nm="distance of neighbouring pixels",
        dwell_time_us="time per pixel; exposure of a camera frame",
        flyback_time_us="time from the end of a line to the beginning of the next",
        rotation_deg="raster against the stage, from +x towards +y",
        subframe_count="passes over one raster",
        frame_px="pixels of one frame, all sub-frames",
        line_sync="whether lines start with the mains: off, on",
    ),
    **_known(
        "optics",
        semi_convergence_angle_mrad="half angle of the probe",
        probe_current_pa="current of the probe",
        defocus_nm="positive is underfocus",
        camera_length_mm="of the projector",
        tilt_x_mrad="beam tilt, x",
        tilt_y_mrad="beam tilt, y",
        image_shift_x_nm="image on the camera, in the specimen's plane, x",
        image_shift_y_nm="image on the camera, y",
        descan_x_mrad="diffraction pattern on the detectors, x",
        descan_y_mrad="diffraction pattern on the detectors, y",
        illuminated_nm="diameter of the lit disc, as read back",
        spot_index="spot size, the maker's number",
        gun_lens_index="gun lens, the maker's number",
        magnification_index="the maker's number",
        condenser_aperture="by name",
        objective_aperture="by name",
        selected_area_aperture="by name",
        c12_nm="two-fold astigmatism", phi12_deg="its azimuth",
        c21_nm="axial coma", phi21_deg="its azimuth",
        c23_nm="three-fold astigmatism", phi23_deg="its azimuth",
        c30_nm="spherical aberration",
        c32_nm="star aberration", phi32_deg="its azimuth",
        c34_nm="four-fold astigmatism", phi34_deg="its azimuth",
        c41_nm="coma of fourth order", phi41_deg="its azimuth",
        c43_nm="three-lobe aberration", phi43_deg="its azimuth",
        c45_nm="five-fold astigmatism", phi45_deg="its azimuth",
        c50_nm="spherical aberration of fifth order",
        c52_nm="of fifth order, two-fold", phi52_deg="its azimuth",
        c54_nm="of fifth order, four-fold", phi54_deg="its azimuth",
        c56_nm="six-fold astigmatism", phi56_deg="its azimuth",
    ),
    **_known(
        "detector",
        position="of a detector: out, in",
        gain_fraction="amplification of a detector, 0 to 1",
        offset_fraction="brightness of a detector, 0 to 1",
        screen="the viewing screen: up, down",
    ),
    **_known(
        "holder",
        temperature_k="of the specimen",
        bias_v="voltage on the specimen",
        flow_ml_per_min="gas or liquid through the holder",
        strain_fraction="pull on the specimen",
    ),
    **_known("column", "valves", column_valves="between gun and specimen: closed, open"),
    **_known("column", "high_tension", high_tension="off, on", beam_energy_ev="energy of the electrons"),
    **_known("column", "vacuum", vacuum="the maker's states"),
}  # fmt: skip

_CHANGE_CURRENT: Final = frozenset(
    ("spot_index", "gun_lens_index", "condenser_aperture", "column_valves", "high_tension", "beam_energy_ev")
)
_CURRENT_WORDS: Final = (
    "spot", "gun", "condenser", "aperture", "monochromator", "extraction", "emission", "intensity", "filament",
    "wehnelt", "anode", "flash",
)  # fmt: skip
_FORBIDDEN_WORDS: Final[Mapping[str, Permission]] = {
    "valve": "valves",
    "high_tension": "high_tension",
    "vent": "vacuum",
    "pump": "vacuum",
    "vacuum": "vacuum",
}


@cache
def known_axis(name: str) -> KnownAxis | None:
    """What this name means, its device left out; None for a name of the adapter's own.

    >>> known_axis("haadf.position").words
    'of a detector: out, in'
    """
    return KNOWN_AXES.get(name.rpartition(".")[2])


@cache
def unit_of(name: str) -> str | None:
    """The unit a name ends in, as it is written; None where it ends in none.

    >>> unit_of("holder.flow_ml_per_min"), unit_of("screen")
    ('ml/min', None)
    """
    endings = [ending for ending in UNITS if name.endswith(f"_{ending}")]
    return UNITS[max(endings, key=len)] if endings else None


@cache
def permission_for(name: str) -> Permission | None:
    """What a facility must permit before anybody may set this axis, whatever its adapter says of it.

    >>> permission_for("gun.valve_2"), permission_for("beam_shift_x_nm")
    ('valves', None)
    """
    known = known_axis(name)
    if known is not None:
        return known.permission
    return next((permission for word, permission in _FORBIDDEN_WORDS.items() if word in name.lower()), None)


@cache
def changes_current(name: str) -> bool:
    """Whether setting this, or running a procedure of this name, changes the current; what its name tells.

    >>> changes_current("spot_index"), changes_current("gun.extraction_v"), changes_current("objective_aperture")
    (True, True, False)
    """
    if known_axis(name) is not None:
        return name.rpartition(".")[2] in _CHANGE_CURRENT
    return any(word in name.lower() for word in _CURRENT_WORDS)


def axis_values(command: Command) -> dict[str, AxisValue]:
    """Everything a command sets, by axis name; what it leaves as it is does not appear."""
    match command:
        case SetAxes():
            return dict(command.values)
        case Park():
            return {"beam_shift_x_nm": command.beam_shift_x_nm, "beam_shift_y_nm": command.beam_shift_y_nm}
        case AcquireFrame():
            return _frame_values(command)
        case _:
            return {}


def _frame_values(command: AcquireFrame) -> dict[str, AxisValue]:
    values: dict[str, AxisValue] = dict(command.stage)
    values |= {name: value for name, value in command.optics if isinstance(value, float | int)}
    values |= dict(command.optics.aberrations)
    scan = command.scan
    values |= {name: value for name in SCAN_AXES if (value := getattr(scan, name)) is not None}
    values["pixel_size_nm"] = scan.pixel_size_nm
    return values | {"subframe_count": float(command.subframe_count)}


FRAME_ONLY: Final = frozenset(
    (
        "field_of_view_nm", "pixel_size_nm", "dwell_time_us", "flyback_time_us", "rotation_deg", "subframe_count",
        "frame_px", "park_s",
    )
)  # fmt: skip
"""Axes that come with each frame, or with a park, and are never set alone."""
_DECLARED: Final = frozenset(("illuminated_nm",))  # what a frame says of the beam, and nobody sets by it
SCAN_AXES: Final = tuple(name for name in ScanPattern.model_fields if name in KNOWN_AXES.keys() - _DECLARED)
STAGE_AXES: Final = tuple(StagePosition.model_fields)
