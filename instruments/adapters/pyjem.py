"""A JEOL microscope through its maker's PyJEM, in a worker of its own: stage, blanker, deflectors, scanned images.

House units and signs on this side; nm, degrees and the numbers of converters on the other. Neighbours:
`pyjem_config`, `devices.pyjem_device` (runs there), `far_device` (its process), `driven` (refusals, read-back, action
ids).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.far_device import FarDevice
from instruments.adapters.last_sent import LastSent
from instruments.adapters.pyjem_config import STAGE, Converters, PyJEMConfig, capabilities_of
from instruments.adapters.scanned_beam import check_beam_on
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused, ConfigurationError
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import AxisReading, MicroscopeState

DEVICE: Final = Path(__file__).parent / "devices" / "pyjem_device.py"
_SAME_ENERGY: Final = 0.01
_UNCALIBRATED: Final = "no calibration is configured, so it stays as the operator left it"
_UNKNOWN: Final = {
    "measured_current_pa": "the current is declared, nothing measures it",
    "coherence": "PyJEM does not say",
    "mode": "nothing was exposed yet",
    "optics.semi_convergence_angle_mrad": "declared in the configuration, not read",
    "optics.probe_current_pa": "declared in the configuration, not read",
}


def open_pyjem(**config: Any) -> DrivenMicroscope:
    """Open it, blanked; the keys are those of `PyJEMConfig`. Raises ConfigurationError, LinkLost, InstrumentFault."""
    return DrivenMicroscope(PyJEMDriver(PyJEMConfig.checked(config)))


class PyJEMDriver:
    """Driver over PyJEM in a worker."""

    def __init__(self, config: PyJEMConfig) -> None:
        self._config = config
        self._sent = LastSent()
        self._capabilities = capabilities_of(config)
        self._arranged: dict[str, Any] = {}  # what TEMCenter said it would scan
        opening = {
            "path": list(config.path),
            "connect": config.connect,
            "offline": config.offline,
            "detectors": {name: {"name": one.name, "number": one.number} for name, one in config.detectors.items()},
            "arrive_s": config.arrive_s,
        }
        self._device = FarDevice(config.program(DEVICE, opening), config.answer_s)
        try:
            self._check_energy(self._device.read("read")["voltage_v"])
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """As configured: PyJEM is not asked for limits."""
        return self._capabilities

    @property
    def worker(self) -> FarDevice:
        """The library in its process."""
        return self._device

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Stage, blanker, voltage, and what is calibrated of the deflectors; the other numbers as they are."""
        found: dict[str, Any] = self._device.read("read", deadline_s)
        config, undetermined = self._config, dict(_UNKNOWN)
        shift_x_nm, shift_y_nm = _place(config.beam_shift, found["shift"], "beam_shift_{}_nm", undetermined)
        tilt_x_mrad, tilt_y_mrad = _place(config.beam_tilt, found["tilt"], "optics.tilt_{}_mrad", undetermined)
        defocus_nm = 0.0
        if config.focus is None:
            undetermined["optics.defocus_nm"] = _UNCALIBRATED
        else:
            defocus_nm = config.focus.defocus_nm(found["focus"])
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(**self._house(found["position"])),
            beam_shift_x_nm=shift_x_nm,
            beam_shift_y_nm=shift_y_nm,
            optics=Optics(
                beam_energy_ev=found["voltage_v"],
                semi_convergence_angle_mrad=config.semi_convergence_angle_mrad,
                probe_current_pa=config.probe_current_pa,
                defocus_nm=defocus_nm,
                tilt_x_mrad=tilt_x_mrad,
                tilt_y_mrad=tilt_y_mrad,
            ),
            beam_blanked=found["is_blanked"],
            undetermined=undetermined,
            axes={"spot_index": AxisReading(read_back=float(found["spot"]))},
        )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """What does not stand there since it was sent: the stage axis after axis, then deflectors and lens."""
        until_s = time.monotonic() + deadline_s
        wanted = {name: float(value) for name, value in values.items()}
        now = self.read_state(0.0, deadline_s)
        on_stage = {name: wanted[name] for name in STAGE if name in wanted}
        if moves := self._sent.away(on_stage, lambda name, value: now.axis_value(name) == value):
            there = {STAGE[name]: self._config.sign(name) * value for name, value in moves.items()}
            tolerances = {STAGE[name]: self._config.tolerance(name) for name in moves}
            left_s = max(until_s - time.monotonic(), 0.1)
            answer_s = left_s + self._config.answer_s
            self._device.do("move", answer_s, values=there, tolerances=tolerances, duration_s=left_s)
            self._sent.arrived(moves)
        focus = self._config.focus
        numbers = {
            "shift_counts": _numbers(self._config.beam_shift, wanted, now, "beam_shift_x_nm", "beam_shift_y_nm"),
            "tilt_counts": _numbers(self._config.beam_tilt, wanted, now, "tilt_x_mrad", "tilt_y_mrad"),
            "focus_count": focus.number(wanted["defocus_nm"]) if focus is not None and "defocus_nm" in wanted else None,
        }
        if any(one is not None for one in numbers.values()):
            self._device.do("deflect", max(until_s - time.monotonic(), self._config.answer_s), **numbers)

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """As read back by the device, which raises where it is not so."""
        self._device.do("blank", min(deadline_s, self._config.answer_s), is_blanked=is_blanked)

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """A square scan of a calibrated field, at the spot whose current is known; TEMCenter is arranged for it."""
        config, scan = self._config, command.scan
        rows, columns = scan.shape_px
        if rows != columns or columns not in config.sides_px:
            sides = ", ".join(map(str, config.sides_px))
            raise CommandRefused(f"{rows} x {columns} px is no scan of TEMCenter's: square, {sides} px a side")
        field = config.field(scan.field_of_view_nm)
        if field is None:
            widths = ", ".join(f"{one.field_of_view_nm:g}" for one in config.fields)
            raise CommandRefused(
                f"field_of_view_nm {scan.field_of_view_nm:g} is not calibrated; take one of {widths} nm"
            )
        if (scan_s := scan.duration_s()) > config.max_scan_s:
            raise CommandRefused(
                f"a scan of {scan_s:.3g} s is above max_scan_s, {config.max_scan_s:g} s; ask for more sub-frames"
            )
        self._arranged = self._device.read(
            "arrange",
            name=mode.name,
            spot=config.spot,
            selector=field.selector,
            magnification=field.magnification,
            side_px=columns,
            dwell_us=scan.dwell_time_us,
        )

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Scans as TEMCenter is arranged for, one after another, the beam on from the first to the last."""
        scan, count, side_px = command.scan, command.subframe_count, command.scan.shape_px[0]
        left_s = until_s - time.monotonic()
        reply: dict[str, Any] = self._device.do("expose", left_s, name=mode.name, count=count, is_lit=is_lit)
        if is_lit:
            check_beam_on(command, reply["beam_on_s"], self._config)
        counts = _decoded(reply["data"], self._config.detectors[mode.name].raw_type, (count, side_px, side_px))
        return Exposed(
            {mode.name: counts},
            scan.pixel_size_nm,
            {"arranged": self._arranged, "beam_on_s": reply["beam_on_s"]},
        )

    def interrupt(self) -> None:
        """By the worker's own line; it is killed and a new one blanks if it does not say so."""
        self._device.stop(self._config.answer_s)

    def release(self) -> None:
        """Expose again."""
        self._device.do("release")

    def close(self) -> None:
        """End the worker, which blanks."""
        self._device.close()

    def _check_energy(self, voltage_v: float) -> None:
        if abs(voltage_v / self._config.beam_energy_ev - 1) > _SAME_ENERGY:
            raise ConfigurationError(
                f"PyJEM reads a high tension of {voltage_v:g} V, the configuration says "
                f"{self._config.beam_energy_ev:g} eV; correct it, or see whether this PyJEM reads another unit"
            )

    def _house(self, position: Mapping[str, float]) -> dict[str, float]:
        return {name: self._config.sign(name) * position[there] for name, there in STAGE.items()}


