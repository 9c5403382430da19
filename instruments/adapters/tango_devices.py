"""Tango devices as an instrument: axes, a blanker and cameras by configuration; each speaks to its own device server.

Devices say with their State what they do: an axis is waited for while it is MOVING, a camera while it is RUNNING.
Refusals, read-back and action ids are those of `driven`. Neighbours: `tango_config`, `tango_link`, `tango_card`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.tango_card import capabilities_of
from instruments.adapters.tango_config import CameraDevice, TangoConfig
from instruments.adapters.tango_link import TangoLink
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
)
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import AxisReading, MicroscopeState

_LOOK_S: Final = 0.02
_BUSY: Final = ("MOVING", "RUNNING", "INIT")
_BROKEN: Final = ("FAULT", "ALARM", "UNKNOWN", "DISABLE", "OFF")
_IN_STATE: Final = frozenset((*StagePosition.model_fields, "beam_shift_x_nm", "beam_shift_y_nm", "defocus_nm"))
_UNKNOWN: Final = {
    "measured_current_pa": "the current is declared, nothing measures it",
    "coherence": "no device says",
    "mode": "nothing was exposed yet",
}


def open_tango(**config: Any) -> DrivenMicroscope:
    """Open devices; the keys are those of `TangoConfig`. Raises ConfigurationError, LinkLost."""
    return DrivenMicroscope(TangoDriver(TangoConfig.checked(config)))


class TangoDriver:
    """Driver over Tango devices; `interrupt` has a link of its own."""

    def __init__(self, config: TangoConfig) -> None:
        self._config = config
        self._link = TangoLink(config.answer_s)
        self._stop_link = TangoLink(config.answer_s)
        self._stop_line = threading.Lock()
        self._stopped = threading.Event()
        limits = {name: self._link.limits(one.device, one.attribute) for name, one in config.axes.items()}
        self._capabilities = capabilities_of(config, limits)
        for link in (self._link, self._stop_link):  # a stop has to look nothing up
            link.limits(config.blanker.device, config.blanker.attribute)
        for device in (*(one.device for one in config.cameras.values()), *config.stop_commands):
            self._stop_link.state(device)
        self.is_blanked()

    @property
    def capabilities(self) -> Capabilities:
        """Fixed while it is open."""
        return self._capabilities

    @property
    def worker(self) -> TangoLink:
        """The connection that can be lost."""
        return self._link

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """One reading of every attribute."""
        found = {
            name: one.factor * (float(self._link.read(one.device, one.attribute)) - one.zero)
            for name, one in self._config.axes.items()
        }
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(**{name: found.get(name, 0.0) for name in StagePosition.model_fields}),
            beam_shift_x_nm=found.get("beam_shift_x_nm", 0.0),
            beam_shift_y_nm=found.get("beam_shift_y_nm", 0.0),
            optics=Optics(
                beam_energy_ev=self._config.beam_energy_ev,
                semi_convergence_angle_mrad=self._config.semi_convergence_angle_mrad,
                probe_current_pa=self._config.probe_current_pa,
                defocus_nm=found.get("defocus_nm", 0.0),
            ),
            beam_blanked=self.is_blanked(),
            undetermined=_UNKNOWN,
            axes={name: AxisReading(read_back=value) for name, value in found.items() if name not in _IN_STATE},
        )

    def is_blanked(self) -> bool:
        """As the blanker reads."""
        blanker = self._config.blanker
        return self._link.read(blanker.device, blanker.attribute) == blanker.blanked

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Set all, then wait until no device moves."""
        until_s = time.monotonic() + deadline_s
        moved = {name: self._config.axes[name] for name in values if name in self._config.axes}
        for name, one in moved.items():
            self._link.write(one.device, one.attribute, one.zero + float(values[name]) / one.factor)
        for device in {one.device for one in moved.values()}:
            self._wait(device, until_s, "it moves")
        self._stopped.wait(max((one.settle_s for one in moved.values()), default=0.0))

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """Set and read back. Raises InstrumentFault where it stays as it was, or a stop came before an unblank."""
        blanker = self._config.blanker
        with self._stop_line:  # a stop comes before or after an unblank, never in between
            if not is_blanked and self._stopped.is_set():
                raise InstrumentFault("stopped; the beam stays blanked until it is released")
            self._link.write(blanker.device, blanker.attribute, blanker.blanked if is_blanked else blanker.unblanked)
        if self.is_blanked() != is_blanked:
            raise InstrumentFault(f"{blanker.device}/{blanker.attribute} did not change; see the blanker")

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Shape, pixel size and exposure are those of the camera."""
        camera, scan = self._config.cameras[mode.name], command.scan
        if scan.shape_px != camera.shape_px or abs(scan.pixel_size_nm / camera.pixel_size_nm - 1) > 1e-3:
            rows, columns = camera.shape_px
            raise CommandRefused(
                f"{mode.name} has {rows} x {columns} px of {camera.pixel_size_nm:g} nm: set field_of_view_nm to "
                f"{columns * camera.pixel_size_nm:g}"
            )
        exposure_s = scan.dwell_time_us * 1e-6
        if not camera.min_exposure_s <= exposure_s <= camera.max_exposure_s:
            raise CommandRefused(
                f"exposure {exposure_s:g} s of {mode.name} is outside {camera.min_exposure_s:g} to "
                f"{camera.max_exposure_s:g} s; ask for sub-frames"
            )
        if self._link.state(camera.device) in _BUSY:
            raise InstrumentBusy(f"{camera.device} is busy; nothing was exposed")

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Sub-frames one after another; the beam is blanked whatever happens."""
        camera = self._config.cameras[mode.name]
        exposure_s = command.scan.dwell_time_us * 1e-6
        self._link.write(camera.device, camera.exposure, exposure_s / camera.exposure_unit_s)
        images: list[np.ndarray] = []
        lit_s = 0.0
        for _ in range(command.subframe_count):
            before = self._counted(camera)
            began_s = time.monotonic()
            try:
                if is_lit:
                    self.set_blanked(False, self._config.answer_s)
                self._link.run(camera.device, camera.start, moves=True)
                self._wait(camera.device, until_s, "it exposes")
            except (LinkLost, InstrumentBusy) as error:
                raise ResultUnknown(f"{error}; its dose counts as spent") from error
            finally:
                self._darken()
            lit_s += time.monotonic() - began_s
            images.append(self._image(camera, before, until_s))
        context = {"beam_on_s": lit_s if is_lit else 0.0, "camera": camera.device}
        return Exposed({mode.name: np.stack(images)}, camera.pixel_size_nm, context)

    def interrupt(self) -> None:
        """Blank, then end exposures and motion, on the link of its own. Raises LinkLost if blanking failed."""
        self._stopped.set()
        blanker = self._config.blanker
        with self._stop_line:
            self._stop_link.write(blanker.device, blanker.attribute, blanker.blanked)
            ended = {camera.device: camera.stop for camera in self._config.cameras.values()}
            for device, command in {**ended, **self._config.stop_commands}.items():
                with suppress(CommandRefused, InstrumentBusy):  # it does nothing that could be stopped
                    self._stop_link.run(device, command)
            if self._stop_link.read(blanker.device, blanker.attribute) != blanker.blanked:
                raise InstrumentFault("the blanker did not change; blank by hand")

    def release(self) -> None:
        """Expose again."""
        self._stopped.clear()

    def close(self) -> None:
        """Forget the devices; they stay as they are."""
        self._link.close()
        self._stop_link.close()

    def _wait(self, device: str, until_s: float, doing: str) -> None:
        while (state := self._link.state(device)) in _BUSY:
            if self._stopped.wait(_LOOK_S):
                raise AcquisitionFailed(f"stopped while {doing}") if doing == "it exposes" else _halted(device)
            if time.monotonic() > until_s:
                raise InstrumentFault(f"{device} is still {state} at the deadline, {doing}; see the device")
        if state in _BROKEN:
            raise InstrumentFault(f"{device} is in state {state}; see the device")
        if self._stopped.is_set():
            raise AcquisitionFailed(f"stopped while {doing}") if doing == "it exposes" else _halted(device)

    def _darken(self) -> None:
        """After every exposure; where even that is not answered, the first error is the one that is told."""
        with suppress(InstrumentError):
            self.set_blanked(True, self._config.answer_s)

    def _counted(self, camera: CameraDevice) -> int:
        return int(self._link.read(camera.device, camera.counter)) if camera.counter else 0

    def _image(self, camera: CameraDevice, before: int, until_s: float) -> np.ndarray:
        if not self.is_blanked():
            raise InstrumentFault("the beam is on after an exposure; blank it by hand")
        if camera.counter and (count := self._counted(camera)) != before + 1:
            raise AcquisitionFailed(
                f"{camera.device} counts {count} images, {before} before this one; the frame is lost"
            )
        try:
            image = np.asarray(self._link.read(camera.device, camera.image, max(until_s - time.monotonic(), 0.1)))
        except LinkLost as error:
            raise ResultUnknown(f"{error}; the image was exposed and could not be read") from error
        if image.dtype.kind != "u" or image.shape != camera.shape_px:
            raise AcquisitionFailed(f"{camera.device} gave {image.dtype} {image.shape}, not {camera.shape_px} unsigned")
        return image


def _halted(device: str) -> InstrumentFault:
    return InstrumentFault(f"stopped while {device} moved; read the state back")
