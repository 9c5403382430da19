"""Everything of a microscope behind a temscript server but its beam: read, set, and seen to stand where it was sent.

Neighbours: `temscript` commands it, `temscript_beam` lets the beam through, `temscript_axes` knows endpoints and units.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event
from typing import Final

from instruments.adapters.temscript_axes import STAGE, AxisTable
from instruments.adapters.temscript_card import ServerFacts
from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_exposure import Setting, Shot, together
from instruments.adapters.temscript_link import TemscriptLink
from instruments.adapters.temscript_readings import state_of
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue
from instruments.errors import CommandRefused, InstrumentFault, Unsupported
from instruments.state import MicroscopeState

_LOOK_S: Final = 0.05
_MM_PER_M: Final = 1e3
_CAMERA_LENGTH_TOLERANCE: Final = 0.01


class TemscriptColumn:
    """Stage, lenses, detectors, screen and valves of one server; a set `stopped` ends its waiting."""

    def __init__(
        self,
        config: TemscriptConfig,
        link: TemscriptLink,
        facts: ServerFacts,
        table: AxisTable,
        capabilities: Capabilities,
        stopped: Event,
    ) -> None:
        self._config = config
        self._link = link
        self._facts = facts
        self._table = table
        self._capabilities = capabilities
        self._stopped = stopped
        self._opened_s = time.monotonic()
        self._mode: str | None = None
        self._convergence_mrad = 0.0
        self._asked: dict[str, AxisValue] = {}
        self._values: dict[str, AxisValue] = {}  # as last read

    def now_s(self) -> float:
        """The clock of the states: seconds since it was opened."""
        return time.monotonic() - self._opened_s

    def magnification_index(self) -> float | None:
        """As it was last asked for; None before."""
        return _number(self._asked.get("magnification_index"))

    def check(self, values: Mapping[str, AxisValue]) -> None:
        """Raise CommandRefused or Unsupported for what cannot be set; nothing moves."""
        self._capabilities.check_values(values)
        if "camera_length_mm" in values:
            raise CommandRefused("camera_length_mm comes with a frame of diffraction; write it into its optics")
        for name, value in values.items():
            known = self._table.numbers.get(name)
            if known is not None and known.is_whole and float(value) != round(float(value)):
                raise CommandRefused(f"{name} {value} is not a whole number; choose one")
        if values.get("column_valves") == "open" and not self._config.may_open_valves:
            raise CommandRefused("column_valves open is not allowed (may_open_valves); open them at the microscope")

    def read(self, until_s: float | None = None) -> MicroscopeState:
        """Read back now: two requests. Raises InstrumentFault for a state that is not temscript's."""
        told, vacuum = self._link.get("state", until_s), self._link.get("vacuum", until_s)
        try:
            self._values = self._table.values(told, vacuum)
            return state_of(
                told, vacuum, self._values, facts=self._facts, capabilities=self._capabilities,
                convergence_mrad=self._convergence_mrad, mode=self._mode, time_s=self.now_s(),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise InstrumentFault(
                f"the server's state is not that of temscript 2: {error!r}; see its version"
            ) from error

    def set(self, values: Mapping[str, AxisValue], until_s: float) -> MicroscopeState:
        """Bring axes there and read back. Raises InstrumentFault for one that is not there."""
        before = dict(self._values)
        for name in values:
            self._asked.pop(name, None)  # one that fails may still be on its way, and read anything
        for count, write in enumerate(self._table.writes(values, lambda: self._read_values(until_s))):
            move_s = self._config.stage_move_s if write.endpoint == STAGE else None
            try:
                self._link.put(write.endpoint, write.body, within_s=move_s, until_s=until_s)
            except CommandRefused as error:
                self.read(until_s)
                if count == 0 and not self._missed(before, write.names):
                    raise
                raise InstrumentFault(f"{error}, after something had moved; read the state back") from error
            if write.endpoint == STAGE:
                self._wait_for_stage(until_s)
        state = self.read(until_s)
        if missed := self._missed(values, tuple(values)):
            raise InstrumentFault(f"the server said done, and did not do it: {'; '.join(missed)}; see the microscope")
        self._asked.update(values)
        return state

    def arrange(self, command: AcquireFrame, shot: Shot, wanted: Mapping[str, AxisValue], until_s: float) -> None:
        """Everything of a frame but its exposure, the beam blanked; what stands already is left alone."""
        convergence_mrad = command.optics.semi_convergence_angle_mrad
        if self._capabilities.axis("semi_convergence_angle_mrad"):
            wanted = {**wanted, "semi_convergence_angle_mrad": convergence_mrad}
        if self._tell(shot.settings, until_s):
            self.read(until_s)  # each mode of the projector remembers a magnification of its own
        stale = {name: value for name, value in wanted.items() if self._has(name) and not self._stands(name, value)}
        if stale:
            self.set(stale, until_s)
        self._look_at_camera_length(shot, until_s)
        self._mode, self._convergence_mrad = command.mode, convergence_mrad

    def _read_values(self, until_s: float) -> Mapping[str, AxisValue]:
        self.read(until_s)
        return self._values

    def _missed(self, wanted: Mapping[str, AxisValue], names: tuple[str, ...]) -> list[str]:
        """The axes that were not read back where they should be, in words."""
        now = self._values
        return [
            f"{name} is {now.get(name)} instead of {wanted[name]}"
            for name in names
            if name in wanted and not _is_at(now.get(name), wanted[name], self._allowed_error(name))
        ]

    def _allowed_error(self, name: str) -> float:
        axis = self._capabilities.axis(name)
        return axis.allowed_error if axis is not None else 0.0

    def _wait_for_stage(self, until_s: float) -> None:
        while (status := self._link.get("stage_status", until_s)) != "READY":
            if self._stopped.is_set() or time.monotonic() + _LOOK_S > until_s:
                raise InstrumentFault(
                    f"the stage is {status} at the end of its time, or at a stop; read the state back"
                )
            self._stopped.wait(_LOOK_S)
        if self._config.stage_settle_s:
            self._stopped.wait(self._config.stage_settle_s)

    def _has(self, name: str) -> bool:
        """Whether it is set here; the magnification of a calibrated camera is, without limits of its own."""
        return self._capabilities.axis(name) is not None or name == "magnification_index"

    def _stands(self, name: str, value: AxisValue) -> bool:
        """Whether this was the last thing asked for, and it is still there."""
        return self._asked.get(name) == value and _is_at(self._values.get(name), value, self._allowed_error(name))

    def _tell(self, settings: tuple[Setting, ...], until_s: float) -> bool:
        """Set the detectors up, leaving alone what stands already; whether anything was set.

        Raises InstrumentFault; the beam is off.
        """
        has_changed = False
        try:
            for setting in settings:
                if setting.difference(self._link.get(setting.endpoint, until_s)):
                    self._link.put(setting.endpoint, setting.body, until_s=until_s)
                    has_changed = True
            wrong = [
                difference
                for endpoint, body in together(settings).items()
                if (difference := Setting(endpoint, body).difference(self._link.get(endpoint, until_s)))
            ]
        except (CommandRefused, Unsupported) as error:
            raise InstrumentFault(f"not exposed: {error}, after some were set; see the server") from error
        if wrong:
            raise InstrumentFault(f"not exposed: the server took the settings and reads back {'; '.join(wrong)}")
        return has_changed

    def _look_at_camera_length(self, shot: Shot, until_s: float) -> None:
        """Raise InstrumentFault where the projector is not at the camera length that the facility calibrated."""
        if shot.camera_length_mm is None:
            return
        told_mm = float(self._link.get("indicated_camera_length", until_s)) * _MM_PER_M
        if abs(told_mm - shot.camera_length_mm) > _CAMERA_LENGTH_TOLERANCE * shot.camera_length_mm:
            raise InstrumentFault(
                f"not exposed: the camera length is {told_mm:g} mm instead of {shot.camera_length_mm:g} mm; "
                "see camera_lengths_mm in the configuration"
            )


def _is_at(now: AxisValue | None, wanted: AxisValue, allowed: float) -> bool:
    if now is None or isinstance(now, str) or isinstance(wanted, str):
        return now == wanted
    return abs(now - wanted) <= allowed + 1e-9 * abs(wanted)


def _number(value: AxisValue | None) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)
