"""The `Microscope` over a device tree: refuse first, set, read back, expose once, blank.

Neighbours: `card` says what is refused, `line` calls the devices' processes. Every setting is read back: a device may
say that a refused value was set (Channel Access does).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from instruments.adapters.ophyd.card import card_of, frame_values
from instruments.adapters.ophyd.config import BlankerConfig, DeviceValue, OphydConfig
from instruments.adapters.ophyd.line import DeviceLine
from instruments.adapters.ophyd.readings import (
    BLANKER,
    CURRENT,
    SHIFTS,
    frame_of,
    is_reached,
    raw_counts,
    state_of,
    tolerance,
)
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue, Blank, Command, Park, RunProcedure, SetAxes
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    ResultUnknown,
    Unsupported,
)
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.state import MicroscopeState, unsound

ROWS, COLUMNS = "$rows", "$columns"  # axes of a frame's shape
_KEPT_FRAMES: Final = 4
_STOP_AGAIN_S: Final = 0.05


def open_ophyd(**config: Any) -> OphydMicroscope:
    """Connect a device tree; the keys are those of `OphydConfig`. Raises ConfigurationError, LinkLost."""
    return OphydMicroscope(OphydConfig.checked(config))


class OphydMicroscope:
    """Microscope, Releasable, Linked, TakesDarkFrames and Closable over ophyd or ophyd-async devices."""

    def __init__(self, config: OphydConfig) -> None:
        self._config = config
        self._axes = {**config.axes, ROWS: config.rows, COLUMNS: config.columns}
        self._devices = DeviceLine(config, config.paths())
        self._stop_devices = self._devices
        if config.stop_line == "own":
            self._stop_devices = DeviceLine(config, config.stop_paths() | {one.signal for one in config.stop})
        self._stopped = threading.Event()
        self._gate = threading.Lock()
        self._is_exposing = False
        self._wanted: dict[str, AxisValue] = {}
        self._mode: str | None = None
        self._frames: dict[str, Frame] = {}
        self._begun: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}
        self._opened_s = time.monotonic()
        try:
            with ThreadPoolExecutor(2) as together:
                for started in [together.submit(line.start) for line in (self._devices, self._stop_devices)]:
                    started.result()
            about = self._devices.about()
            self._facts, self._versions = about["facts"], about["versions"]
            self._card = card_of(config, self._facts)
        except BaseException:
            self.close()
            raise

    def capabilities(self) -> Capabilities:
        """As they were when the devices were connected."""
        return self._card

    def read_state(self) -> MicroscopeState:
        """Every axis read from its device now. Raises InstrumentFault for numbers that are none."""
        read = self._read(self._config.axes, self._extra_paths())
        try:
            return state_of(
                read, self._config, self._card, wanted=self._wanted, mode=self._mode, time_s=self._clock_s()
            )
        except ValidationError as error:
            raise unsound(error) from error

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes; read back."""
        match command:
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
            case RunProcedure():
                raise Unsupported(f"instrument {self._card.name!r} has no procedure {command.name!r}; it has none")
            case Blank():
                self._blank(self._blanker(), is_blanked=True)
                return self.read_state()
            case Park():
                self._refuse_after_stop()
                values: dict[str, AxisValue] = dict(
                    zip(SHIFTS, (command.beam_shift_x_nm, command.beam_shift_y_nm), strict=True)
                )
                self._card.check_values(values)
                self._set(values)
                self._stopped.wait(command.duration_s)
                return self.read_state()
            case SetAxes():
                self._refuse_after_stop()
                self._card.check_values(command.values)
                self._set(command.values)
                return self.read_state().with_readings(command.values, self._card)
            case _:
                self._refuse_after_stop()
                self._blank(self._blanker(), is_blanked=False)
                return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once; the last few frames are kept and given again for their action ids."""
        known = self._frames.get(command.action_id)
        if known is not None:
            if known.requested != command:
                raise CommandRefused(f"action {command.action_id} was another command; give a new one a new action id")
            return known
        if command.action_id in self._begun:
            raise AcquisitionFailed(
                f"action {command.action_id} was exposed before, and its frame is not kept any more"
            )
        started_s = self._clock_s()
        try:
            self._prepare(command)
        except InstrumentError:
            self._outcomes[command.action_id] = "not_started"
            raise
        self._begun.add(command.action_id)
        self._outcomes[command.action_id] = "unknown"
        frame = self._frame(command, started_s, self._exposed(command))
        self._frames[command.action_id] = frame
        self._outcomes[command.action_id] = "delivered"
        self._forget_old()
        return frame

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """The same detectors for the same time, the blanker never opened; kept by nobody. Raises Unsupported."""
        blanker, started_s = self._blanker(), self._clock_s()
        self._prepare(command)
        frame = self._frame(command, started_s, self._exposed(command, blanker.blanked))
        return replace(frame, electrons=0.0, dose_e_per_a2=0.0)

    @property
    def is_exposing(self) -> bool:
        """Whether the beam may be on for a frame."""
        return self._is_exposing

    def outcome(self, action_id: str) -> Outcome:
        """Unknown for what this process did not see: another may have exposed it before."""
        return self._outcomes.get(action_id, "unknown")

    def stop(self) -> None:
        """Blank and stop the devices, beside whatever runs. Raises InstrumentFault where it is not confirmed dark."""
        with self._gate:
            self._stopped.set()
        until_s = time.monotonic() + self._config.stop_latency_s
        try:
            self._stop_devices.stop()
        except InstrumentError:
            if self._is_exposing:
                self._devices.abandon()  # the exposure must not be waited for, whatever the beam does
            raise
        while self._is_exposing and time.monotonic() < until_s:  # it may have been about to unblank
            time.sleep(_STOP_AGAIN_S)
            self._stop_devices.stop()
        if self._is_exposing and self._config.can_interrupt:
            self._devices.abandon()
            self._stop_devices.stop()

    def release(self) -> None:
        """Go on after `stop`; the beam stays blanked until a frame is taken."""
        if self._config.blanker is not None:
            self._blank(self._config.blanker, is_blanked=True)
        self._stopped.clear()

    def is_link_lost(self) -> bool:
        """Whether the last call found nobody there, or got no answer."""
        return self._devices.is_lost

    def reconnect(self) -> None:
        """Connect the devices anew where their process was ended; nothing is sent to them. Raises LinkLost."""
        self._devices.start()
        self._stop_devices.start()

    def close(self) -> None:
        """End the devices' processes, which blank as they leave; more than once is harmless."""
        self._devices.close()
        self._stop_devices.close()

    # --- setting and reading

    def _set(self, values: Mapping[str, AxisValue]) -> None:
        """Set these axes, settle, and compare what is read back. Raises CommandRefused, InstrumentFault, LinkLost."""
        axes = {name: self._axes[name] for name in values}
        pairs = [[axis.signal, axis.to_device(values[name])] for name, axis in axes.items() if axis.signal]
        if not pairs:
            return
        for name in values:
            self._wanted.pop(name, None)
        paths = {name: path for name, axis in axes.items() if (path := axis.read_path)}
        settle_s = max(axis.settle_s for axis in axes.values())
        answer = self._devices.call(
            "set", self._config.set_s + settle_s, values=pairs, read=sorted({*paths.values()}), settle_s=settle_s
        )
        read = {name: self._axes[name].to_house(answer["values"][path]) for name, path in paths.items()}
        if wrong := [
            fault for name in read if (fault := self._not_reached(name, values[name], read, answer["faults"]))
        ]:
            raise InstrumentFault("; ".join(wrong))
        self._wanted |= values

    def _not_reached(
        self, name: str, value: AxisValue, read: Mapping[str, AxisValue], faults: Mapping[str, str]
    ) -> str | None:
        if is_reached(self._card, name, value, read[name]):
            return None
        signal = self._axes[name].signal or ""
        said = f" ({faults[signal]})" if signal in faults else ""
        return (
            f"{name} was set to {value} and reads {read[name]}, more than {tolerance(self._card, name):g} away{said}; "
            f"see whether {signal} was refused there, or moves too slowly"
        )

    def _read(self, names: Iterable[str], extra: Mapping[str, str] | None = None) -> dict[str, AxisValue]:
        """Axes in house units, by name; and the device's values at the paths of `extra`."""
        axes, others = {name: self._axes[name] for name in names}, extra or {}
        paths = {name: path for name, axis in axes.items() if (path := axis.read_path)}
        values: dict[str, DeviceValue] = self._devices.call(
            "read", self._config.answer_s, paths=sorted({*paths.values(), *others.values()})
        )
        read = {name: self._axes[name].to_house(values[path]) for name, path in paths.items()}
        read |= {name: axis.fixed for name, axis in axes.items() if axis.fixed is not None}
        return read | {name: values[path] for name, path in others.items()}

    def _extra_paths(self) -> dict[str, str]:
        blanker, current = self._config.blanker, self._config.measured_current_pa
        paths = {BLANKER: blanker.readback or blanker.signal} if blanker else {}
        if current is not None and current.read_path:
            paths[CURRENT] = current.read_path
        return paths

    # --- exposing

    def _prepare(self, command: AcquireFrame) -> None:
        """All that comes before the beam. Raises what refuses the frame, and what a move may."""
        values = frame_values(command, self._config, self._card, self._facts)
        self._refuse_after_stop()
        self._stop_devices.start()  # nothing is exposed that cannot be stopped
        self._arrange(command, values)

    def _arrange(self, command: AcquireFrame, values: dict[str, AxisValue]) -> None:
        """Blank, then bring to its value every axis that does not stand there since it was last sent there."""
        if self._config.blanker is not None:
            self._blank(self._config.blanker, is_blanked=True)
        shape = dict(zip((ROWS, COLUMNS), map(float, command.scan.shape_px), strict=True))
        wanted = values | {name: count for name, count in shape.items() if self._axes[name].signal}
        read = self._read(wanted)
        self._set({name: value for name, value in wanted.items() if not self._stands(name, value, read)})

    def _stands(self, name: str, value: AxisValue, read: dict[str, AxisValue]) -> bool:
        return self._wanted.get(name) == value and is_reached(self._card, name, value, read.get(name))

    def _exposed(self, command: AcquireFrame, blanked: DeviceValue | None = None) -> dict[str, Any]:
        """What the devices say of an exposure; with the blanker at `blanked` instead of open, of a dark one."""
        mode = self._config.modes[command.mode]
        blanker = self._config.blanker
        dark = [[blanker.signal, blanker.blanked]] if blanker else []
        lit = [[blanker.signal, blanker.unblanked if blanked is None else blanked]] if blanker else []
        with self._gate:
            self._refuse_after_stop()
            self._is_exposing = True
        try:
            return self._devices.call(
                "expose", command.deadline_s, trigger=mode.trigger, trigger_value=mode.trigger_value,
                images=mode.images, counter=mode.frame_counter, before=lit, after=dark,
            )  # fmt: skip
        except (LinkLost, InstrumentFault, CommandRefused) as error:
            raise self._lost(command, error) from error
        finally:
            self._is_exposing = False

    def _lost(self, command: AcquireFrame, error: InstrumentError) -> InstrumentError:
        """What an exposure without a frame is called; the beam is taken off on the other line first."""
        try:
            self._stop_devices.stop()
        except InstrumentError as fault:
            return InstrumentFault(f"action {command.action_id}: {error}; and the beam is not confirmed off: {fault}")
        if self._stopped.is_set():
            return AcquisitionFailed(f"action {command.action_id} was stopped; its dose counts as spent ({error})")
        if isinstance(error, LinkLost):
            return ResultUnknown(f"action {command.action_id} was begun and got no answer: {error}")
        return AcquisitionFailed(f"action {command.action_id} was exposed and gave no frame: {error}")

    def _frame(self, command: AcquireFrame, started_s: float, answer: dict[str, Any]) -> Frame:
        self._mode = command.mode
        if self._stopped.is_set():
            raise AcquisitionFailed(f"action {command.action_id} was stopped; its dose counts as spent")
        mode = self._config.modes[command.mode]
        counts = {name: raw_counts(name, answer["images"][name], mode, command) for name in mode.images}
        state = self.read_state()
        if self._config.blanker is not None and not state.beam_blanked:
            raise InstrumentFault(f"after action {command.action_id} the blanker reads open; stop, and look")
        return frame_of(
            command, counts, state, self._config,
            times=answer, versions=self._versions, started_s=started_s,
        )  # fmt: skip

    def _forget_old(self) -> None:
        for action_id in list(self._frames)[:-_KEPT_FRAMES]:
            del self._frames[action_id]
            self._outcomes[action_id] = "unknown"

    # --- the beam

    def _blanker(self) -> BlankerConfig:
        if self._config.blanker is None:
            raise Unsupported(f"instrument {self._card.name!r} has no blanker")
        return self._config.blanker

    def _blank(self, blanker: BlankerConfig, *, is_blanked: bool) -> None:
        value = blanker.blanked if is_blanked else blanker.unblanked
        path = blanker.readback or blanker.signal
        answer = self._devices.call(
            "set", self._config.answer_s, values=[[blanker.signal, value]], read=[path], settle_s=0.0
        )
        if (now := answer["values"][path]) != value:
            said = "; ".join(answer["faults"].values()) or "the device said nothing"
            raise InstrumentFault(f"the blanker was set to {value!r} and reads {now!r} ({said}); assume the beam on")

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("stopped, the beam blanked; nothing is done before somebody lets it go on")

    def _clock_s(self) -> float:
        return time.monotonic() - self._opened_s
