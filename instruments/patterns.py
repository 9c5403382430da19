"""Diffraction patterns of a scan as they arrive: blocks, who reads them, and the images made of them in whole numbers.

Sums of counts are integers, so an image that grew block by block equals the one made of the whole scan to the bit.
Neighbour: `frames`, whose 4D counts, (sub-frames, rows, columns, detector rows, detector columns), are all the blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import Field

from instruments.errors import AcquisitionFailed
from instruments.fan_out import FanOut
from instruments.models import Record

_CHUNK_COUNT: Final = 32  # patterns summed at once: they stay in the cache


class PatternGeometry(Record):
    """Where the undiffracted beam falls on the detector and what angle a pixel is; pixel centres at whole numbers."""

    shape_px: tuple[int, int] = Field(description="(rows, columns) of the detector")
    centre_y_px: float
    centre_x_px: float
    mrad_per_px: float = Field(gt=0)

    def ring(self, inner_mrad: float, outer_mrad: float) -> np.ndarray:
        """Pixels whose centres lie at inner <= angle < outer, (rows, columns) of bool."""
        rows, columns = self.shape_px
        y = (np.arange(rows) - self.centre_y_px)[:, None]
        x = np.arange(columns) - self.centre_x_px
        angle_mrad = np.hypot(y, x) * self.mrad_per_px
        return (angle_mrad >= inner_mrad) & (angle_mrad < outer_mrad)


@dataclass(frozen=True, slots=True)
class PatternBlock:
    """Some patterns of one exposure, as they came: (patterns, detector rows, detector columns), unsigned, read-only."""

    action_id: str
    first: int  # index of the first pattern in the exposure, sub-frames one after another, each row by row
    total: int  # patterns of the whole exposure
    counts: np.ndarray


class PatternSums:
    """Images of `count` patterns by detector region, and what their centres of mass need; grows by `add`."""

    def __init__(self, count: int, shape_px: tuple[int, int], regions: Mapping[str, np.ndarray] | None = None) -> None:
        """`regions`: pixels that are summed, (rows, columns) of bool, by the name of their image."""
        self.count, self.shape_px = count, shape_px
        self._pixels = {name: np.flatnonzero(mask) for name, mask in (regions or {}).items()}
        self._images = {name: np.zeros(count, np.uint64) for name in self._pixels}
        self._moments = np.zeros((3, count), np.uint64)  # counts, counts * row, counts * column
        self._is_there = np.zeros(count, np.bool_)

    @property
    def there_count(self) -> int:
        """How many patterns were added."""
        return int(self._is_there.sum())

    def add(self, first: int, counts: np.ndarray) -> None:
        """Sum patterns from index `first` on, (patterns, detector rows, detector columns), at most 32 bits deep.

        Raises ValueError for another shape, a pattern that was added before, or one beyond the last.
        """
        if counts.shape[1:] != self.shape_px or counts.dtype.kind != "u" or counts.dtype.itemsize > 4:
            raise ValueError(f"patterns of {counts.shape[1:]} {counts.dtype}, not {self.shape_px} unsigned to 32 bits")
        if not 0 <= first <= first + len(counts) <= self.count:
            raise ValueError(f"patterns {first} to {first + len(counts) - 1} of {self.count}")
        if self._is_there[first : first + len(counts)].any():
            raise ValueError(f"some patterns of {first} to {first + len(counts) - 1} were added before")
        for start in range(0, len(counts), _CHUNK_COUNT):
            self._add(first + start, counts[start : start + _CHUNK_COUNT])

    def image(self, name: str) -> np.ndarray:
        """Counts in that region by pattern, uint64; 0 where none came yet."""
        return self._images[name].copy()

    def moments(self) -> np.ndarray:
        """Of each pattern its counts, and counts times row and column index, (3, patterns), uint64."""
        return self._moments.copy()

    def _add(self, first: int, counts: np.ndarray) -> None:
        here = slice(first, first + len(counts))
        deep = self._deep(counts, max(self.shape_px))
        by_row = counts.sum(axis=2, dtype=deep).astype(np.uint64)
        by_column = counts.sum(axis=1, dtype=deep).astype(np.uint64)
        self._moments[0, here] = by_row.sum(axis=1)
        self._moments[1, here] = by_row @ np.arange(self.shape_px[0], dtype=np.uint64)
        self._moments[2, here] = by_column @ np.arange(self.shape_px[1], dtype=np.uint64)
        flat = counts.reshape(len(counts), -1)
        for name, pixels in self._pixels.items():
            deep = self._deep(counts, len(pixels))
            self._images[name][here] = np.take(flat, pixels, axis=1).sum(axis=1, dtype=deep)
        self._is_there[here] = True

    @staticmethod
    def _deep(counts: np.ndarray, pixel_count: int) -> type[np.unsignedinteger[Any]]:
        """What holds the sum of so many pixels: 32 bits are quicker, where they are enough."""
        return np.uint32 if pixel_count * int(np.iinfo(counts.dtype).max) < 1 << 32 else np.uint64


def centres_of_mass_px(moments: np.ndarray) -> np.ndarray:
    """(2, ...) rows and columns from `PatternSums.moments`, summed over sub-frames or not; nan where nothing counts."""
    counts = np.where(moments[0], moments[0].astype(np.float64), np.nan)
    return moments[1:].astype(np.float64) / counts


@runtime_checkable
class Streaming(Protocol):
    """A microscope whose patterns can be read while an exposure runs; `acquire` gives all of them at its end."""

    @property
    def patterns(self) -> PatternFeed:
        """Where blocks are read: subscribe before the exposure begins."""
        ...


class PatternFeed:
    """Blocks of whatever exposure runs, to any number of readers, none of whom can hold up the instrument."""

    def __init__(self) -> None:
        self._readers = FanOut[PatternReader]()

    def subscribe(self, limit_bytes: int = 1 << 30) -> PatternReader:
        """Blocks from now on; one who leaves more than this unread loses the rest, and is told."""
        reader = PatternReader(self, limit_bytes)
        self._readers.add(reader)
        return reader

    def publish(self, block: PatternBlock) -> None:
        """Give it to every reader, without waiting."""
        for reader in self._readers:
            reader.put(block)

    def end(self, failure: str = "") -> None:
        """The exposure is over; `failure` says why there is no more of it."""
        for reader in self._readers:
            reader.end(failure)

    def forget(self, reader: PatternReader) -> None:
        """Give this one nothing more."""
        self._readers.forget(reader)


class PatternReader:
    """Iterates over the blocks of one exposure, in order, waiting for each; a context manager."""

    def __init__(self, feed: PatternFeed, limit_bytes: int) -> None:
        self._feed = feed
        self._limit_bytes = limit_bytes
        self._waiting = threading.Condition()
        self._blocks: deque[PatternBlock] = deque()
        self._size_bytes = 0
        self._is_over = False
        self._failure = ""

    def put(self, block: PatternBlock) -> None:
        """Add one; too much unread ends it."""
        with self._waiting:
            if self._is_over:
                return
            if self._size_bytes + block.counts.nbytes > self._limit_bytes:
                self._is_over = True
                self._failure = f"read too slowly: over {self._limit_bytes} bytes unread at pattern {block.first}"
            else:
                self._blocks.append(block)
                self._size_bytes += block.counts.nbytes
            self._waiting.notify_all()

    def end(self, failure: str) -> None:
        """No more will come."""
        with self._waiting:
            if not self._is_over:
                self._is_over, self._failure = True, failure
            self._waiting.notify_all()

    def blocks(self, patience_s: float) -> Iterator[PatternBlock]:
        """Each block, waiting `patience_s` for it at most, to the end of the exposure.

        Raises AcquisitionFailed where the exposure failed, was read too slowly, or nothing came in time.
        """
        while True:
            with self._waiting:
                is_there = self._waiting.wait_for(lambda: bool(self._blocks) or self._is_over, patience_s)
                block = self._blocks.popleft() if self._blocks else None
                self._size_bytes -= block.counts.nbytes if block else 0
                failure = self._failure if is_there else f"no pattern came for {patience_s:g} s"
            if block is not None:
                yield block
            elif failure:
                raise AcquisitionFailed(f"the patterns ended early: {failure}")
            else:
                return

    def close(self) -> None:
        """Read nothing more; more than once is harmless."""
        self._feed.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
