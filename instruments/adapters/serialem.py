"""A microscope behind SerialEM: stage, tilt, blanker and one camera, through its socket for external scripts.

SerialEM carries out one command after another and cannot be interrupted in one, so a stop waits for it: single
exposures are capped. It does not report its blanker. Neighbours: `serialem_link`, `serialem_config`, `driven`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.last_sent import LastSent
from instruments.adapters.serialem_config import SerialEMConfig, capabilities_of
from instruments.adapters.serialem_link import SerialEMLink
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentError,
    LinkLost,
    ResultUnknown,
)
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import MicroscopeState

_NM_PER_UM: Final = 1000.0
_BUFFER_A: Final = 0
_SAME_ENERGY: Final = 0.01
_UNKNOWN: Final = {
    "measured_current_pa": "the current is declared, nothing measures it",
    "coherence": "SerialEM does not say",
    "mode": "nothing was exposed yet",
    "beam_blanked": "SerialEM does not report its blanker; this is what was sent last",
    "optics.defocus_nm": "not offered here",
    "stage.beta_deg": "not offered here",
}


def open_serialem(**config: Any) -> DrivenMicroscope:
    """Connect and blank; the keys are those of `SerialEMConfig`. Raises ConfigurationError, LinkLost."""
    driver = SerialEMDriver(SerialEMConfig.checked(config))
    try:
        driver.check_numbers()
        driver.set_blanked(True, driver.answer_s)
    except BaseException:
        driver.close()
        raise
    return DrivenMicroscope(driver)


class SerialEMDriver:
    """Driver over one connection, which SerialEM serves one client at a time."""

    def __init__(self, config: SerialEMConfig) -> None:
        self._config = config
        self._link = SerialEMLink(
            config.host,
            config.port,
            config.answer_s,
            {str(name): number for name, number in config.command_numbers.items()},
        )
        self._capabilities = capabilities_of(config)
        self._sent = LastSent()
        self._is_blanked = False
        self._is_stopped = False
        self.answer_s = config.answer_s

    @property
    def capabilities(self) -> Capabilities:
        """As configured: SerialEM is not asked for limits."""
        return self._capabilities

    @property
    def worker(self) -> SerialEMLink:
        """The connection."""
        return self._link

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Stage, tilt and energy as SerialEM reports them."""
        x_um, y_um, z_um = self._link.run("ReportStageXYZ")[:3]
        (alpha_deg,) = self._link.run("ReportTiltAngle")[:1]
        (energy_kv,) = self._link.run("ReportHighVoltage")[:1]
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(
                x_nm=x_um * _NM_PER_UM, y_nm=y_um * _NM_PER_UM, z_nm=z_um * _NM_PER_UM, alpha_deg=alpha_deg
            ),
            optics=Optics(
                beam_energy_ev=energy_kv * 1e3,
                semi_convergence_angle_mrad=self._config.semi_convergence_angle_mrad,
                probe_current_pa=self._config.probe_current_pa,
            ),
            beam_blanked=self._is_blanked,
            undetermined=_UNKNOWN,
        )

    def check_numbers(self) -> None:
        """Try the command numbers that only read. Raises ConfigurationError where they report something else."""
        counts = {
            name: len(self._link.run(name)) for name in ("ReportStageXYZ", "ReportTiltAngle", "ReportHighVoltage")
        }
        (energy_kv, *_) = self._link.run("ReportHighVoltage") or [0.0]
        is_voltage = abs(energy_kv * 1e3 / self._config.beam_energy_ev - 1) < _SAME_ENERGY
        if counts["ReportStageXYZ"] < 3 or counts["ReportTiltAngle"] < 1 or not is_voltage:
            raise ConfigurationError(
                f"command_numbers do not fit this SerialEM: {counts} values, {energy_kv:g} kV instead of "
                f"{self._config.beam_energy_ev * 1e-3:g} kV; count them in its own MacroMasterList.h"
            )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Absolute, each command done when its answer comes; what stands since it was sent is not sent again."""
        now = self.read_state(0.0, deadline_s).stage.model_dump()
        wanted = {name: float(value) for name, value in values.items()}
        away = self._sent.away(wanted, lambda name, value: now[name] == value)
        until_s = time.monotonic() + deadline_s
        if away.keys() - {"alpha_deg"}:
            there = now | wanted
            places = [there[name] / _NM_PER_UM for name in ("x_nm", "y_nm", "z_nm")]
            self._link.run("MoveStageTo", *places, within_s=deadline_s)
        if "alpha_deg" in away:
            self._link.run("TiltTo", away["alpha_deg"], within_s=max(until_s - time.monotonic(), 0.1))
        self._sent.arrived(away)

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """Sent; nothing reads it back. An unblank is never sent twice."""
        self._is_blanked = False  # until the answer is here
        self._link.run("SetBeamBlank", float(is_blanked), within_s=deadline_s, repeatable=is_blanked)
        self._is_blanked = is_blanked

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Shape, pixel size and exposure are those of the camera."""
        config, scan = self._config, command.scan
        if scan.shape_px != config.shape_px or abs(scan.pixel_size_nm / config.pixel_size_nm - 1) > 1e-3:
            rows, columns = config.shape_px
            raise CommandRefused(f"the camera has {rows} x {columns} px of {config.pixel_size_nm:g} nm; ask for those")

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """Record images, one after another; blanked after each."""
        exposure_s = command.scan.dwell_time_us * 1e-6
        self._link.run("SetExposure", "R", exposure_s)
        images = [self._recorded(exposure_s, until_s, is_lit=is_lit) for _ in range(command.subframe_count)]
        return Exposed({mode.name: np.stack(images)}, self._config.pixel_size_nm)

    def interrupt(self) -> None:
        """Blank as soon as SerialEM lets go of the command it carries out."""
        self._is_stopped = True
        self.set_blanked(True, self._capabilities.stop_latency_s)

    def release(self) -> None:
        """Expose again."""
        self._is_stopped = False

    def close(self) -> None:
        """Hang up; the beam stays as it is."""
        self._link.close()

    def _recorded(self, exposure_s: float, until_s: float, *, is_lit: bool) -> np.ndarray:
        try:
            if self._is_stopped:
                raise AcquisitionFailed("stopped before the exposure")
            if is_lit:
                self.set_blanked(False, self._config.answer_s)
            self._link.run("Record", within_s=exposure_s + self._config.readout_s, repeatable=False)
        except LinkLost as error:
            raise ResultUnknown(f"{error}; its dose counts as spent") from error
        finally:
            with suppress(InstrumentError):  # the first error is the one that is told
                self.set_blanked(True, self._config.answer_s)
        if not self._is_blanked:
            raise ResultUnknown("the exposure was taken and the beam could not be blanked; blank it by hand")
        image = self._link.image(_BUFFER_A, max(until_s - time.monotonic(), 0.1))
        if image.shape != self._config.shape_px or image.dtype.kind == "f" or image.min() < 0:
            raise AcquisitionFailed(
                f"{image.dtype} {image.shape} from {image.min()} came, not {self._config.shape_px} counts from 0; see "
                "binning, area and processing of SerialEM's Record set"
            )
        counts = image.astype(np.uint16)
        return counts[::-1] if self._config.first_row_is_top else counts
