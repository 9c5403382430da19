"""A guarded microscope as Bluesky devices: its axes can be moved, its frames read, a list of frames flown through.

A plan (`count`, `grid_scan`, `list_scan`) then runs on any instrument, and nothing of it goes round the guard. Devices
fulfil Bluesky's protocols by their shape; Bluesky itself is imported only where a run is paused. Neighbours:
`bluesky_status`, `bluesky_documents`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from instruments.adapters.bluesky_documents import Documents
from instruments.adapters.bluesky_status import FutureStatus
from instruments.axes import FRAME_ONLY, axis_values
from instruments.capabilities import Axis
from instruments.commands import AcquireFrame, AxisValue, SetAxes
from instruments.deadlines import deadline_for
from instruments.errors import CommandRefused, Unsupported
from instruments.frames import Frame
from instruments.guards import GuardedMicroscope

T = TypeVar("T")
Keep = Callable[[Frame], Path]
"""Stores a frame and says where; documents then carry its path instead of its counts."""
_PARTS = ("stage", "optics", "scan")


class BlueskyMicroscope:
    """The devices of one guarded microscope: `frames` to read, `axis(name)` to move, `flyer(points)` to fly.

    `template` is the frame that is taken where nothing was moved: mode, optics, scan; its action id is not used. One
    thread owns the microscope; `close` lets it go.
    """

    def __init__(
        self, guarded: GuardedMicroscope, template: AcquireFrame, *, name: str = "microscope", keep: Keep | None = None
    ) -> None:
        if not isinstance(guarded, GuardedMicroscope):  # pyright: ignore[reportUnnecessaryIsInstance]  plans are written in notebooks
            raise TypeError(f"a plan runs through the guard: wrap the {type(guarded).__name__} in GuardedMicroscope")
        self.name = name
        self._guarded = guarded
        self._capabilities = guarded.capabilities()
        self._keep = keep
        self._template = template
        self._run_id = token_hex(4)
        self._count = 0
        self._guard = threading.Lock()
        self._owner = ThreadPoolExecutor(1, thread_name_prefix=f"bluesky {name}")
        self.documents = Documents(name, self._capabilities, guarded.envelope)
        self._axes: dict[str, MovableAxis] = {}
        self.frames = FrameDetector(self)

    def axis(self, name: str) -> MovableAxis:
        """The device that moves this axis of the instrument, one and the same whenever asked. Raises Unsupported."""
        axis = self._capabilities.axis(name)
        if axis is None:
            known = ", ".join(one.name for one in self._capabilities.axes)
            raise Unsupported(f"instrument {self._capabilities.name!r} has no axis {name!r}; it has {known}")
        return self._axes.setdefault(name, MovableAxis(self, axis))

    def flyer(self, points: Sequence[Mapping[str, float]]) -> FrameFlyer:
        """A device that takes one frame at each of these points (axis name -> value) without the plan between them."""
        return FrameFlyer(self, points)

    def close(self) -> None:
        """Let the owner's thread end; the microscope stays as it is."""
        self._owner.shutdown()

    def stop(self) -> None:
        """Blank and interrupt; from any thread."""
        self._guarded.stop()

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Let the owner's thread do it, after what it was given before."""
        return self._owner.submit(call)

    def command(self, changes: Mapping[str, AxisValue]) -> AcquireFrame:
        """The frame that would be taken now, with these axes elsewhere. Raises CommandRefused."""
        with self._guard:
            self._count += 1
            action_id = f"bluesky-{self._run_id}-{self._count}"
            command = _changed(self._template, changes)
        deadline_s = deadline_for(command, self._capabilities)
        return command.model_copy(update={"action_id": action_id, "deadline_s": deadline_s})

    def check(self, points: Sequence[Mapping[str, AxisValue]]) -> None:
        """Raises CommandRefused for the first frame that the guard would refuse now; nothing moves."""
        for point in points:
            self._guarded.check(self.command(point))

    def take(self, changes: Mapping[str, AxisValue]) -> tuple[Frame, Path | None]:
        """One frame through the guard, and where it was kept; in the owner's thread."""
        frame = self._guarded.acquire(self.command(changes))
        return frame, None if self._keep is None else self._keep(frame)

    def move(self, name: str, value: AxisValue) -> AxisValue | None:
        """Set an axis through the guard and say what was read back; one that comes with frames is checked in one."""
        with self._guard:
            wanted = _changed(self._template, {name: value}, may_lack=True)
        read_back: AxisValue | None = value
        if name in FRAME_ONLY:
            self._guarded.check(self.command({name: value}))
        else:
            command = SetAxes(action_id=f"bluesky-{self._run_id}-{name}-{token_hex(4)}", values={name: value})
            command = command.model_copy(update={"deadline_s": deadline_for(command, self._capabilities)})
            read_back = self._guarded.execute(command).axes[name].read_back
        with self._guard:
            self._template = wanted
        return read_back

    def stands_at(self, name: str) -> AxisValue | None:
        """Where frames will be taken, or, for an axis that no frame names, what is read back now."""
        with self._guard:
            values = axis_values(self._template)
        return values[name] if name in values else self.begin(self._guarded.read_state).result().axis_value(name)


