"""Ids that sort by time: UUID version 7 (RFC 9562, section 5.7), written as 32 hexadecimal digits."""

from __future__ import annotations

import secrets
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id(now_ns: int | None = None) -> str:
    """A new id, greater than every id this process made before: 48 bits of milliseconds, 74 bits drawn at random.

    Within one millisecond (or when the clock went back) the last id is increased instead (RFC 9562, section 6.2).

    >>> first, second = new_id(), new_id()
    >>> first < second, len(first), first[12]
    (True, 32, '7')
    """
    global _last
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    with _lock:
        payload = (milliseconds << 74) | secrets.randbits(74)
        if payload >> 74 <= _last >> 74:
            payload = _last + 1 + secrets.randbits(32)
        _last = payload
    time_part, high, low = payload >> 74, (payload >> 62) & 0xFFF, payload & ((1 << 62) - 1)
    return f"{(time_part << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low:032x}"
