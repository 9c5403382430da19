"""A Thermo Fisher microscope through the maker's AutoScript TEM, as the device of a worker: metres and radians.

Runs in the Python in which AutoScript's client is installed; loads nothing of stempilot but `stempilot_beam` beside it.
Two clients are connected: one for what is commanded, one for a stop. Neighbour: `instruments.adapters.autoscript`.
"""

from __future__ import annotations

import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent))
from stempilot_beam import AcquisitionFailed, Beam, CommandRefused, ConfigurationError

STEM, TEM = "Stem", "Tem"
INSERTED, RETRACTED = "Inserted", "Retracted"
LIBRARY = "autoscript_tem_microscope_client"
M_PER_NM = 1e-9
AXES = ("x", "y", "z", "a", "b")
_SAME = 1e-3


def open_device(path: list[str], host: str, port: int, detectors: list[str], names: dict[str, str]) -> AutoScriptDevice:
    """The microscope at that address, blanked; `names`: where `voltage` and `defocus` are among its attributes."""
    sys.path += path
    try:
        library, structures = import_module(LIBRARY), import_module(LIBRARY + ".structures")
        enumerations = import_module(LIBRARY + ".enumerations")
    except ImportError as error:
        raise ConfigurationError(f"{error}; name the Python in which AutoScript TEM's client is installed") from error
    client, stopping = library.TemMicroscopeClient(), library.TemMicroscopeClient()
    client.connect(host, port)
    stopping.connect(host, port)
    there = list(client.detectors.scanning_detectors)
    missing = [name for name in detectors if name not in there]
    if missing:
        raise ConfigurationError(
            "AutoScript knows no scanning detector {}; it knows {}".format(", ".join(missing), ", ".join(there))
        )
    return AutoScriptDevice(client, stopping, structures, enumerations, names)


