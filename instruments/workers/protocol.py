"""Messages between an adapter and its worker: JSON, and the bytes of arrays through shared memory; never pickle.

Standard library and NumPy only, in words that Python 3.8 understands: the worker's end runs where stempilot is not
installed. Arrays arrive read-only, without a copy. Neighbours: `server`, `process`.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

HEADER = struct.Struct("<IQ?")  # bytes of JSON, bytes of arrays, whether these are in shared memory
SHARED_FROM_BYTES = 1 << 16
ALIGNED_BYTES = 64
JSON_LIMIT_BYTES = 64 << 20
LOOK_S = 1.0
_KINDS = "biufc"


class Broken(Exception):
    """The other end is gone, or what came is no message."""


class Silent(Exception):
    """Nothing came in time."""


def send(line: socket.socket, message: Any) -> None:
    """Send one message of JSON values and arrays. Raises TypeError for anything else; nothing was sent then."""
    arrays: list[np.ndarray] = []
    text = json.dumps(message, default=lambda value: _taken_out(value, arrays), separators=(",", ":")).encode()
    layout, size_bytes = _layout(arrays)
    text = json.dumps(layout).encode() + b"\n" + text
    is_shared = sys.platform == "linux" and _is_local(line) and size_bytes >= SHARED_FROM_BYTES
    header = HEADER.pack(len(text), size_bytes, is_shared)
    if is_shared:
        _send_shared(line, header + text, arrays, layout, size_bytes)
        return
    blob = bytearray(size_bytes)
    for values, (_, _, start) in zip(arrays, layout):  # noqa: B905  Python 3.8 has no strict
        blob[start : start + values.nbytes] = values.tobytes()
    line.sendall(header + text + bytes(blob))


def receive(line: socket.socket, until_s: float | None = None) -> Any:
    """The next message. Raises Silent when it is not whole by `until_s` (of `time.monotonic`), Broken."""
    header, handle = _header(line, until_s)
    text_bytes, size_bytes, is_shared = HEADER.unpack(header)
    if text_bytes > JSON_LIMIT_BYTES:
        raise Broken(f"{text_bytes} bytes of JSON announced")
    layout_text, _, text = bytes(_exactly(line, text_bytes, until_s)).partition(b"\n")
    blob = _mapped(handle, size_bytes) if is_shared else bytes(_exactly(line, size_bytes, until_s))
    try:
        arrays = [
            np.frombuffer(blob, np.dtype(dtype), prod(shape), start).reshape(shape)
            for dtype, shape, start in json.loads(layout_text)
        ]
        return json.loads(text, object_hook=lambda found: arrays[found["$array"]] if "$array" in found else found)
    except (ValueError, TypeError, IndexError) as error:
        raise Broken(f"no message: {error}") from error


def _taken_out(value: Any, arrays: list[np.ndarray]) -> Any:
    """What JSON has no word for: an array is replaced by its number."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        arrays.append(np.asarray(value, order="C"))  # `ascontiguousarray` makes one number a row
        return {"$array": len(arrays) - 1}
    raise TypeError(f"a {type(value).__name__} cannot cross to another process: {value!r:.80}")


def _layout(arrays: list[np.ndarray]) -> tuple[list[tuple[str, list[int], int]], int]:
    layout: list[tuple[str, list[int], int]] = []
    start = 0
    for values in arrays:
        layout.append((values.dtype.str, list(values.shape), start))
        start += -(-values.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
    return layout, start


def _send_shared(
    line: socket.socket,
    head: bytes,
    arrays: list[np.ndarray],
    layout: list[tuple[str, list[int], int]],
    size_bytes: int,
) -> None:
    handle = os.memfd_create("stempilot-arrays")  # nameless: it is gone with the last who holds it
    try:
        os.ftruncate(handle, size_bytes)
        for values, (_, _, start) in zip(arrays, layout):  # noqa: B905
            os.lseek(handle, start, os.SEEK_SET)
            left = values.reshape(-1).view(np.uint8).data
            while left:
                left = left[os.write(handle, left) :]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
        sent = line.sendmsg([head], rights)
        line.sendall(head[sent:])
    finally:
        os.close(handle)


def _is_local(line: socket.socket) -> bool:
    """Whether handles can cross it: it is a line by inheritance, not one to another computer."""
    return line.family == getattr(socket, "AF_UNIX", None)


def _header(line: socket.socket, until_s: float | None) -> tuple[bytes, int | None]:
    """The header, and the handle of shared memory that came with its first byte."""
    if not _is_local(line):
        return bytes(_exactly(line, HEADER.size, until_s)), None
    head, rights, _, _ = _heard(line, until_s, lambda: line.recvmsg(HEADER.size, socket.CMSG_SPACE(4)))
    if not head:
        raise Broken("it hung up")
    handles = array.array("i")
    for level, kind, payload in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            handles.frombytes(payload)
    rest = _exactly(line, HEADER.size - len(head), until_s)
    return head + bytes(rest), handles[0] if handles else None


def _mapped(handle: int | None, size_bytes: int) -> Any:
    if handle is None:
        raise Broken("shared memory was announced and did not come")
    try:
        return mmap.mmap(handle, size_bytes, mmap.MAP_SHARED | MAP_POPULATE, mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise Broken(f"shared memory cannot be mapped: {error}") from error
    finally:
        os.close(handle)


MAP_POPULATE = 0x8000 if sys.platform == "linux" else 0  # Python names it since 3.10


def _exactly(line: socket.socket, size_bytes: int, until_s: float | None) -> bytearray:
    found = bytearray(size_bytes)
    view = memoryview(found)
    while view:
        count = _heard(line, until_s, lambda: line.recv_into(view), " in the middle of a message")  # noqa: B023
        if count == 0:
            raise Broken("it hung up in the middle of a message")
        view = view[count:]
    return found


def _heard(line: socket.socket, until_s: float | None, read: Callable[[], Any], where: str = "") -> Any:
    """What `read` gives once something came. Raises Silent, Broken.

    It looks every second whether the line is still there: who begins to wait in the moment in which another thread
    closes it would wait at whatever was opened under its number since, up to the deadline.
    """
    while True:
        left_s = None if until_s is None else until_s - time.monotonic()
        try:
            line.settimeout(None if left_s is None else min(max(left_s, 1e-3), LOOK_S))
            return read()
        except socket.timeout as error:  # noqa: UP041  another class before Python 3.10
            if left_s is None or left_s <= LOOK_S:
                raise Silent(f"silent{where}") from error
        except OSError as error:
            raise Broken(str(error)) from error
