"""Ports for servers that are told theirs before they start.

The system hands out ports from 32768 on, to whoever asks for any and to every outgoing connection, so that one found
free there may be gone a second later. These lie below, and no two processes of tests have one of them in common.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

_FIRST, _COUNT = 12_000, 20_000
_OF_EACH = 400
_taken = count()


def unused_port() -> int:
    """A port of the loopback interface where nobody listens, by TCP or by UDP, and that is given to nobody else.

    It is this process's until it ends, whether its server runs or not: of UDP, two servers may listen at one port.
    """
    begin = os.getpid() * _OF_EACH % _COUNT
    while True:
        port = _FIRST + (begin + next(_taken)) % _COUNT
        try:
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port


@cache
def _claims() -> int:
    """A file of which each process of tests locks the bytes of its ports."""
    path = Path(tempfile.gettempdir()) / f"stempilot-tests-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
