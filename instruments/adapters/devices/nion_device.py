"""Nion Swift's instrument, scan and cameras as the device of a worker, in Nion's own controls and units (SI).

Runs in the Python in which Nion Swift is installed; loads nothing of stempilot. With `usim` it is the simulated
instrument of nionswift-usim, started here; without, the instrument that Nion's own plug-ins of that Python registered.
Neighbour: `instruments.adapters.nion` is the other end.
"""

from __future__ import annotations

import copy
import threading
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

_IDLE_S = 10.0  # for a recording that was just done, or aborted, to make way for the next
_LOOK_S = 0.002


class CommandRefused(Exception):
    """Nothing moved."""


class AcquisitionFailed(Exception):
    """The beam was on, the frame is lost."""


class ConfigurationError(Exception):
    """What is wanted is not there."""


def open_device(
    scan: str,
    cameras: dict[str, str],
    controls: dict[str, float],
    plugins: list[str],
    sample_index: int | None,
    folder: str,
) -> NionDevice:
    """The instrument with the scan and the cameras of these ids, blanked, `controls` set; files go into `folder`.

    `sample_index` is that of the simulated instrument, which is then started; None: the `plugins` bring one.
    """
    try:
        _start(plugins, sample_index, Path(folder))
    except ImportError as error:
        raise ConfigurationError(
            f"{error}; install nionswift, nionswift-instrumentation and, to simulate, nionswift-usim there"
        ) from error
    from nion.instrumentation import HardwareSource  # pyright: ignore[reportMissingImports]
    from nion.utils import Registry  # pyright: ignore[reportMissingImports]

    manager = HardwareSource.HardwareSourceManager()
    wanted = {"": scan, **cameras}
    sources = {name: manager.get_hardware_source_for_hardware_source_id(source) for name, source in wanted.items()}
    controller = Registry.get_component("stem_controller")
    missing = [source for name, source in wanted.items() if sources[name] is None]
    if missing:
        raise ConfigurationError("Nion Swift has no hardware source {}".format(", ".join(missing)))
    if controller is None:
        raise ConfigurationError("Nion Swift has no stem_controller")
    device = NionDevice(controller, sources.pop(""), sources)
    device.write(controls)
    return device


def _start(plugins: list[str], sample_index: int | None, folder: Path) -> None:
    """Nion's hardware sources, and who registers with them."""
    from nion.instrumentation import HardwareSource, camera_base, scan_base  # pyright: ignore[reportMissingImports]

    HardwareSource.run()
    camera_base.run(folder)
    scan_base.run(folder)
    if sample_index is not None:
        from nion.usim_device import DeviceConfiguration  # pyright: ignore[reportMissingImports]

        usim = DeviceConfiguration.AcquisitionContextConfiguration
        usim(sample_index=sample_index, set_configuration_location=False).run()
    for name in plugins:
        import_module(name).run()


