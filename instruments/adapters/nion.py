"""Nion Swift's instrument, real or simulated (nionswift-usim), in a worker of its own: it is never loaded here.

House units and signs on this side, Nion's controls in SI on the other. Modes: the scan with its dark-field channels,
and each camera with the beam standing still. Neighbours: `nion_card`, `nion_config`, `devices.nion_device` (runs
there), `far_device` (its process), `driven` (refusals, read-back, action ids).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from math import atan2, cos, degrees, hypot, radians, sin
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments.adapters.driven import READ_S, DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.far_device import FarDevice
from instruments.adapters.last_sent import LastSent
from instruments.adapters.nion_card import (
    CAMERA_OFFSET,
    LEAST_C12_NM,
    LEAST_DEFOCUS_NM,
    SCAN_OFFSET,
    UNITS_PER_SCAN_VALUE,
    capabilities_of,
    controls_of,
)
from instruments.adapters.nion_config import NionConfig
from instruments.adapters.understood import understood
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused, InstrumentFault
from instruments.optics import Aberrations, Optics
from instruments.scans import StagePosition
from instruments.state import MicroscopeState
from instruments.workers import Program

DEVICE: Final = Path(__file__).parent / "devices" / "nion_device.py"
_BESIDES: Final = ("C12.x", "C12.y", "EHT", "ConvergenceAngle", "C_Blank")
_UNKNOWN: Final = {
    "measured_current_pa": "the control's value is reported as commanded current; nothing measures it",
    "coherence": "Nion Swift does not say",
    "mode": "nothing was exposed yet",
}


def open_nion(**config: Any) -> DrivenMicroscope:
    """Open it; the keys are those of `NionConfig`. Raises ConfigurationError, InstrumentFault."""
    return DrivenMicroscope(NionDriver(NionConfig.checked(config)))


class NionDriver:
    """Driver over Nion Swift in a worker."""

    def __init__(self, config: NionConfig) -> None:
        self._config = config
        self._controls = controls_of(config)
        self._sent = LastSent()  # by control
        self._folder = tempfile.TemporaryDirectory(prefix="stempilot-nion-", ignore_cleanup_errors=True)
        opening = {
            "scan": config.scan,
            "cameras": {name: camera.source for name, camera in config.cameras.items()},
            "controls": config.controls,
            "plugins": list(config.plugins),
            "sample_index": config.sample_index if config.usim else None,
            "folder": self._folder.name,
        }
        self._phi12_deg = 0.0
        program = Program(name="nion", python=config.python, file=DEVICE, config=opening, start_s=config.start_s)
        try:
            self._device = FarDevice(program, READ_S)
        except BaseException:
            self._folder.cleanup()
            raise
        try:
            with understood("what Nion Swift says of itself"):
                self.versions: dict[str, str] = self._device.read("describe")["versions"]
                found = self._read(READ_S)
                energy_ev, angle_mrad = round(found["EHT"], 6), round(found["ConvergenceAngle"] * 1e3, 9)
                self._capabilities = capabilities_of(config, energy_ev, angle_mrad)
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
        """One reading of all controls."""
        found = self._read(deadline_s)
        house = {one.axis: one.factor * found[one.name] for one in self._controls}
        c12_nm, phi12_deg = self._astigmatism(found)
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(x_nm=house["x_nm"], y_nm=house["y_nm"]),
            beam_shift_x_nm=house["beam_shift_x_nm"],
            beam_shift_y_nm=house["beam_shift_y_nm"],
            optics=Optics(
                beam_energy_ev=round(found["EHT"], 6),
                semi_convergence_angle_mrad=round(found["ConvergenceAngle"] * 1e3, 9),
                probe_current_pa=max(house["probe_current_pa"], 0.0),
                defocus_nm=house["defocus_nm"],
                aberrations=Aberrations(c12_nm=c12_nm, phi12_deg=phi12_deg, c30_nm=house["c30_nm"]),
            ),
            beam_blanked=found["C_Blank"] != 0.0,
            undetermined=_UNKNOWN,
        )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Set the controls of these axes together; all are known to be there before the first is set."""
        now = self._read(deadline_s)
        numbers = {name: float(value) for name, value in values.items()}
        wanted = {one.name: numbers[one.axis] / one.factor for one in self._controls if one.axis in numbers}
        if {"c12_nm", "phi12_deg"} & numbers.keys():
            c12_nm, phi12_deg = self._astigmatism(now)
            self._phi12_deg = numbers.get("phi12_deg", phi12_deg)
            c12_m, twice = numbers.get("c12_nm", c12_nm) * 1e-9, 2 * radians(self._phi12_deg)
            wanted |= {"C12.x": c12_m * cos(twice), "C12.y": c12_m * sin(twice)}
        changed = self._sent.away(wanted, lambda name, value: now[name] == value)
        if changed:
            self._device.put("write", deadline_s, values=changed)
            self._sent.arrived(changed)
        if any(name.startswith("stage_position") for name in changed):
            time.sleep(self._config.settle_s)

    def _astigmatism(self, found: Mapping[str, float]) -> tuple[float, float]:
        """Two-fold, magnitude and azimuth; the azimuth of none is the one that was asked for."""
        x_nm, y_nm = found["C12.x"] * 1e9, found["C12.y"] * 1e9
        size_nm = hypot(x_nm, y_nm)
        return size_nm, degrees(atan2(y_nm, x_nm)) / 2 if size_nm > LEAST_C12_NM else self._phi12_deg

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """As read back by the device, which raises where it is not so."""
        self._device.put("blank", deadline_s, is_blanked=is_blanked)

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Shape, dwell, and the one defocus at which the simulated Ronchigram is empty."""
        scan, config = command.scan, self._config
        if mode.kind == "stem":
            if max(scan.shape_px) > config.max_shape_px or min(scan.shape_px) < 1:
                raise CommandRefused(f"{scan.shape_px} px are not 1 to {config.max_shape_px} px a side")
            if scan.field_of_view_nm < config.min_field_of_view_nm:
                raise CommandRefused(
                    f"field_of_view_nm {scan.field_of_view_nm:g} of a scan is below {config.min_field_of_view_nm:g} nm"
                )
            if scan.dwell_time_us > config.max_dwell_us:
                raise CommandRefused(
                    f"dwell_time_us {scan.dwell_time_us:g} us of a scan is above {config.max_dwell_us:g} us; ask for "
                    "more sub-frames"
                )
            return
        if scan.shape_px != (1, 1):
            raise CommandRefused(f"mode {mode.name!r} is a camera under a beam that stands still: scan.shape_px (1, 1)")
        longest_s = config.cameras[mode.name].max_exposure_s
        if scan.dwell_time_us > longest_s * 1e6:
            raise CommandRefused(f"exposure {scan.dwell_time_us * 1e-6:g} s is above {longest_s:g} s of {mode.name}")
        if config.usim and mode.kind == "ronchigram" and abs(command.optics.defocus_nm) < LEAST_DEFOCUS_NM:
            raise CommandRefused(f"at defocus 0 nm this camera's frame is empty; at least {LEAST_DEFOCUS_NM:g} nm")

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Sub-frames one after another, as long as the deadline and nobody's stop end them."""
        take = self._scanned if mode.kind == "stem" else self._photographed
        frames = [take(command, mode, until_s, is_lit=is_lit) for _ in range(command.subframe_count)]
        counts = {name: np.stack([frame.counts[name] for frame in frames]) for name in frames[0].counts}
        return Exposed(counts, frames[0].pixel_size_nm, {**frames[0].context, "software": self.versions})

    def interrupt(self) -> None:
        """By the worker's own line; it is killed and a new one blanks if it does not say so."""
        self._device.stop(self._config.stop_latency_s)

    def release(self) -> None:
        """Expose again."""
        self._device.put("release")

    def close(self) -> None:
        """End the worker, which blanks; remove its folder."""
        self._device.close()
        self._folder.cleanup()

    # --- of the other side

    def _read(self, deadline_s: float) -> dict[str, float]:
        names = [*(one.name for one in self._controls), *_BESIDES]
        found: dict[str, float | None] = self._device.read("read", deadline_s, names=names)
        known = {name: value for name in names if (value := found[name]) is not None}
        if missing := [name for name in names if name not in known]:
            raise InstrumentFault(
                f"this instrument has no control {', '.join(missing)}; see its controls in Nion Swift"
            )
        return known

    def _scanned(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        scan = command.scan
        parameters = {
            "fov_nm": max(scan.field_of_view_nm, scan.height_nm),
            "pixel_size": scan.shape_px,
            "pixel_time_us": scan.dwell_time_us,
            "flyback_time_us": scan.flyback_time_us,
        }
        left_s = until_s - time.monotonic()
        channels = list(self._config.channels.values())
        reply = self._device.do(
            "scan", left_s + READ_S, parameters=parameters, channels=channels, timeout_s=left_s, is_lit=is_lit
        )
        images: Mapping[str, np.ndarray] = reply["images"]
        if missing := [channel for channel in channels if channel not in images]:
            raise AcquisitionFailed(f"the scan gave no {', '.join(missing)}")
        counts = {
            name: _unsigned(name, images[channel], scan.shape_px, UNITS_PER_SCAN_VALUE, SCAN_OFFSET)
            for name, channel in self._config.channels.items()
        }
        found_nm: float = reply["pixel_size_nm"]
        if not abs(found_nm - scan.pixel_size_nm) <= 1e-3 * scan.pixel_size_nm:  # nor NaN
            raise AcquisitionFailed(f"pixels of {found_nm:g} nm came, {scan.pixel_size_nm:g} nm were asked for")
        return Exposed(
            counts, scan.pixel_size_nm, {"counts_per_unit": UNITS_PER_SCAN_VALUE, "offset_counts": SCAN_OFFSET}
        )

    def _photographed(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        camera = self._config.cameras[mode.name]
        left_s = until_s - time.monotonic()
        exposure_s = command.scan.dwell_time_us * 1e-6
        reply = self._device.do(
            "camera", left_s + READ_S, name=mode.name, exposure_s=exposure_s, timeout_s=left_s, is_lit=is_lit
        )
        image: np.ndarray = reply.pop("image")
        counts = _unsigned(mode.name, image, camera.shape_px, 1.0, CAMERA_OFFSET)[None, None]
        if is_lit and not np.ptp(counts):
            raise AcquisitionFailed(f"the frame of {mode.name} is empty: all its pixels are {image.flat[0]:g}")
        return Exposed({mode.name: counts}, command.scan.pixel_size_nm, {**reply, "offset_counts": CAMERA_OFFSET})


def _unsigned(name: str, image: np.ndarray, shape_px: tuple[int, int], factor: float, offset: float) -> np.ndarray:
    """Floats as unsigned integers. Raises AcquisitionFailed for another shape and what does not fit; nothing is cut."""
    if image.shape != tuple(shape_px) or image.dtype.kind not in "fiu":
        raise AcquisitionFailed(
            f"{name} came as {image.dtype} {image.shape}, numbers {shape_px} (rows, columns) were expected"
        )
    values = np.rint(image * np.float64(factor) + offset)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= np.iinfo(np.uint32).max):
        raise AcquisitionFailed(f"{name} holds values that do not fit: {image.min():g} to {image.max():g}")
    return values.astype(np.uint32)