def _place(pair: Converters | None, numbers: list[int], name: str, undetermined: dict[str, str]) -> tuple[float, float]:
    """Where a pair of deflectors is; 0 with the reason where it is not calibrated."""
    if pair is not None:
        return pair.place(numbers)
    undetermined |= {name.format(axis): _UNCALIBRATED for axis in "xy"}
    return 0.0, 0.0


def _numbers(
    pair: Converters | None, wanted: Mapping[str, float], now: MicroscopeState, x: str, y: str
) -> list[int] | None:
    """The numbers of a pair of which x or y is to be set; the other stays where it is."""
    if pair is None or not {x, y} & wanted.keys():
        return None
    place = [wanted.get(name, float(now.axis_value(name) or 0.0)) for name in (x, y)]
    return list(pair.numbers((place[0], place[1])))


def _decoded(data: np.ndarray, raw_type: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Bytes as unsigned counts. Raises AcquisitionFailed for another size, and for counts below 0; nothing is cut."""
    kind = np.dtype(raw_type)
    if data.shape != (shape[0], shape[1] * shape[2] * kind.itemsize):
        raise AcquisitionFailed(
            f"{data.shape[-1]} bytes a scan came, {shape[1]} x {shape[2]} px of {kind.itemsize} bytes were expected; "
            "see raw_type and the detector's imaging area"
        )
    counts = np.ascontiguousarray(data).view(kind).reshape(shape)
    if counts.min() < 0:
        raise AcquisitionFailed(f"counts of {counts.min()} came; see raw_type, and the detector's brightness")
    return counts.astype(f"u{kind.itemsize}")
