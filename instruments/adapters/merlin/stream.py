"""The Merlin's data port during one exposure: the header of it, then frames, each checked; a lost one is said.

Neighbours: `messages` (what a frame looks like), `data_port` (the line), `microscope` (arms and asks).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import numpy as np

from instruments.adapters.clocks import offset_of
from instruments.adapters.merlin.config import PIXEL_BYTES, MerlinConfig
from instruments.adapters.merlin.messages import (
    PREFIX_BYTES,
    FrameHeader,
    acquisition_header,
    frame_header,
    payload_bytes,
    stamped_s,
)
from instruments.commands import AcquireFrame
from instruments.connections import Line, WrongReply
from instruments.errors import AcquisitionFailed
from instruments.state import ClockOffset

_BLOCK_S: Final = 0.1  # of frames that are handed on together, at most
_BLOCK_BYTES: Final = 8 << 20
_HEADER_LIMIT_BYTES: Final = 1 << 20
_BROKEN: Final = (OSError, EOFError, WrongReply)


@dataclass
class Headers:
    """What the headers of an exposure said, for its context."""

    acquisition: dict[str, str] = field(default_factory=dict[str, str])
    first: FrameHeader | None = None
    last: FrameHeader | None = None
    exposure_s: list[float] = field(default_factory=lambda: [float("inf"), 0.0])  # shortest, longest

    def see(self, header: FrameHeader) -> None:
        """Another frame came."""
        self.first = self.first or header
        self.last = header
        self.exposure_s[0] = min(self.exposure_s[0], header.exposure_s)
        self.exposure_s[1] = max(self.exposure_s[1], header.exposure_s)


class FrameStream:
    """The frames of one exposure, from a line on which nothing else waits."""

    def __init__(
        self, line: Line, config: MerlinConfig, command: AcquireFrame, until_s: float, *, is_kept: bool
    ) -> None:
        """With `is_kept` all frames stay together in `kept`."""
        self._line, self._config, self._scan = line, config, command.scan
        self._until_s, self._is_kept = until_s, is_kept
        self.count = command.subframe_count * command.scan.shape_px[0] * command.scan.shape_px[1]
        self.got_count = 0
        self.kept: np.ndarray | None = None  # (frames, rows, columns)
        self.headers = Headers()
        self.clock: ClockOffset | None = None  # the Merlin's, by its stamp on the first frame
        self._begun_s = time.time()
        self._buffer = np.empty(0, np.uint8)  # of a block as it comes, used again

    def begin(self) -> None:
        """The header of the acquisition, after arming. Raises AcquisitionFailed."""
        try:
            self._line.begin(self._within(self._config.first_frame_s))
            size_bytes = payload_bytes(self._line.read_exactly(PREFIX_BYTES))
            if not 0 < size_bytes <= _HEADER_LIMIT_BYTES:
                raise WrongReply(f"a header of {size_bytes} bytes")
            self.headers.acquisition = acquisition_header(self._line.read_exactly(size_bytes))
        except _BROKEN as error:
            raise AcquisitionFailed(f"no header of the acquisition came: {_words(error)}") from error
        announced = self.headers.acquisition.get("Frames in Acquisition (Number)", "")
        if announced.strip() != str(self.count):
            raise AcquisitionFailed(
                f"the Merlin announces {announced or 'no number of'} frames, asked for {self.count}"
            )

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index of its first frame, counts (frames, rows, columns) in this machine's order), to the last frame.

        Raises AcquisitionFailed for frames that are lost, late, cut or of another kind: none is filled in.
        """
        try:
            first = self._first_frame()
            counts = self._handed_on(first)
            self.got_count = 1
            yield 0, counts
            longest = self._frames_in_a_block()
            while self.got_count < self.count:
                frames = self._frames(min(longest, self.count - self.got_count))
                counts = self._handed_on(frames)
                self.got_count += len(frames)
                yield self.got_count - len(frames), counts
        except _BROKEN as error:
            raise AcquisitionFailed(f"after {self.got_count} of {self.count} frames: {_words(error)}") from error

    # --- how

    @property
    def _kind(self) -> FrameHeader:
        assert self.headers.first is not None, "the first frame tells the kind of all"
        return self.headers.first

    def _first_frame(self) -> np.ndarray:
        self._line.begin(self._within(self._config.first_frame_s + self._scan.dwell_time_us * 1e-6))
        prefix = self._line.read_exactly(PREFIX_BYTES)
        size_bytes = payload_bytes(prefix)
        if not 0 < size_bytes <= self._config.max_bytes:
            raise WrongReply(f"a first frame of {size_bytes} bytes")
        frame = np.empty((1, PREFIX_BYTES + size_bytes), np.uint8)
        frame[0, :PREFIX_BYTES] = np.frombuffer(prefix, np.uint8)
        self._line.fill(frame[0, PREFIX_BYTES:].data)
        header = frame_header(frame[0, PREFIX_BYTES:].data)
        if header.shape_px != self._config.shape_px or header.frame_bytes != size_bytes:
            raise WrongReply(
                f"the first frame says {header.shape_px} px, {header.frame_bytes} bytes, and is of {size_bytes} bytes; "
                f"a detector of {self._config.shape_px} px was configured"
            )
        if np.dtype(header.number_type).itemsize != (pixel_bytes := PIXEL_BYTES[self._config.counter_depth]):
            raise WrongReply(
                f"the first frame holds {header.number_type[1:]}, not {pixel_bytes} bytes a pixel, as a depth of "
                f"{self._config.counter_depth} bits gives; see the counter depth in the Merlin's window"
            )
        self._check(header, 0)
        if (told_s := stamped_s(bytes(frame[0, PREFIX_BYTES : PREFIX_BYTES + header.offset_bytes]))) is not None:
            self.clock = offset_of(told_s, self._begun_s, time.time())
        return frame

    def _frames(self, count: int) -> np.ndarray:
        """So many more, each checked; one read for all of them."""
        stride = PREFIX_BYTES + self._kind.frame_bytes
        if self._buffer.size < count * stride:
            self._buffer = np.empty(count * stride, np.uint8)
        frames = self._buffer[: count * stride].reshape(count, stride)
        lines = ceil(count / self._scan.shape_px[1]) + 1
        due_s = count * self._scan.dwell_time_us * 1e-6 + lines * self._scan.flyback_time_us * 1e-6
        self._line.begin(self._within(2 * due_s + self._config.answer_s))
        self._line.fill(frames.reshape(-1).data)
        for number, frame in enumerate(frames):
            if payload_bytes(frame[:PREFIX_BYTES].data) != self._kind.frame_bytes:
                raise WrongReply(f"frame {self.got_count + number + 1} is of another length than those before")
            self._check(frame_header(frame[PREFIX_BYTES:].data), self.got_count + number)
        return frames

    def _check(self, header: FrameHeader, index: int) -> None:
        expected = index + 1
        if header.sequence != expected:
            what = (
                f"frames {expected} to {header.sequence - 1} were lost"
                if header.sequence > expected
                else "out of order"
            )
            raise WrongReply(f"{what}: number {header.sequence} came where {expected} was due; none is filled in")
        self.headers.see(header)
        kind = self._kind
        if (header.shape_px, header.number_type, header.offset_bytes) != (
            kind.shape_px,
            kind.number_type,
            kind.offset_bytes,
        ):
            raise WrongReply(f"frame {expected} is of {header.shape_px} {header.number_type}, the first was not")
        if header.thresholds_ev != kind.thresholds_ev:
            raise WrongReply(f"at frame {expected} the thresholds changed to {header.thresholds_ev} eV")
        wanted_s = (self._scan.dwell_time_us - self._config.gap_us) * 1e-6
        if not abs(header.exposure_s - wanted_s) <= self._config.exposure_tolerance_fraction * wanted_s:  # nor NaN
            raise WrongReply(f"frame {expected} was exposed for {header.exposure_s:g} s instead of {wanted_s:g} s")

    def _handed_on(self, frames: np.ndarray) -> np.ndarray:
        """Their counts, read-only; where they are kept, a part of all."""
        kind, number_type = self._kind, np.dtype(self._kind.number_type).newbyteorder("=")
        if self.kept is None and self._is_kept:
            self.kept = np.empty((self.count, *kind.shape_px), number_type)
        here = slice(self.got_count, self.got_count + len(frames))
        counts = np.empty((len(frames), *kind.shape_px), number_type) if self.kept is None else self.kept[here]
        swapped = np.ascontiguousarray(frames[:, PREFIX_BYTES + kind.offset_bytes :]).view(kind.number_type)
        counts[...] = swapped.reshape(counts.shape)
        counts.flags.writeable = False
        return counts

    def _frames_in_a_block(self) -> int:
        in_time = int(_BLOCK_S / (self._scan.dwell_time_us * 1e-6))
        return max(1, min(in_time, _BLOCK_BYTES // self._kind.frame_bytes))

    def _within(self, wait_s: float) -> float:
        return min(self._until_s, time.monotonic() + wait_s)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "nothing more came in the time that frames take"
    return str(error) or "it hung up"
