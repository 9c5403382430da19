"""Messages between the adapter and the process that holds the devices: a JSON header, then the bytes of arrays.

No pickle: the devices' process may run under another interpreter. Both ends use `connections.Line`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from instruments.connections import Line, WrongReply

_LENGTH: Final = struct.Struct(">Q")
_HEADER_LIMIT_BYTES: Final = 16 << 20
_ARRAYS_LIMIT_BYTES: Final = 8 << 30
_KINDS: Final = "biuf"


@dataclass(frozen=True, slots=True)
class Message:
    """Values that JSON knows, and arrays of numbers by name."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def send(line: Line, message: Message) -> None:
    """All of it. Raises OSError, TimeoutError."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    layout = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"values": message.values, "arrays": layout}, separators=(",", ":")).encode()
    line.send(_LENGTH.pack(len(header)) + header)
    for array in arrays.values():
        if array.nbytes:
            line.send(array.reshape(-1).view(np.uint8).data)


def receive(line: Line) -> Message:
    """The next message. Raises WrongReply for bytes that are none, EOFError, OSError, TimeoutError."""
    (size_bytes,) = _LENGTH.unpack(line.read_exactly(_LENGTH.size))
    if size_bytes > _HEADER_LIMIT_BYTES:
        raise WrongReply(f"a header of {size_bytes} bytes is announced; the limit is {_HEADER_LIMIT_BYTES}")
    try:
        header = json.loads(line.read_exactly(size_bytes))
        arrays = {str(name): _empty(str(dtype), shape) for name, dtype, shape in header["arrays"]}
        values = dict(header["values"])
    except (ValueError, TypeError, KeyError) as error:
        raise WrongReply(f"no message of the devices' process: {error}") from error
    for array in arrays.values():
        if array.nbytes:
            line.fill(array.reshape(-1).view(np.uint8).data)
    return Message(values, arrays)


def _empty(dtype_text: str, shape: list[int]) -> np.ndarray:
    dtype = np.dtype(dtype_text)
    size_bytes = dtype.itemsize * int(np.prod(shape, dtype=object)) if shape else dtype.itemsize
    if dtype.kind not in _KINDS or min(shape, default=0) < 0 or size_bytes > _ARRAYS_LIMIT_BYTES:
        raise ValueError(f"an array of {dtype} and shape {shape} cannot cross")
    return np.empty(tuple(shape), dtype)