class AutoScriptDevice:
    """Stage, beam shift, focus, field of view, blanker and scanned detectors; blanked except while it exposes."""

    def __init__(self, client: Any, stopping: Any, structures: Any, enumerations: Any, names: dict[str, str]) -> None:
        self._client = client
        self._structures = structures
        self._enumerations = enumerations
        self._names = names
        self._beam = Beam(
            self._write_blanker,
            lambda: bool(client.optics.blanker.is_beam_blanked),
            lambda: stopping.optics.blanker.blank(),
        )

    def describe(self) -> dict[str, Any]:
        """Limits of the stage's axes, what kind of server it is, versions."""
        stage, service = self._client.specimen.stage, self._client.service
        limits = {axis: stage.get_axis_limits(axis.upper()) for axis in AXES}
        return {
            "limits": {axis: [float(limit.min), float(limit.max)] for axis, limit in limits.items()},
            "is_offline": bool(service.autoscript.server.is_offline),
            "versions": {
                "autoscript_client": str(service.autoscript.client.version),
                "autoscript_server": str(service.autoscript.server.version),
            },
            "system": str(service.system.name),
            "serial": str(service.system.serial_number),
            "holder": str(stage.get_holder_type()),
        }

    def read(self) -> dict[str, Any]:
        """Everything that is read back, together."""
        client = self._client
        position, shift = client.specimen.stage.position, client.optics.deflectors.beam_shift
        return {
            "position": {axis: float(getattr(position, axis)) for axis in AXES},
            "shift": [float(shift.x), float(shift.y)],
            "defocus_m": float(self._get("defocus")),
            "voltage_v": float(self._get("voltage")),
            "field_m": float(client.optics.scan_field_of_view) if self._is_stem() else None,
            "is_stem": self._is_stem(),
            "is_blanked": self._beam.is_blanked,
            "column_valves": str(client.vacuum.column_valves.state),
        }

    def move(self, values: dict[str, float]) -> None:
        """Drive the stage to what is given of x, y, z, a and b; it comes back when it is there."""
        if self._client.specimen.stage.is_moving:
            raise CommandRefused("the stage is being moved by somebody else; wait for it")
        self._client.specimen.stage.absolute_move(self._structures.StagePosition(**values))

    def set(self, shift_nm: list[float] | None, defocus_nm: float | None) -> None:
        """Beam shift, and defocus with AutoScript's sign."""
        if shift_nm is not None:
            self._client.optics.deflectors.beam_shift = self._structures.Point(*(M_PER_NM * one for one in shift_nm))
        if defocus_nm is not None:
            path, _, name = self._names["defocus"].rpartition(".")
            setattr(_attribute(self._client, path), name, M_PER_NM * defocus_nm)

    def blank(self, is_blanked: bool) -> None:
        """Blank or unblank; it is read back."""
        if is_blanked:
            self._beam.blank()
        else:
            self._beam.unblank()

    def arrange(self, detectors: list[str], field_of_view_nm: float) -> None:
        """Set the field of view, the beam as it is. Raises CommandRefused where it cannot be scanned so."""
        self._refuse_unless(STEM)
        for name in detectors:
            _refuse_unless_inserted(name, self._client.detectors.get_scanning_detector(name))
        self._client.optics.scan_field_of_view = M_PER_NM * field_of_view_nm
        found_nm = float(self._client.optics.scan_field_of_view) / M_PER_NM
        if abs(found_nm - field_of_view_nm) > _SAME * field_of_view_nm:
            raise CommandRefused(
                f"the field of view became {found_nm:g} nm, {field_of_view_nm:g} nm were asked for; not exposed"
            )

    def expose(
        self,
        detectors: list[str],
        side_px: int,
        part_fraction: list[float] | None,
        dwell_us: float,
        count: int,
        is_lit: bool,
    ) -> dict[str, Any]:
        """So many scans: arrays (count, rows, columns) by detector, the pixels they have, how long the beam was on.

        `part_fraction` is left, top, width, height of the part of a full scan; None: all of it.
        """
        settings = self._settings(detectors, side_px, part_fraction, 1e-6 * dwell_us)
        with self._beam.exposing(is_lit):
            scans = [self._scan(settings, detectors) for _ in range(count)]
        pixels = {float(image.metadata.binary_result.pixel_size.x) for scan in scans for image in scan}
        return {
            "images": {
                name: np.stack([np.asarray(scan[index].data) for scan in scans]) for index, name in enumerate(detectors)
            },
            "pixels_m": sorted(pixels),
            "beam_on_s": self._beam.on_s,
        }

    def arrange_camera(self, name: str) -> None:
        """Look whether the camera can see the specimen. Raises CommandRefused."""
        self._refuse_unless(TEM)
        _refuse_unless_inserted(name, self._client.detectors.get_camera_detector(name))
        if str(self._client.detectors.screen.position) != RETRACTED:
            raise CommandRefused("the screen is in front of the camera; retract it at the microscope")

    def photograph(self, name: str, side_px: int, exposure_s: float, count: int, is_lit: bool) -> dict[str, Any]:
        """So many images of a camera, as `expose` gives scans."""
        images: list[Any] = []
        with self._beam.exposing(is_lit):
            for _ in range(count):
                self._refuse_after_stop()
                images.append(self._client.acquisition.acquire_camera_image(name, side_px, exposure_s))
        return {
            "images": {name: np.stack([np.asarray(one.data) for one in images])},
            "pixels_m": sorted({float(one.metadata.binary_result.pixel_size.x) for one in images}),
            "beam_on_s": self._beam.on_s,
        }

    def release(self) -> None:
        """Expose again after `stop`."""
        self._beam.release()

    def stop(self) -> None:
        """Blank by the second client; from beside, while a scan or a move runs."""
        self._beam.stop()

    def _settings(self, detectors: list[str], side_px: int, part: list[float] | None, dwell_s: float) -> Any:
        wanted: dict[str, Any] = {"dwell_time": dwell_s, "detector_types": detectors, "size": side_px}
        if part is not None:
            wanted["region"] = self._structures.Region(
                self._enumerations.RegionCoordinateSystem.RELATIVE, self._structures.Rectangle(*part)
            )
        return self._structures.StemAcquisitionSettings(**wanted)

    def _scan(self, settings: Any, detectors: list[str]) -> list[Any]:
        """One image of each detector, in their order."""
        self._refuse_after_stop()
        found = list(self._client.acquisition.acquire_stem_images_advanced(settings))
        images = {str(image.metadata.binary_result.detector): image for image in found}
        if set(images) == set(detectors) and len(found) == len(detectors):
            return [images[name] for name in detectors]
        raise AcquisitionFailed(
            "images of {} came, of {} they were asked for".format(", ".join(sorted(images)), ", ".join(detectors))
        )

    def _refuse_after_stop(self) -> None:
        if self._beam.is_stopped:
            raise AcquisitionFailed("stopped between two images")

    def _refuse_unless(self, mode: str) -> None:
        found = str(self._client.optics.optical_mode)
        if found != mode:
            raise CommandRefused(f"the microscope is in mode {found}, not {mode}; change it at the microscope")

    def _is_stem(self) -> bool:
        return str(self._client.optics.optical_mode) == STEM

    def _get(self, name: str) -> Any:
        return _attribute(self._client, self._names[name])

    def _write_blanker(self, is_blanked: bool) -> None:
        blanker = self._client.optics.blanker
        if is_blanked:
            blanker.blank()
        else:
            blanker.unblank()


def _refuse_unless_inserted(name: str, detector: Any) -> None:
    state = str(detector.insertion_state)
    if state != INSERTED:
        raise CommandRefused(f"{name} is {state}; insert it at the microscope")


def _attribute(client: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), client)
