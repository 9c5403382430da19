"""Messages between an instrument's process and its clients: a JSON header, then the raw bytes of arrays; never pickle.

What can cross: JSON values, tuples, NumPy arrays and numbers, the records of this package, frames. They arrive as they
were sent, every bit of every number. Neighbour: `lines` carries them.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import fields
from math import prod
from multiprocessing.connection import Connection
from typing import Any, Final, cast

import numpy as np
from pydantic import ValidationError

from instruments.capabilities import Capabilities, Mode
from instruments.commands import COMMANDS
from instruments.dose_file import SpecimenDose
from instruments.events import EventBatch
from instruments.frames import Frame
from instruments.models import Record
from instruments.remote.status import InstrumentStatus, StopReport
from instruments.state import MicroscopeState

PROTOCOL: Final = 1
HEADER_LIMIT_BYTES: Final = 64 << 20
ARRAYS_LIMIT_BYTES: Final = 8 << 30
_KINDS: Final = "biufcSU"  # of NumPy dtypes; objects would need pickle
_RECORDS: Final[dict[str, type[Record]]] = {
    record.__name__: record
    for record in (
        *COMMANDS, Capabilities, EventBatch, InstrumentStatus, MicroscopeState, Mode, SpecimenDose, StopReport,
    )
}  # fmt: skip
_FRAME_FIELDS: Final = tuple(field.name for field in fields(Frame))


class WireError(Exception):
    """Bytes that are no message."""


class UnsendableError(Exception):
    """A value that cannot cross; nothing was sent."""


def send(connection: Connection, message: Any) -> None:
    """Send one message. Raises UnsendableError, OSError."""
    arrays: list[np.ndarray] = []
    packed = pack(message, arrays)
    layout = [[array.dtype.str, list(array.shape)] for array in arrays]
    connection.send_bytes(json.dumps([packed, layout], separators=(",", ":")).encode())
    for array in arrays:
        if array.nbytes:
            connection.send_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def receive(connection: Connection) -> Any:
    """The next message. Raises WireError for bytes that are none, EOFError at the end, OSError."""
    try:
        packed, layout = json.loads(connection.recv_bytes(HEADER_LIMIT_BYTES))
        arrays = [np.empty(tuple(shape), _dtype(text)) for text, shape in _checked(layout)]
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"no message of protocol {PROTOCOL}: {error}") from error
    for array in arrays:
        if array.nbytes:
            _fill(array, connection)
    try:
        return unpack(packed, arrays)
    except (ValidationError, ValueError, TypeError, KeyError, IndexError) as error:
        raise WireError(f"no message of protocol {PROTOCOL}: {error}") from error


def _fill(array: np.ndarray, connection: Connection) -> None:
    """Read one array's bytes to where they belong: `recv_bytes_into` copies them twice, and is four times as slow."""
    announced_bytes = _announced_bytes(connection)
    if announced_bytes != array.nbytes:
        longer = "longer" if announced_bytes > array.nbytes else "shorter"
        raise WireError(f"an array of the message is {longer} than announced")
    _read(connection, array.reshape(-1).view(np.uint8).data)


def _announced_bytes(connection: Connection) -> int:
    """Length of the next piece, as `multiprocessing.connection` writes it: four bytes, or -1 and eight."""
    head = bytearray(4)
    _read(connection, memoryview(head))
    (size_bytes,) = struct.unpack("!i", head)
    if size_bytes >= 0:
        return size_bytes
    head = bytearray(8)
    _read(connection, memoryview(head))
    (size_bytes,) = struct.unpack("!Q", head)
    return size_bytes


def _read(connection: Connection, where: memoryview) -> None:
    while where:
        count = os.readv(connection.fileno(), [where])
        if count == 0:
            raise OSError("it hung up in the middle of a message")
        where = where[count:]


def _dtype(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of dtype {text} cannot cross")
    return dtype


def _checked(layout: list[Any]) -> list[Any]:
    size_bytes = sum(_dtype(text).itemsize * prod(int(side) for side in shape) for text, shape in layout)
    if size_bytes > ARRAYS_LIMIT_BYTES or any(int(side) < 0 for _, shape in layout for side in shape):
        raise ValueError(f"arrays of {size_bytes} bytes announced; the limit is {ARRAYS_LIMIT_BYTES}")
    return layout


def pack(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON; its arrays are added to `arrays`, and JSON has their numbers. Raises UnsendableError."""
    match value:
        case np.ndarray() | np.generic():
            return _pack_array(value, arrays)
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [pack(item, arrays) for item in cast("list[Any]", value)]
        case tuple():
            return {"$": "tuple", "items": [pack(item, arrays) for item in cast("tuple[Any, ...]", value)]}
        case dict():
            return _pack_mapping(cast("dict[Any, Any]", value), arrays)
        case Frame():
            return {"$": "frame", "fields": [pack(getattr(value, name), arrays) for name in _FRAME_FIELDS]}
        case Record() if type(value).__name__ in _RECORDS:
            return {"$": "record", "name": type(value).__name__, "fields": value.model_dump(mode="json")}
        case _:
            raise UnsendableError(f"a {type(value).__name__} cannot cross to another process: {value!r:.80}")


def _pack_array(value: np.ndarray | np.generic, arrays: list[np.ndarray]) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise UnsendableError(
            f"an array of dtype {array.dtype} cannot cross to another process; make it numbers or text"
        )
    arrays.append(array)
    return {"$": "array" if isinstance(value, np.ndarray) else "scalar", "index": len(arrays) - 1}


def _pack_mapping(value: dict[Any, Any], arrays: list[np.ndarray]) -> dict[str, Any]:
    if all(isinstance(key, str) for key in value) and "$" not in value:
        return {key: pack(item, arrays) for key, item in value.items()}
    return {"$": "mapping", "items": [[pack(key, arrays), pack(item, arrays)] for key, item in value.items()]}


def unpack(packed: Any, arrays: list[np.ndarray]) -> Any:
    """The value that was packed. Raises ValidationError, ValueError, TypeError, KeyError, IndexError, WireError."""
    if isinstance(packed, list):
        return [unpack(item, arrays) for item in cast("list[Any]", packed)]
    if not isinstance(packed, dict):
        return packed
    document = cast("dict[str, Any]", packed)
    if "$" in document:
        return _unpack_tagged(document, arrays)
    return {key: unpack(item, arrays) for key, item in document.items()}


def _unpack_tagged(document: dict[str, Any], arrays: list[np.ndarray]) -> Any:
    match document["$"]:
        case "array":
            return arrays[document["index"]]
        case "scalar":
            return arrays[document["index"]][()]
        case "tuple":
            return tuple(unpack(item, arrays) for item in document["items"])
        case "mapping":
            return {unpack(key, arrays): unpack(item, arrays) for key, item in document["items"]}
        case "record":
            return _RECORDS[document["name"]].model_validate(document["fields"])
        case "frame":
            values = [unpack(item, arrays) for item in document["fields"]]
            return Frame(**dict(zip(_FRAME_FIELDS, values, strict=True)))
        case kind:
            raise WireError(f"no message of protocol {PROTOCOL}: a value of kind {kind!r}")
