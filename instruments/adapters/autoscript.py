"""A Thermo Fisher microscope through the maker's AutoScript TEM, in a worker of its own: stage, focus, scanned images.

House units and signs on this side; metres, radians and seconds on the other. Neighbours: `autoscript_config`,
`devices.autoscript_device` (runs there), `far_device` (its process), `driven` (refusals, read-back, action ids).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments.adapters.autoscript_config import NM_PER_M, STAGE, AutoScriptConfig, Camera, capabilities_of
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.far_device import FarDevice
from instruments.adapters.last_sent import LastSent
from instruments.adapters.scanned_beam import check_beam_on
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused, ConfigurationError
from instruments.optics import Optics
from instruments.scans import ScanPattern, StagePosition
from instruments.state import AxisReading, ColumnState, MicroscopeState

DEVICE: Final = Path(__file__).parent / "devices" / "autoscript_device.py"
_SAME_ENERGY: Final = 0.01
_SAME_PIXEL: Final = 1e-3
_VALVES: Final = {"Opened": "open", "Closed": "closed"}
_UNKNOWN: Final = {
    "measured_current_pa": "the current is declared, nothing measures it",
    "coherence": "AutoScript does not say",
    "mode": "nothing was exposed yet",
    "optics.semi_convergence_angle_mrad": "declared in the configuration, not read",
    "optics.probe_current_pa": "declared in the configuration, not read",
    "optics.tilt_x_mrad": "not offered here",
    "optics.tilt_y_mrad": "not offered here",
}


def open_autoscript(**config: Any) -> DrivenMicroscope:
    """Open it, blanked; the keys are those of `AutoScriptConfig`.

    Raises ConfigurationError, LinkLost, InstrumentFault.
    """
    return DrivenMicroscope(AutoScriptDriver(AutoScriptConfig.checked(config)))


class AutoScriptDriver:
    """Driver over AutoScript's client in a worker."""

    def __init__(self, config: AutoScriptConfig) -> None:
        self._config = config
        self._sent = LastSent()
        opening = {
            "path": list(config.path),
            "host": config.host,
            "port": config.port,
            "detectors": [one.name for one in config.detectors.values()],
            "names": config.names.model_dump(),
        }
        self._device = FarDevice(config.program(DEVICE, opening), config.answer_s)
        try:
            self._about: dict[str, Any] = self._device.read("describe")
            self._capabilities = capabilities_of(config, self._about)
            self._check_energy(self._device.read("read")["voltage_v"])
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """Fixed while it is open."""
        return self._capabilities

    @property
    def worker(self) -> FarDevice:
        """The library in its process."""
        return self._device

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Stage, beam shift, defocus, voltage, blanker, and the column valves."""
        found: dict[str, Any] = self._device.read("read", deadline_s)
        config = self._config
        stage = {name: config.sign(name) * factor * found["position"][there] for name, (there, factor) in STAGE.items()}
        shift_x_nm, shift_y_nm = (
            sign * NM_PER_M * shift for sign, shift in zip(config.beam_shift_signs, found["shift"], strict=True)
        )
        valves = _VALVES.get(found["column_valves"])
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(**stage),
            beam_shift_x_nm=shift_x_nm,
            beam_shift_y_nm=shift_y_nm,
            optics=Optics(
                beam_energy_ev=found["voltage_v"],
                semi_convergence_angle_mrad=config.semi_convergence_angle_mrad,
                probe_current_pa=config.probe_current_pa,
                defocus_nm=config.defocus_sign * NM_PER_M * found["defocus_m"],
            ),
            beam_blanked=found["is_blanked"],
            undetermined=_UNKNOWN,
            axes={"column_valves": AxisReading(read_back=valves)},
            column=ColumnState(holder=self._about["holder"]),
        )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """What does not stand there since it was sent: the stage in one move, then beam shift and focus."""
        until_s = time.monotonic() + deadline_s
        wanted = {name: float(value) for name, value in values.items()}
        now = self.read_state(0.0, deadline_s)
        changed = self._sent.away(wanted, lambda name, value: now.axis_value(name) == value)
        moves = {
            there: self._config.sign(name) * changed[name] / factor
            for name, (there, factor) in STAGE.items()
            if name in changed
        }
        if moves:
            self._device.do("move", until_s - time.monotonic(), values=moves)
        shift_nm = None
        if {"beam_shift_x_nm", "beam_shift_y_nm"} & changed.keys():
            x_nm = wanted.get("beam_shift_x_nm", now.beam_shift_x_nm)
            y_nm = wanted.get("beam_shift_y_nm", now.beam_shift_y_nm)
            x_sign, y_sign = self._config.beam_shift_signs
            shift_nm = [x_sign * x_nm, y_sign * y_nm]
        defocus_nm = None
        if "defocus_nm" in changed:
            defocus_nm = self._config.defocus_sign * changed["defocus_nm"]
        if shift_nm is not None or defocus_nm is not None:
            self._device.do("set", until_s - time.monotonic(), shift_nm=shift_nm, defocus_nm=defocus_nm)
        self._sent.arrived(changed)

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """As read back by the device, which raises where it is not so."""
        self._device.do("blank", min(deadline_s, self._config.answer_s), is_blanked=is_blanked)

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """A scan, or the middle of one, of a field and for a time within the limits; the field is set for it."""
        config, scan = self._config, command.scan
        if (scan_s := scan.duration_s()) > config.max_scan_s:
            raise CommandRefused(
                f"a scan of {scan_s:.3g} s is above max_scan_s, {config.max_scan_s:g} s; ask for more sub-frames"
            )
        if mode.is_at_once:
            self._check_camera(scan, config.cameras[mode.name])
            return
        side_px = config.full_side_px(scan.shape_px)
        if side_px is None or min(scan.shape_px) < 1:
            raise CommandRefused(f"{scan.shape_px} px are not within a full scan of {max(config.sides_px)} px a side")
        low_nm, high_nm = config.field_of_view_nm
        if not low_nm <= (full_nm := side_px * scan.pixel_size_nm) <= high_nm:
            raise CommandRefused(
                f"pixels of {scan.pixel_size_nm:g} nm are a full scan of {full_nm:g} nm, outside {low_nm:g} to "
                f"{high_nm:g} nm; stay inside"
            )
        low_us, high_us = config.dwell_time_us
        if not low_us <= scan.dwell_time_us <= high_us:
            raise CommandRefused(
                f"dwell_time_us {scan.dwell_time_us:g} of a scan is outside {low_us:g} to {high_us:g} us; stay inside"
            )
        detectors = [one.name for one in config.detectors.values()]
        self._device.read("arrange", detectors=detectors, field_of_view_nm=full_nm)

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Images, one after another, the beam on from the first to the last; all scanning detectors together."""
        scan, count = command.scan, command.subframe_count
        if mode.is_at_once:
            names = {mode.name: self._config.cameras[mode.name].name}
            reply = self._photographed(command, names[mode.name], until_s, is_lit=is_lit)
        else:
            names = {name: one.name for name, one in self._config.detectors.items()}
            reply = self._scanned(command, list(names.values()), until_s, is_lit=is_lit)
        if is_lit:
            check_beam_on(command, reply["beam_on_s"], self._config)
        counts = {
            name: _unsigned(name, reply["images"][there], (count, *scan.shape_px)) for name, there in names.items()
        }
        self._check_pixels(reply["pixels_m"], scan.pixel_size_nm)
        context = {
            "instrument": {"name": self._about["system"], "serial": self._about["serial"]},
            "software": self._about["versions"],
            "beam_on_s": reply["beam_on_s"],
        }
        return Exposed(counts, scan.pixel_size_nm, context)

    def interrupt(self) -> None:
        """By the worker's own line and a client of its own; it is killed and a new one blanks if it does not say so."""
        self._device.stop(self._config.answer_s)

    def release(self) -> None:
        """Expose again."""
        self._device.do("release")

    def close(self) -> None:
        """End the worker, which blanks."""
        self._device.close()

    def _scanned(self, command: AcquireFrame, detectors: list[str], until_s: float, *, is_lit: bool) -> dict[str, Any]:
        scan = command.scan
        side_px = self._config.full_side_px(scan.shape_px) or max(scan.shape_px)
        return self._device.do(
            "expose",
            until_s - time.monotonic(),
            detectors=detectors,
            side_px=side_px,
            part_fraction=_part(scan.shape_px, side_px),
            dwell_us=scan.dwell_time_us,
            count=command.subframe_count,
            is_lit=is_lit,
        )

    def _photographed(self, command: AcquireFrame, camera: str, until_s: float, *, is_lit: bool) -> dict[str, Any]:
        return self._device.do(
            "photograph",
            until_s - time.monotonic(),
            name=camera,
            side_px=command.scan.shape_px[0],
            exposure_s=command.scan.dwell_time_us * 1e-6,
            count=command.subframe_count,
            is_lit=is_lit,
        )

    def _check_camera(self, scan: ScanPattern, camera: Camera) -> None:
        """As the camera is arranged, for a time within its limits."""
        side_px, (low_s, high_s) = camera.side_px, camera.exposure_s
        if scan.shape_px != (side_px, side_px) or abs(scan.pixel_size_nm / camera.pixel_size_nm - 1) > _SAME_PIXEL:
            raise CommandRefused(
                f"{camera.name} has {side_px} x {side_px} px of {camera.pixel_size_nm:g} nm; set field_of_view_nm to "
                f"{side_px * camera.pixel_size_nm:g} nm for these"
            )
        if not low_s <= scan.dwell_time_us * 1e-6 <= high_s:
            raise CommandRefused(
                f"an exposure of {scan.dwell_time_us * 1e-6:g} s is outside {low_s:g} to {high_s:g} s of {camera.name}"
            )
        self._device.read("arrange_camera", name=camera.name)

    def _check_energy(self, voltage_v: float) -> None:
        if abs(voltage_v / self._config.beam_energy_ev - 1) > _SAME_ENERGY:
            raise ConfigurationError(
                f"AutoScript reads a high tension of {voltage_v:g} V, the configuration says "
                f"{self._config.beam_energy_ev:g} eV; correct it"
            )

    def _check_pixels(self, pixels_m: list[float], wanted_nm: float) -> None:
        wrong = [
            pixel_m * NM_PER_M
            for pixel_m in pixels_m
            if abs(pixel_m * NM_PER_M / wanted_nm - 1) > self._config.pixel_tolerance_fraction
        ]
        if wrong:
            raise AcquisitionFailed(f"pixels of {wrong[0]:g} nm came, {wanted_nm:g} nm were asked for")


def _part(shape_px: tuple[int, int], side_px: int) -> list[float] | None:
    """The middle of a full scan as left, top, width and height, fractions of its side; None for all of it."""
    rows, columns = shape_px
    if rows == columns == side_px:
        return None
    left_px, top_px = (side_px - columns) // 2, (side_px - rows) // 2
    return [left_px / side_px, top_px / side_px, columns / side_px, rows / side_px]


def _unsigned(name: str, images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Counts as unsigned integers. Raises AcquisitionFailed for another shape and for what is no count; none is cut."""
    if images.shape != shape:
        raise AcquisitionFailed(f"{name} came as {images.shape[1:]}, {shape[1:]} (rows, columns) were expected")
    if images.dtype.kind == "u":
        return images
    if images.dtype.kind != "i" or images.min() < 0:
        raise AcquisitionFailed(f"{name} came as {images.dtype} from {images.min():g}, not as counts from 0")
    return images.astype(f"u{images.dtype.itemsize}")
