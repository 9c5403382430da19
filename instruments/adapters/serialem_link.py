"""SerialEM's socket for external Python scripts: framed messages, one command at a time, one client.

A message is its length in bytes (that word included), a code, then longs, truth values (4 bytes each) and doubles,
little-endian. A command has three longs: its number in SerialEM's list, the index of the last argument, the length of
an array in words; the array holds an integer and a double for each argument, then their texts. Numbers belong to a
version of that list and are configured. Neighbour: `serialem`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from instruments.connections import Connection, Line, WrongReply
from instruments.errors import InstrumentBusy, InstrumentFault, LinkLost
from instruments.state import ClockOffset

REGULAR, HANDSHAKE, MAY_RUN, IMAGE = 1, 2, 3, 4
_BUSY: Final = -9
_PIXELS: Final = {0: "u1", 1: "<i2", 2: "<f4", 6: "<u2"}
_LARGEST_BYTES: Final = 1 << 20  # of a message without an image
_LARGEST_IMAGE: Final = 1 << 30
Argument = float | str


@dataclass(frozen=True, slots=True)
class Reply:
    """A message: its return code, the longs after it, and what follows."""

    code: int
    longs: tuple[int, ...]
    rest: bytes


class SerialEMLink:
    """Commands, one after another, from any thread; a stop waits for the one that runs."""

    def __init__(self, host: str, port: int, answer_s: float, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers
        self._answer_s = answer_s
        self._connection = Connection("SerialEM", host, port, connect_s=answer_s, greet=_greet)

    @property
    def is_lost(self) -> bool:
        """Whether the last call found nobody, or got no answer."""
        return self._connection.is_lost

    def clocks(self) -> dict[str, ClockOffset]:
        """None: no command that reports tells the time of that computer."""
        return {}

    def start(self) -> None:
        """Connect anew. Raises LinkLost, InstrumentBusy."""
        self._connection.reconnect(self._answer_s)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def run(
        self, command: str, *arguments: Argument, within_s: float | None = None, repeatable: bool = True
    ) -> list[float]:
        """The numbers that a command reports. Raises InstrumentFault for its failure, LinkLost, ResultUnknown."""

        def exchange(line: Line) -> list[float]:
            line.send(command_bytes(self._numbers[command], arguments))
            reply = _read(line, 3)
            last, error = reply.longs[0], reply.longs[1]
            if error:
                raise InstrumentFault(f"SerialEM's {command} failed (code {error}); its log says why")
            return _reported(last + 1, reply.rest)

        deadline_s = self._answer_s if within_s is None else within_s
        return self._connection.call(exchange, what=command, deadline_s=deadline_s, repeatable=repeatable)

    def image(self, buffer: int, within_s: float) -> np.ndarray:
        """The image in a buffer (0 is A), (rows, columns) as it lies there."""

        def exchange(line: Line) -> np.ndarray:
            line.send(message(IMAGE, (buffer, 0)))
            mode, row_bytes, columns, rows, size_bytes, chunks = _read(line, 6).longs
            if size_bytes == 0:
                raise InstrumentFault(f"SerialEM has no image in buffer {chr(65 + buffer)}")
            if (
                mode not in _PIXELS
                or not 0 < size_bytes <= _LARGEST_IMAGE
                or size_bytes != row_bytes * rows
                or chunks < 1
            ):
                raise WrongReply(f"an image of mode {mode}, {columns} x {rows}, {size_bytes} bytes in {chunks} pieces")
            kind = np.dtype(_PIXELS[mode])
            if row_bytes < columns * kind.itemsize:
                raise WrongReply(f"rows of {row_bytes} bytes for {columns} px of {kind.itemsize}")
            data = bytearray(size_bytes)
            piece = -(-size_bytes // chunks)
            for start in range(0, size_bytes, piece):
                if start:
                    line.send(message(HANDSHAKE))
                line.fill(memoryview(data)[start : start + piece])
            pixels = np.frombuffer(data, np.uint8).reshape(rows, row_bytes)
            return pixels[:, : columns * kind.itemsize].copy().view(kind)

        return self._connection.call(exchange, what="an image", deadline_s=within_s, repeatable=True)


def message(code: int, longs: tuple[int, ...] = (), rest: bytes = b"") -> bytes:
    """One message: length, code, longs, and bytes that follow."""
    body = struct.pack(f"<{1 + len(longs)}i", code, *longs) + rest
    return struct.pack("<i", 4 + len(body)) + body


def command_bytes(number: int, arguments: tuple[Argument, ...]) -> bytes:
    """A regular command. Argument 0 is unused; without arguments the array is one word of zero."""
    if not arguments:
        return message(REGULAR, (number, 0, 1), bytes(4))
    numbers = [0.0, *(0.0 if isinstance(one, str) else float(one) for one in arguments)]
    texts = ["", *(one if isinstance(one, str) else f"{one:.6f}" for one in arguments)]
    array = struct.pack(f"<{len(numbers)}i", *(int(one) for one in numbers))
    array += struct.pack(f"<{len(numbers)}d", *numbers)
    array += b"".join(text.encode("ascii") + b"\0" for text in texts)
    words = (len(array) + 5) // 4
    return message(REGULAR, (number, len(arguments), words), array.ljust(4 * words, b"\0"))


def _greet(line: Line) -> None:
    """Ask to be let in. Raises LinkLost where SerialEM does something else."""
    line.send(message(MAY_RUN))
    (may_run,) = _read(line, 1).longs
    if not may_run:
        raise LinkLost("SerialEM runs a script, or another client; end that first")


def _read(line: Line, long_count: int) -> Reply:
    (size_bytes,) = struct.unpack("<i", line.read_exactly(4))
    if not 8 <= size_bytes <= _LARGEST_BYTES:
        raise WrongReply(f"a message of {size_bytes} bytes")
    body = line.read_exactly(size_bytes - 4)
    (code,) = struct.unpack_from("<i", body)
    if code == _BUSY:
        line.is_last = True
        raise InstrumentBusy("SerialEM is busy, or was stopped by its user; nothing was done")
    if code:
        line.is_last = True
        raise InstrumentFault(f"SerialEM returned {code}; see its log")
    if len(body) < 4 * (1 + long_count):
        raise WrongReply(f"{len(body)} bytes where {long_count} longs were due")
    return Reply(code, struct.unpack_from(f"<{long_count}i", body, 4), body[4 * (1 + long_count) :])


def _reported(count: int, array: bytes) -> list[float]:
    """Numbers of a report: a flag each whether it is a text, then the doubles."""
    if count < 0 or len(array) < 12 * count:
        raise WrongReply(f"{len(array)} bytes for {count} reported values")
    return list(struct.unpack_from(f"<{count}d", array, 4 * count))
