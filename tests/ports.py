"""Ports for servers that are told theirs before they start.

The system hands out ports from 32768 on, to whoever asks for any and to every outgoing connection, so that one found
free there may be gone a second later. These lie below, and each process of the tests takes others.
"""

from __future__ import annotations

import os
import socket
from itertools import count

_FIRST, _COUNT = 12_000, 20_000
_OF_EACH = 400
_taken = count()


def unused_port() -> int:
    """A port of the loopback interface where nobody listens, never given before by this process."""
    begin = os.getpid() * _OF_EACH % _COUNT
    while True:
        port = _FIRST + (begin + next(_taken)) % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
