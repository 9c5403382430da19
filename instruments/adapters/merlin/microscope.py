"""The Merlin and the instrument that scans as one microscope: arm the detector, scan, take every frame that comes.

Mode `patterns` gives all counts, (sub-frames, rows, columns, detector rows, detector columns); mode `virtual` sums them
in rings while they come and keeps no pattern. Neighbours: `control`, `stream`, `card`.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any, Final

import numpy as np

from instruments import registry
from instruments.adapters.clocks import with_clocks
from instruments.adapters.merlin.card import PATTERNS, capabilities_of
from instruments.adapters.merlin.config import DETECTOR, PIXEL_BYTES, MerlinConfig
from instruments.adapters.merlin.control import MerlinControl, settings_of
from instruments.adapters.merlin.data_port import DataPort
from instruments.adapters.merlin.stream import FrameStream
from instruments.axes import axis_values
from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import (
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentError,
    InstrumentFault,
    ResultUnknown,
    Unsupported,
)
from instruments.frames import Frame
from instruments.microscope import Closable, Linked, Microscope, Outcome, Releasable
from instruments.optics import Optics
from instruments.patterns import PatternBlock, PatternFeed, PatternSums
from instruments.scans import StagePosition
from instruments.state import MicroscopeState

_NOTHING_MOVED: Final = (CommandRefused, Unsupported)
_STOPPED: Final = "stopped; release it, or open it again, after a person has looked"
_ALONE: Final[dict[str, str]] = dict.fromkeys(
    (
        "stage", "optics", "beam_shift_x_nm", "beam_shift_y_nm", "beam_blanked", "measured_current_pa", "coherence",
    ),
    "a Merlin alone sees nothing of the microscope",
)  # fmt: skip
_DECLARED: Final = (
    "beam_energy_ev", "semi_convergence_angle_mrad", "probe_current_pa", "camera_length_mm", "field_of_view_nm",
    "pixel_size_nm", "dwell_time_us", "flyback_time_us", "subframe_count",
)  # fmt: skip
log = logging.getLogger(__name__)


def open_merlin(**config: Any) -> MerlinMicroscope:
    """Connect to a Merlin, and open the instrument that scans; the keys are those of `MerlinConfig`.

    Raises ConfigurationError, LinkLost, and what opening the scanning instrument raises.
    """
    checked = MerlinConfig.checked(config)
    column = registry.open(checked.column.adapter, **checked.column.config) if checked.column else None
    try:
        return MerlinMicroscope(checked, column)
    except BaseException:
        if isinstance(column, Closable):
            column.close()
        raise


class MerlinMicroscope:
    """Microscope, Streaming, Releasable, Linked and Closable; all calls from one thread, `stop` from any."""

    def __init__(self, config: MerlinConfig, column: Microscope | None = None) -> None:
        """`column` moves, scans and blanks the beam; it is closed with this one."""
        self._config, self._column = config, column
        try:
            self._capabilities = capabilities_of(config, column.capabilities() if column else None)
        except ValueError as error:
            raise ConfigurationError(f"merlin configuration: {error}") from error
        self._control = MerlinControl(config)
        self._scanning = ThreadPoolExecutor(1, "merlin-scan")
        self._feed = PatternFeed()
        self._opened_s = time.monotonic()
        self._stopped = Event()
        self._kept: OrderedDict[str, Frame] = OrderedDict()
        self._outcomes: dict[str, Outcome] = {}
        try:
            self._told = self._control.check_detector()
            self._data = DataPort(config)
        except BaseException:
            self._control.close()
            self._scanning.shutdown()
            raise

    @property
    def patterns(self) -> PatternFeed:
        """Blocks of whatever exposure runs, in both modes."""
        return self._feed

    def capabilities(self) -> Capabilities:
        """Those of the scanning instrument, with the Merlin's modes."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """That of the scanning instrument; alone, what a detector can say: that it answers."""
        if self._column is not None:
            return self._column.read_state()
        self._control.get("DETECTORSTATUS")
        return self._alone(None)

    def execute(self, command: Command) -> MicroscopeState:
        """By the scanning instrument. Raises Unsupported where there is none."""
        if isinstance(command, AcquireFrame):
            raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
        if self._column is not None:
            return self._column.execute(command)
        match command:
            case SetAxes():
                self._capabilities.check_values(command.values)
            case RunProcedure():
                raise Unsupported(f"a Merlin has no procedure {command.name!r}")
            case Park() | Blank() | Unblank():
                pass
        raise Unsupported(f"{command.kind}: a Merlin alone does not move or blank the beam; do it at the microscope")

    def acquire(self, command: AcquireFrame) -> Frame:
        """Arm, scan, take all frames; or give the last frame again, without exposing, for the action that made it.

        Raises CommandRefused and Unsupported before anything moves, AcquisitionFailed for frames that are lost or
        wrong, ResultUnknown, LinkLost, InstrumentFault.
        """
        if known := self._kept.get(command.action_id):
            if known.requested != command:
                raise CommandRefused(f"action {command.action_id} was another command; give each its own id")
            return known
        if self._outcomes.get(command.action_id) == "unknown":
            raise AcquisitionFailed(
                f"action {command.action_id} was begun before, and its frame is not here; not repeated"
            )
        self._outcomes[command.action_id] = "not_started"
        mode = self._checked(command)
        started_s, until_s = self._now_s(), time.monotonic() + command.deadline_s
        with self._armed(command, mode, until_s) as stream:
            scan = self._begin_scan(command)
            try:
                counts = self._received(command, mode, stream)
                scanned = self._end_of(scan, until_s)
            except InstrumentError as error:
                self._feed.end(str(error))
                reason = self._given_up(scan, error, until_s)
                if isinstance(reason, _NOTHING_MOVED):
                    self._outcomes[command.action_id] = "not_started"
                raise reason from error
        frame = self._frame(command, mode, counts, scanned, stream, started_s)
        self._keep(frame)
        return frame

    def outcome(self, action_id: str) -> Outcome:
        """What this opening of the instrument knows; the Merlin remembers nothing, so `unknown` for all others."""
        if action_id not in self._outcomes and self._column is not None:
            return self._column.outcome(action_id)
        return self._outcomes.get(action_id, "unknown")

    def stop(self) -> None:
        """Blank (where something here can), then end the detector's acquisition; nothing is exposed until `release`."""
        self._stopped.set()
        try:
            if self._column is not None:
                self._column.stop()
        finally:
            self._control.break_off()
            self._data.drop()
            self._control.stop()

    def release(self) -> None:
        """Take frames again."""
        if isinstance(self._column, Releasable):
            self._column.release()
        self._control.stop()
        self._stopped.clear()

    def is_link_lost(self) -> bool:
        """Whether the Merlin, or the scanning instrument, did not answer the last call."""
        return self._control.is_lost or (isinstance(self._column, Linked) and self._column.is_link_lost())

    def reconnect(self) -> None:
        """Connect anew to what was lost; nothing else is sent. Raises LinkLost."""
        if isinstance(self._column, Linked) and self._column.is_link_lost():
            self._column.reconnect()
        if self._control.is_lost:
            self._control.reconnect()

    def close(self) -> None:
        """Hang up; the beam stays as it is."""
        self._data.drop()
        self._control.close()
        if isinstance(self._column, Closable):
            self._column.close()
        self._scanning.shutdown()

    # --- before

    def _checked(self, command: AcquireFrame) -> Mode:
        if self._stopped.is_set():
            raise InstrumentFault(_STOPPED)
        card, values = self._capabilities, axis_values(command)
        mode = card.mode(command.mode)
        if mode is None:
            raise CommandRefused(f"mode {command.mode!r} is none of {', '.join(one.name for one in card.modes)}")
        missing = [name for name, value in values.items() if value and card.axis(name) is None]
        if self._column is None and (others := [name for name in missing if name not in _DECLARED]):
            raise Unsupported(f"a Merlin alone has no {', '.join(others)}; leave it at 0, and set it at the microscope")
        said = [axis.refusal(values[axis.name]) for axis in card.axes if axis.name in values]
        if refusals := [text for text in said if text]:
            raise CommandRefused("; ".join(refusals))
        if command.scan.at_once or min(command.scan.shape_px) < 1:
            raise CommandRefused("a Merlin is read at every pixel of a scan: at_once false, shape_px from 1")
        pixels = command.subframe_count * int(np.prod((*command.scan.shape_px, *self._config.shape_px), dtype=np.int64))
        size_bytes = pixels * PIXEL_BYTES[self._config.counter_depth]
        if mode.name == PATTERNS and size_bytes > self._config.max_bytes:
            raise CommandRefused(
                f"patterns of {size_bytes} bytes are above max_bytes {self._config.max_bytes}; take a smaller scan, or "
                "mode virtual"
            )
        return mode

    @contextmanager
    def _armed(self, command: AcquireFrame, mode: Mode, until_s: float) -> Iterator[FrameStream]:
        """The Merlin waiting for triggers, its frames coming here; disarmed and hung up if anything goes wrong."""
        self._control.set(settings_of(command, self._config))
        line, discarded_bytes = self._data.ready(self._stopped)
        if discarded_bytes:
            log.warning("the Merlin had sent %d bytes that nobody asked for; read away", discarded_bytes)
        stream = FrameStream(line, self._config, command, until_s, is_kept=mode.name == PATTERNS)
        is_done = False
        try:
            if self._stopped.is_set():
                raise InstrumentFault(_STOPPED)
            self._outcomes[command.action_id] = "unknown"
            self._control.arm()
            stream.begin()
            yield stream
            is_done = True
        finally:
            if not is_done:
                self._feed.end("the exposure ended before its last frame")
                self._data.drop()
                self._disarm()

    def _disarm(self) -> None:
        try:
            self._control.stop()
        except InstrumentError as error:  # what went wrong before it says more
            log.warning("the Merlin was not disarmed: %s", error)

    # --- meanwhile

    def _begin_scan(self, command: AcquireFrame) -> Future[Frame] | None:
        """The scan in a thread of its own; one that fails ends the wait for frames."""
        scan: Future[Frame] | None = None
        if self._column is not None and self._config.column is not None:
            column, part = self._column, command.model_copy(update={"mode": self._config.column.mode})
            scan = self._scanning.submit(lambda: column.acquire(part))
            scan.add_done_callback(lambda ended: self._data.drop() if ended.exception() else None)
        if self._config.trigger == "software":
            self._control.soft_trigger()
        return scan

    def _received(self, command: AcquireFrame, mode: Mode, stream: FrameStream) -> dict[str, np.ndarray]:
        """Counts by detector, as `Frame` wants them."""
        regions = self._regions(mode)
        sums = PatternSums(stream.count, self._config.shape_px, regions)
        for first, counts in stream.blocks():
            self._feed.publish(PatternBlock(command.action_id, first, stream.count, counts))
            if regions:
                sums.add(first, counts)
        self._feed.end()
        shape = (command.subframe_count, *command.scan.shape_px)
        if stream.kept is not None:
            return {DETECTOR: stream.kept.reshape(*shape, *self._config.shape_px)}
        return {name: sums.image(name).reshape(shape) for name in regions}

    def _regions(self, mode: Mode) -> dict[str, np.ndarray]:
        geometry = self._config.geometry
        if mode.name == PATTERNS or geometry is None:
            return {}
        return {name: geometry.ring(ring.inner_mrad, ring.outer_mrad) for name, ring in self._config.rings.items()}

    # --- after

    def _given_up(self, scan: Future[Frame] | None, error: InstrumentError, until_s: float) -> InstrumentError:
        """What is to be raised. A scan that still runs is ended, for it would burn for nothing."""
        if self._stopped.is_set():
            return InstrumentFault(f"{_STOPPED}: {error}")
        if scan is None or self._column is None:
            return error
        is_ours = not scan.done()
        if is_ours:
            self._column.stop()
        try:
            self._end_of(scan, until_s)
        except InstrumentError as ending:
            if not is_ours:
                return ending  # why no frames came
            log.info("the scan was ended: %s", ending)
        if is_ours and isinstance(self._column, Releasable) and not self._stopped.is_set():
            self._column.release()
        return error

    def _end_of(self, scan: Future[Frame] | None, until_s: float) -> Frame | None:
        if scan is None:
            return None
        try:
            return scan.result(max(until_s - time.monotonic(), self._config.answer_s))
        except TimeoutError as error:
            raise ResultUnknown(
                "the Merlin has all its frames, and the scan does not end; assume that the beam is on"
            ) from error

    def _frame(
        self,
        command: AcquireFrame,
        mode: Mode,
        counts: Mapping[str, np.ndarray],
        scanned: Frame | None,
        stream: FrameStream,
        started_s: float,
    ) -> Frame:
        context = {"merlin": self._context(stream)}
        clocks = {} if stream.clock is None else {DETECTOR: stream.clock}
        if scanned is not None:
            return replace(
                scanned,
                requested=command,
                mode=mode,
                counts={**counts, **scanned.counts},
                state=with_clocks(scanned.state.model_copy(update={"mode": mode.name}), clocks),
                instrument=self._capabilities.name,
                simulated=self._capabilities.simulated,
                context={**scanned.context, **context},
            )
        state = with_clocks(self._alone(mode.name), clocks, "this Merlin's software stamps frames without a time zone")
        return Frame(
            action_id=command.action_id, requested=command, state=state, mode=mode, counts=dict(counts),
            pixel_size_nm=command.scan.pixel_size_nm, dose_e_per_a2=0.0, electrons=0.0, started_s=started_s,
            ended_s=state.time_s, instrument=self._capabilities.name, simulated=self._config.simulated, context=context,
        )  # fmt: skip

    def _context(self, stream: FrameStream) -> dict[str, Any]:
        """What the detector said of itself and of this exposure."""
        headers, geometry = stream.headers, self._config.geometry
        assert headers.first is not None
        assert headers.last is not None
        return {
            "detector": self._told,
            "acquisition": headers.acquisition,
            "frame_count": stream.got_count,
            "first_frame_at": headers.first.taken_at,
            "last_frame_at": headers.last.taken_at,
            "thresholds_ev": list(headers.first.thresholds_ev),
            "shortest_exposure_s": headers.exposure_s[0],
            "longest_exposure_s": headers.exposure_s[1],
            "counter_depth": self._config.counter_depth,
            "geometry": geometry.model_dump(mode="json") if geometry else None,
            "calibration_id": self._config.calibration_id,
            "trigger": self._config.trigger,
        }

    def _alone(self, mode: str | None) -> MicroscopeState:
        return MicroscopeState(
            time_s=self._now_s(),
            stage=StagePosition(),
            optics=Optics(beam_energy_ev=1.0, semi_convergence_angle_mrad=0.0),
            beam_blanked=False,
            mode=mode,
            undetermined=_ALONE if mode else {**_ALONE, "mode": "nothing was exposed yet"},
        )

    def _keep(self, frame: Frame) -> None:
        """The last one only: patterns are large."""
        for forgotten in self._kept:
            self._outcomes[forgotten] = "unknown"
        self._kept.clear()
        self._kept[frame.action_id] = frame
        self._outcomes[frame.action_id] = "delivered"

    def _now_s(self) -> float:
        return time.monotonic() - self._opened_s