def _changed(template: AcquireFrame, changes: Mapping[str, AxisValue], *, may_lack: bool = False) -> AcquireFrame:
    """The frame with these values in it. Raises CommandRefused for what no frame has, pydantic's for a wrong number."""
    document = template.model_dump()
    for name, value in changes.items():
        places = [document[part] for part in _PARTS] + [document["optics"]["aberrations"], document]
        place = next((place for place in places if name in place), None)
        if place is not None:
            place[name] = int(value) if name == "subframe_count" else value
        elif name == "pixel_size_nm":
            document["scan"]["field_of_view_nm"] = float(value) * document["scan"]["shape_px"][1]
        elif not may_lack:
            raise CommandRefused(f"{name} does not come with a frame; move it with the device of that axis")
    return AcquireFrame.model_validate(document)


class MovableAxis:
    """One axis: Movable, Readable, Checkable and Locatable for Bluesky."""

    parent = None

    def __init__(self, microscope: BlueskyMicroscope, axis: Axis) -> None:
        self._microscope = microscope
        self._axis = axis
        self.name = f"{microscope.name}_{axis.name}".replace(".", "_")
        self._setpoint: AxisValue | None = None
        self._read_back: AxisValue | None = None

    @property
    def hints(self) -> dict[str, Any]:
        """What plots show."""
        return {"fields": [self.name]}

    @property
    def position(self) -> AxisValue | None:
        """Where it was read back last, or stands for the next frame."""
        return self._microscope.stands_at(self._axis.name) if self._read_back is None else self._read_back

    @property
    def limits(self) -> tuple[float, float]:
        """(lowest, highest), those of the instrument; the facility's may be narrower."""
        return self._axis.minimum, self._axis.maximum

    def check_value(self, value: AxisValue) -> None:
        """Raises CommandRefused for what the instrument cannot; moves nothing."""
        if refusal := self._axis.refusal(value):
            raise CommandRefused(refusal)

    def set(self, value: AxisValue) -> FutureStatus:
        """Move there through the guard; a refusal, or a read-back elsewhere, is the status' exception."""
        wanted = value if isinstance(value, str) else float(value)

        def move() -> None:
            self.check_value(wanted)
            self._read_back = self._microscope.move(self._axis.name, wanted)
            self._setpoint = wanted

        return FutureStatus(self._microscope.begin(move))

    def locate(self) -> dict[str, Any]:
        """Set point and read-back."""
        position = self.position
        return {"setpoint": position if self._setpoint is None else self._setpoint, "readback": position}

    def stop(self, *, success: bool = False) -> None:
        """Blank, if the plan failed; Bluesky calls this with `success` at the end of every run, and then nothing is."""
        if not success:
            self._microscope.stop()

    def read(self) -> dict[str, Any]:
        """Read-back and set point."""
        return {
            self.name: {"value": self.position, "timestamp": time.time()},
            f"{self.name}_setpoint": {"value": self.locate()["setpoint"], "timestamp": time.time()},
        }

    def describe(self) -> dict[str, Any]:
        """Number or word, and its unit."""
        return self._microscope.documents.axis_keys(self.name, self._axis)

    def read_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class FrameDetector:
    """The microscope's frames: Readable, Triggerable, Stageable and Pausable for Bluesky."""

    parent = None

    def __init__(self, microscope: BlueskyMicroscope) -> None:
        self._microscope = microscope
        self.name = microscope.name
        self._taken: Future[tuple[Frame, Path | None]] | None = None

    @property
    def hints(self) -> dict[str, Any]:
        """Mean counts of the detectors read together."""
        return {"fields": self._microscope.documents.mean_names(self._microscope.command({}).mode)}

    def stage(self) -> list[Any]:
        """Nothing is prepared: each frame is a command of its own."""
        self._taken = None
        return [self]

    def unstage(self) -> list[Any]:
        """A plan that ends during an exposure takes its beam off."""
        if self._taken is not None and not self._taken.done():
            self._microscope.stop()
        return [self]

    def trigger(self) -> FutureStatus:
        """Take one frame where the axes stand; never another for the same trigger."""
        self._taken = self._microscope.begin(lambda: self._microscope.take({}))
        return FutureStatus(self._taken)

    def pause(self) -> None:
        """A paused run goes on where it was: Bluesky would else go back to a checkpoint and expose again."""
        from bluesky.utils import NoReplayAllowed

        raise NoReplayAllowed("an exposure is never repeated")

    def resume(self) -> None:
        """Nothing to do: what was begun is waited for."""

    def read(self) -> dict[str, Any]:
        """The last frame: counts or path, and all that made it. Waits for one that is being taken."""
        return self._microscope.documents.reading(*self._frame())

    def describe(self) -> dict[str, Any]:
        """What `read` gives."""
        return self._microscope.documents.frame_keys(*self._frame())

    def read_configuration(self) -> dict[str, Any]:
        """Instrument, mode, and the limits in force."""
        return self._microscope.documents.configuration(self._microscope.command({}).mode)

    def describe_configuration(self) -> dict[str, Any]:
        """What `read_configuration` gives."""
        return self._microscope.documents.configuration_keys()

    def _frame(self) -> tuple[Frame, Path | None]:
        if self._taken is None:
            raise CommandRefused(f"{self.name} has no frame yet; trigger it first")
        return self._taken.result()


