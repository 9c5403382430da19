"""How two ends of a line prove to each other that they know one secret, before anything else is read.

Standard library only, in words that Python 3.8 understands. Neighbours: `device_server`; `process` is the other end.
"""

from __future__ import annotations

import hmac
import secrets
import socket

NONCE_BYTES = 32
PROOF_BYTES = 32
KEY_BYTES = 32


class Stranger(Exception):
    """The other end does not know the secret, or is no end of such a line."""


class TurnedAway(Stranger):
    """It serves somebody else, one at a time."""


def prove_as_server(line: socket.socket, secret: bytes) -> None:
    """Ask who dials, and answer. Raises Stranger, OSError."""
    ours = secrets.token_bytes(NONCE_BYTES)
    line.sendall(ours)
    reply = _exactly(line, NONCE_BYTES + PROOF_BYTES)
    theirs, proof = reply[:NONCE_BYTES], reply[NONCE_BYTES:]
    if not hmac.compare_digest(proof, _proof(secret, b"client", ours, theirs)):
        raise Stranger("whoever dialled does not know the secret")
    line.sendall(_proof(secret, b"server", ours, theirs))


def prove_as_client(line: socket.socket, secret: bytes) -> None:
    """Answer who listens, and ask. Raises Stranger, OSError."""
    try:
        theirs = _exactly(line, NONCE_BYTES)
    except Stranger as error:
        raise TurnedAway("it hung up: it serves somebody else, one at a time") from error
    ours = secrets.token_bytes(NONCE_BYTES)
    line.sendall(ours + _proof(secret, b"client", theirs, ours))
    try:
        proof = _exactly(line, PROOF_BYTES)
    except Stranger as error:
        raise Stranger("it hung up: the ticket is not its own") from error
    if not hmac.compare_digest(proof, _proof(secret, b"server", theirs, ours)):
        raise Stranger("what listens there does not know the secret")


def dialled(host: str, port: int, secret: bytes, within_s: float) -> list[socket.socket]:
    """Two lines to what listens there, of calls and of stops. Raises Stranger, OSError."""
    lines: list[socket.socket] = []
    try:
        for _ in range(2):
            lines.append(socket.create_connection((host, port), within_s))
            prove_as_client(lines[-1], secret)
            lines[-1].settimeout(None)
            keep_alive(lines[-1])
    except BaseException:
        for line in lines:
            line.close()
        raise
    return lines


def keep_alive(line: socket.socket) -> None:
    """Send at once, and notice within half a minute that the other computer is gone, where the system can."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            line.setsockopt(socket.IPPROTO_TCP, option, value)


def _proof(secret: bytes, side: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.new(secret, side + server_nonce + client_nonce, "sha256").digest()


def _exactly(line: socket.socket, size_bytes: int) -> bytes:
    found = b""
    while len(found) < size_bytes:
        piece = line.recv(size_bytes - len(found))
        if not piece:
            raise Stranger("it hung up")
        found += piece
    return found
