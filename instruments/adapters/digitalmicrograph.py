"""A microscope behind Gatan's DigitalMicrograph: stage, focus, beam shift, blanker, DigiScan and one camera.

Our own server runs inside DigitalMicrograph (`devices.digitalmicrograph_server`) and knows its calls; this end
converts units, refuses, and waits for the stage. Neighbours: `digitalmicrograph_config`, `digitalmicrograph_frames`,
`digitalmicrograph_link`, `driven` (read-back, action ids, stop).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event
from typing import Any, Final, cast

import numpy as np

from instruments.adapters.digitalmicrograph_config import DigitalMicrographConfig, capabilities_of
from instruments.adapters.digitalmicrograph_frames import shots_of
from instruments.adapters.digitalmicrograph_link import DigitalMicrographLink, ServerError
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.last_sent import LastSent
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
)
from instruments.optics import Optics
from instruments.scans import StagePosition
from instruments.state import MicroscopeState

_STAGE: Final = {"x_nm": 1, "y_nm": 2, "z_nm": 4, "alpha_deg": 8, "beta_deg": 16}
_UNITS: Final = {"x_nm": 1000.0, "y_nm": 1000.0, "z_nm": 1000.0, "alpha_deg": 1.0, "beta_deg": 1.0}
_LOOK_S: Final = 0.05
_SAME_ENERGY: Final = 0.01
_UNKNOWN: Final = {
    "measured_current_pa": "the current is declared, nothing measures it",
    "coherence": "DigitalMicrograph does not say",
    "mode": "nothing was exposed yet",
}


def open_digitalmicrograph(**config: Any) -> DrivenMicroscope:
    """Connect and blank; the keys are those of `DigitalMicrographConfig`. Raises ConfigurationError, LinkLost."""
    checked = DigitalMicrographConfig.checked(config)
    driver = DigitalMicrographDriver(checked)
    try:
        driver.check_energy()
        driver.set_blanked(True, checked.answer_s)
        driver.release()  # from a stop of an earlier opening
    except BaseException:
        driver.close()
        raise
    return DrivenMicroscope(driver)


class DigitalMicrographDriver:
    """Driver over our server's two lines."""

    def __init__(self, config: DigitalMicrographConfig) -> None:
        self._config = config
        self._link = DigitalMicrographLink(
            config.host, config.port, config.secret(), config.answer_s, takes_over=config.takes_over
        )
        self._capabilities = capabilities_of(config)
        self._shots = shots_of(config)
        self._sent = LastSent()
        self._stopped = Event()

    @property
    def capabilities(self) -> Capabilities:
        """As configured: DigitalMicrograph is not asked for limits."""
        return self._capabilities

    @property
    def worker(self) -> DigitalMicrographLink:
        """The connections."""
        return self._link

    def check_energy(self) -> None:
        """Raise ConfigurationError where the high tension is not the configured one, so that units are right."""
        told_v = _number(self._asked("describe").get("high_tension_v"))
        if abs(told_v / self._config.beam_energy_ev - 1) > _SAME_ENERGY:
            raise ConfigurationError(
                f"the high tension is {told_v:g} V, beam_energy_ev is {self._config.beam_energy_ev:g}; correct it"
            )

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        """Stage, focus, beam shift, energy and blanker as DigitalMicrograph reports them."""
        told, config = self._asked("read"), self._config
        stage = _stage(told)
        silent = {f"stage.{name}": "DigitalMicrograph does not tell it" for name in _STAGE if name not in stage}
        shift_x_nm, shift_y_nm = self._shifted_nm(told)
        return MicroscopeState(
            time_s=time_s,
            stage=StagePosition(**stage),
            beam_shift_x_nm=shift_x_nm,
            beam_shift_y_nm=shift_y_nm,
            optics=Optics(
                beam_energy_ev=_number(told.get("high_tension_v")),
                semi_convergence_angle_mrad=config.semi_convergence_angle_mrad,
                probe_current_pa=config.probe_current_pa,
                defocus_nm=self._defocus_nm(told),
            ),
            beam_blanked=told.get("is_blanked") is True,
            undetermined=_UNKNOWN | self._uncalibrated() | silent,
        )

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        """Absolute; the stage is waited for until it stands where it was sent, or the deadline."""
        until_s = time.monotonic() + deadline_s
        numbers = {name: float(value) for name, value in values.items()}
        if "defocus_nm" in numbers:
            self._set_focus(numbers["defocus_nm"])
        if any(name.startswith("beam_shift") for name in numbers):
            self._set_beam_shift(numbers)
        self._move({name: numbers[name] for name in _STAGE if name in numbers}, until_s)

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """Read back by the server. An unblank is never sent twice."""
        told = self._ask("blank", within_s=deadline_s, repeatable=is_blanked, is_blanked=is_blanked)
        if told is not is_blanked:
            raise InstrumentFault(f"DigitalMicrograph was told to {'blank' if is_blanked else 'unblank'} and did not")

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Whether a magnification, DigiScan's or the camera's shape, and a time give this frame; it reads, no more."""
        self._shots[mode.name].check(command)
        self._shots[mode.name].magnification_index(command, self._present_index())

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        """All sub-frames in one call; the server blanks after them."""
        self._set_magnification(command, mode)
        if self._stopped.is_set():
            raise AcquisitionFailed("stopped before the exposure")
        shot = self._shots[mode.name]
        call, arguments = shot.call(command)
        count = command.subframe_count
        needed_s = command.scan.duration_s(count) + self._config.readout_s + self._config.beam_overhead_s
        within_s = min(needed_s, max(until_s - time.monotonic(), 0.1))
        try:
            reply = self._link.ask(call, within_s=within_s, repeatable=False, count=count, is_lit=is_lit, **arguments)
        except ServerError as error:
            raise _exposure_error(error) from error
        except LinkLost as error:
            raise ResultUnknown(f"{error}; its dose counts as spent") from error
        names = [detector.name for detector in mode.detectors]
        images = [shot.counts(array, command) for array in reply.arrays]
        if len(images) != count * len(names):
            raise AcquisitionFailed(f"{len(images)} images came for {count} x {len(names)}")
        counts = {name: np.stack(images[number :: len(names)]) for number, name in enumerate(names)}
        return Exposed(counts, command.scan.pixel_size_nm, {"call": call, **arguments})

    def interrupt(self) -> None:
        """Blank, on a line of its own, as soon as DigitalMicrograph lets it."""
        self._stopped.set()
        self._link.stop()

    def release(self) -> None:
        """Move and expose again."""
        self._ask("release")
        self._stopped.clear()

    def close(self) -> None:
        """Hang up; the server blanks."""
        self._link.close()

    # --- what is told

    def _ask(self, call: str, *, within_s: float | None = None, repeatable: bool = True, **arguments: Any) -> Any:
        """The result. Raises CommandRefused where the server did nothing."""
        try:
            return self._link.ask(call, within_s=within_s, repeatable=repeatable, **arguments).result
        except ServerError as error:
            if error.kind == "Refused":
                raise CommandRefused(str(error)) from error
            raise

    def _asked(self, call: str) -> dict[str, Any]:
        told = self._ask(call)
        if not isinstance(told, dict):
            raise InstrumentFault(f"DigitalMicrograph's {call} gave {told!r:.80}")
        return cast("dict[str, Any]", told)

    # --- magnification

    def _set_magnification(self, command: AcquireFrame, mode: Mode) -> None:
        present = self._present_index()
        index = self._shots[mode.name].magnification_index(command, present)
        if index == present:
            return
        self._ask("magnification", index=index)
        if (told := self._present_index()) != index:
            raise InstrumentFault(f"magnification index {index} was set and {told} is read back")

    def _present_index(self) -> int:
        return int(_number(self._asked("read").get("magnification_index")))

    # --- axes

    def _uncalibrated(self) -> dict[str, str]:
        reasons = {}
        if self._config.focus is None:
            reasons["optics.defocus_nm"] = "the focus is not calibrated"
        if self._config.beam_shift is None:
            reasons |= dict.fromkeys(("beam_shift_x_nm", "beam_shift_y_nm"), "the beam shift is not calibrated")
        return reasons

    def _defocus_nm(self, told: Mapping[str, Any]) -> float:
        focus = self._config.focus
        return 0.0 if focus is None else (_number(told.get("focus")) - focus.zero) * focus.scale

    def _set_focus(self, defocus_nm: float) -> None:
        focus = self._config.focus
        assert focus is not None  # else there is no such axis
        self._ask("focus", value=focus.zero + defocus_nm / focus.scale)

    def _shifted_nm(self, told: Mapping[str, Any]) -> tuple[float, float]:
        shift = self._config.beam_shift
        if shift is None:
            return 0.0, 0.0
        units = np.array(_numbers(told.get("beam_shift"), 2)) - shift.zero
        x_nm, y_nm = (np.array(shift.matrix) @ units).tolist()
        return x_nm, y_nm

    def _set_beam_shift(self, values: Mapping[str, float]) -> None:
        shift = self._config.beam_shift
        assert shift is not None
        now = dict(zip(("beam_shift_x_nm", "beam_shift_y_nm"), self._shifted_nm(self._asked("read")), strict=True))
        wanted = [values.get(name, nm) for name, nm in now.items()]
        units = np.linalg.solve(np.array(shift.matrix), wanted) + shift.zero
        self._ask("beam_shift", values=units.tolist())

    def _move(self, wanted: Mapping[str, float], until_s: float) -> None:
        """Begin, and look until all stand; one that was sent there before and stands there is left alone."""
        now = _stage(self._asked("read"))
        away = self._sent.away(wanted, lambda name, value: self._stands(name, value, now))
        if not away:
            return
        flags = sum(_STAGE[name] for name in away)
        places = [away.get(name, now.get(name, 0.0)) / _UNITS[name] for name in _STAGE]
        self._ask("move", within_s=max(until_s - time.monotonic(), 0.1), flags=flags, values=places)
        while not all(self._stands(name, value, now) for name, value in away.items()):
            if time.monotonic() > until_s or self._stopped.wait(_LOOK_S):
                return  # what does not stand is told by whoever reads back
            now = _stage(self._asked("read"))
        self._sent.arrived(away)

    def _stands(self, name: str, wanted: float, now: Mapping[str, float]) -> bool:
        axis = self._capabilities.axis(name)
        return axis is not None and name in now and abs(wanted - now[name]) <= axis.allowed_error


def _stage(told: Mapping[str, Any]) -> dict[str, float]:
    """The axes that are told."""
    places = told.get("stage")
    if not isinstance(places, list) or len(cast("list[Any]", places)) != len(_STAGE):
        raise InstrumentFault(f"DigitalMicrograph gave {places!r:.80} as its stage")
    known = zip(_STAGE, cast("list[Any]", places), strict=True)
    return {name: _number(place) * _UNITS[name] for name, place in known if place is not None}


def _numbers(told: Any, count: int) -> list[float]:
    if not isinstance(told, list) or len(told) != count:
        raise InstrumentFault(f"DigitalMicrograph gave {told!r:.80} instead of {count} numbers")
    return [_number(one) for one in cast("list[Any]", told)]


def _number(told: Any) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float) or not np.isfinite(told):
        raise InstrumentFault(f"DigitalMicrograph gave {told!r:.80} instead of a number")
    return float(told)


def _exposure_error(error: ServerError) -> CommandRefused | AcquisitionFailed | ResultUnknown:
    match error.kind:
        case "Refused":
            return CommandRefused(str(error))
        case "StillLit":
            return ResultUnknown(f"{error}; blank it by hand")
        case _:
            return AcquisitionFailed(str(error))