class NionDevice:
    """Controls by name, one scan, cameras by name; blanked except while it exposes."""

    def __init__(self, controller: Any, scan: Any, cameras: dict[str, Any]) -> None:
        self._controller = controller
        self._scan = scan
        self._cameras = cameras
        self._stopped = threading.Event()
        self._blank()

    def describe(self) -> dict[str, Any]:
        """Channels of the scan, versions of what runs here."""
        names = [self._scan.get_channel_state(index).name for index in range(self._scan.channel_count)]
        return {
            "channels": names,
            "versions": {name: version(name) for name in ("nionswift", "nionswift-instrumentation")},
        }

    def read(self, names: list[str]) -> dict[str, float | None]:
        """Output values of controls; None for one there is none of."""
        return {name: self._value(name) for name in names}

    def write(self, values: dict[str, float]) -> dict[str, float | None]:
        """Set controls, having looked that each is there; what they read afterwards."""
        unknown = [name for name in values if self._value(name) is None]
        if unknown:
            raise CommandRefused("this instrument has no control {}; nothing was set".format(", ".join(unknown)))
        for name, value in values.items():
            if not self._controller.SetVal(name, value):
                raise RuntimeError(f"control {name} did not take {value!r}")
        return self.read(list(values))

    def blank(self, is_blanked: bool) -> bool:
        """Blank or unblank; what was read back."""
        if not is_blanked and self._stopped.is_set():
            raise CommandRefused("stopped: the beam stays blanked until it is released")
        if is_blanked:
            self._blank()
        else:
            self._controller.SetVal("C_Blank", 0.0)
        return self.is_blanked()

    def is_blanked(self) -> bool:
        """As read back."""
        return self._value("C_Blank") != 0.0

    def release(self) -> None:
        """Expose again after `stop`, the beam blanked."""
        self._stopped.clear()

    def stop(self) -> None:
        """Blank, then abort what is recorded; from any thread."""
        self._stopped.set()
        self._blank()
        for source in (self._scan, *self._cameras.values()):
            if source.is_recording:
                source.abort_recording(sync_timeout=_IDLE_S)

    def scan(self, parameters: dict[str, Any], channels: list[str], timeout_s: float, is_lit: bool) -> dict[str, Any]:
        """One frame of the scan: images by channel, float32 as Nion gives them."""
        for index in range(self._scan.channel_count):
            self._scan.set_channel_enabled(index, self._scan.get_channel_state(index).name in channels)
        frame_parameters = copy.copy(self._scan.get_frame_parameters(0))
        for name, value in parameters.items():
            setattr(frame_parameters, name, value)
        found = self._recorded(self._scan, frame_parameters, timeout_s, is_lit)
        images = {one.metadata["hardware_source"]["channel_name"]: one.data for one in found}
        if len(images) != len(found):
            raise AcquisitionFailed(f"{len(found)} images came of {len(images)} channels")
        return {"images": images, "pixel_size_nm": float(found[0].dimensional_calibrations[-1].scale)}

    def camera(self, name: str, exposure_s: float, timeout_s: float, is_lit: bool) -> dict[str, Any]:
        """One frame of a camera, with the scale of its axes and its counts per electron."""
        camera = self._cameras[name]
        frame_parameters = copy.copy(camera.get_frame_parameters(0))
        frame_parameters.exposure_ms = exposure_s * 1e3
        found = self._recorded(camera, frame_parameters, timeout_s, is_lit)[0]
        axes = [
            {"scale": one.scale, "offset": one.offset, "units": one.units} for one in found.dimensional_calibrations
        ]
        about = found.metadata["hardware_source"]
        return {
            "image": found.data,
            "axes": axes,
            "counts_per_electron": about.get("counts_per_electron"),
            "binning": about.get("binning"),
        }

    def _recorded(self, source: Any, frame_parameters: Any, timeout_s: float, is_lit: bool) -> list[Any]:
        """The data of one recording, the beam on meanwhile if `is_lit`."""
        until_s = time.monotonic() + _IDLE_S
        while source.is_recording:
            if time.monotonic() > until_s:
                raise CommandRefused(f"another recording has not ended in {_IDLE_S:g} s")
            time.sleep(_LOOK_S)
        if self._stopped.is_set():
            raise CommandRefused("stopped: nothing is exposed until it is released")
        try:
            if is_lit:
                self._controller.SetVal("C_Blank", 0.0)
            task = source.start_recording(frame_parameters=frame_parameters)
            if self._stopped.is_set():  # between the question above and the beam
                source.abort_recording(sync_timeout=_IDLE_S)
            found = task.grab_xdatas(timeout=timeout_s)
        finally:
            self._blank()
        if not found:
            raise AcquisitionFailed("stopped" if self._stopped.is_set() else "the recording gave no data")
        return list(found)

    def _blank(self) -> None:
        if not self._controller.SetVal("C_Blank", 1.0) or not self.is_blanked():
            raise RuntimeError("the beam was not blanked; assume that it is on")

    def _value(self, name: str) -> float | None:
        is_there, value = self._controller.TryGetVal(name)
        return float(value) if is_there and value is not None else None