class FrameFlyer:
    """A list of frames taken one after another: Flyable and EventCollectable for Bluesky."""

    parent = None

    def __init__(self, microscope: BlueskyMicroscope, points: Sequence[Mapping[str, float]]) -> None:
        self._microscope = microscope
        self.name = f"{microscope.name}_flyer"
        self._points = [dict(point) for point in points]
        self._taken: list[tuple[Frame, Path | None]] = []
        self._flight: Future[None] | None = None
        self._is_ended = threading.Event()

    def kickoff(self) -> FutureStatus:
        """Begin. Done when the guard found nothing to refuse in any of the frames; else none is taken."""
        self._taken, self._is_ended = [], threading.Event()
        checked = self._microscope.begin(lambda: self._microscope.check(self._points))
        self._flight = self._microscope.begin(lambda: self._fly(checked))
        return FutureStatus(checked)

    def complete(self) -> FutureStatus:
        """Done with the last frame, or with the error of the first that failed: none is taken after it."""
        if self._flight is None:
            raise CommandRefused(f"{self.name} was not kicked off")
        return FutureStatus(self._flight)

    def collect(self) -> Iterator[dict[str, Any]]:
        """One event for each frame that was taken."""
        for frame, path in self._taken:
            reading = self._microscope.documents.reading(frame, path)
            yield {
                "time": time.time(),
                "data": {key: one["value"] for key, one in reading.items()},
                "timestamps": {key: one["timestamp"] for key, one in reading.items()},
            }

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """The stream of frames."""
        keys = self._microscope.documents.frame_keys(*self._taken[0]) if self._taken else {}
        return {self._microscope.name: keys}

    def stop(self, *, success: bool = False) -> None:
        """No frame after the one that runs; if the plan failed, not even that one."""
        self._is_ended.set()
        if not success:
            self._microscope.stop()

    def _fly(self, checked: Future[None]) -> None:
        checked.result()
        for point in self._points:
            if self._is_ended.is_set():
                return
            self._taken.append(self._microscope.take(point))
