"""One device for another machine: a program for the microscope's own computer, Windows too, and its maker's Python.

    python device_server.py pyjem_device.py --port 7110 --ticket microscope.ticket

Whoever knows the ticket's secret dials two lines, one for calls, one for stops. For each such session a child process
runs the device (`server`); bytes pass through here. When a line breaks, the child is told to leave; one that does not
is killed, and a new one opens the device once more, which blanks. Standard library alone, in words that Python 3.8
understands; the child needs NumPy. Nothing is encrypted, and it has never run under Windows. Neighbours:
`handshake`; `process` is the other end.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if __package__:
    from instruments.workers.handshake import KEY_BYTES, Stranger, keep_alive, prove_as_server
else:  # as a program, on a computer without stempilot
    from handshake import KEY_BYTES, Stranger, keep_alive, prove_as_server

SERVER = Path(__file__).resolve().with_name("server.py")
LOOPBACK = "127.0.0.1"
HANDSHAKE_S = 5.0
CHILD_S = 60.0  # for a child to dial back: its Python and NumPy have to load
LEAVE_S = 10.0  # for a child to stop its device and go; it takes half of that at most unless it hangs
LOOK_S = 0.1
PIECE_BYTES = 1 << 18
_ABOUT = (
    "Serves one device to another machine. Both ends prove that they know the ticket's secret; nothing is encrypted: "
    "lead the port through a tunnel. Made for Windows too, and never tried there."
)


def main() -> None:
    """Write the ticket, then serve one session after another until this program is ended."""
    asked = _arguments()
    secret = _secret(asked.ticket)
    listener = socket.create_server((asked.host, asked.port))
    print("device server: {} at {} port {}".format(asked.device, *listener.getsockname()[:2]), flush=True)  # noqa: T201
    while True:
        lines = _session(listener, secret)
        try:
            _serve(lines, asked, listener)
        except (OSError, Stranger) as error:
            print(f"device server: session ended: {error}", flush=True)  # noqa: T201
        finally:
            for line in lines:
                line.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("device", type=Path, help="the device's file")
    parser.add_argument("--host", default=LOOPBACK, help="an address of this computer; by default for itself alone")
    parser.add_argument("--port", type=int, default=7110)
    parser.add_argument("--ticket", type=Path, required=True, help="file of the secret; written if it is not there")
    parser.add_argument("--leave-s", type=float, default=LEAVE_S, help="after which a device that hangs is killed")
    return parser.parse_args()


def _secret(ticket: Path) -> bytes:
    """That of the ticket, which is made for its user alone if there is none."""
    if not ticket.exists():
        handle = os.open(str(ticket), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES))
    return bytes.fromhex(ticket.read_text(encoding="ascii").strip())


def _session(listener: socket.socket, secret: bytes) -> list[socket.socket]:
    """The two lines of the next owner: of calls, and of stops."""
    lines: list[socket.socket] = []
    while len(lines) < 2:
        listener.settimeout(HANDSHAKE_S if lines else None)
        try:
            line = _admitted(listener, secret)
        except (OSError, Stranger) as error:
            print(f"device server: nobody let in: {error}", flush=True)  # noqa: T201
            while lines:  # a first line whose second did not come
                lines.pop().close()
            continue
        lines.append(line)
    return lines


def _admitted(listener: socket.socket, secret: bytes) -> socket.socket:
    line, _ = listener.accept()
    try:
        line.settimeout(HANDSHAKE_S)
        prove_as_server(line, secret)
        line.settimeout(None)
        keep_alive(line)
    except BaseException:
        line.close()
        raise
    return line


class Session:
    """Bytes between an owner's two lines and its child's, until one of the four ends; it keeps how it was opened."""

    def __init__(self, lines: list[socket.socket], inner: list[socket.socket]) -> None:
        self.opening = b""  # all that the owner sent before the first answer
        self._is_answered = False
        self._ended = threading.Event()
        passing = ((lines[0], inner[0], self._keep), (inner[0], lines[0], self._answered))
        stops = ((lines[1], inner[1], len), (inner[1], lines[1], len))
        self._threads = [threading.Thread(target=self._pump, args=one, daemon=True) for one in (*passing, *stops)]

    def run(self) -> None:
        """Pass on until a line ends."""
        for thread in self._threads:
            thread.start()
        self._ended.wait()

    def join(self, within_s: float) -> None:
        """Wait for what is still on its way."""
        for thread in self._threads:
            thread.join(within_s)

    def _pump(self, source: socket.socket, sink: socket.socket, look: Callable[[bytes], object]) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                look(piece)
                sink.sendall(piece)
        self._ended.set()

    def _keep(self, piece: bytes) -> None:
        if not self._is_answered:
            self.opening += piece

    def _answered(self, piece: bytes) -> None:
        self._is_answered = True


class Doorman:
    """Turns away whoever dials while somebody is served; before and after that, they wait for their turn."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._turn_away, daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        self._listener.settimeout(LOOK_S)
        self._thread.start()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End."""
        self._is_over.set()
        self._thread.join()

    def _turn_away(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError):  # nobody came
                self._listener.accept()[0].close()


def _serve(lines: list[socket.socket], asked: argparse.Namespace, listener: socket.socket) -> None:
    """A child with the device between these lines, until one of them ends."""
    device, leave_s = asked.device.resolve(), asked.leave_s
    child, inner = _child(device)
    session = Session(lines, inner)
    try:
        with Doorman(listener):
            session.run()
        is_gone = _left(child, inner, leave_s)
        for line in lines:
            _shut(line)
        session.join(leave_s)
    finally:
        _end(child, inner)
    if not is_gone:
        print("device server: the device hung and was killed: assume that the beam is on", flush=True)  # noqa: T201
        _open_and_leave(device, session.opening, leave_s)


def _open_and_leave(device: Path, opening: bytes, leave_s: float) -> None:
    """Open the device as the last owner did, and let it go again: it is blanked by both."""
    child, inner = _child(device)
    try:
        inner[0].sendall(opening)
        inner[0].settimeout(CHILD_S)
        is_blanked = bool(inner[0].recv(PIECE_BYTES)) and _left(child, inner, leave_s)
    finally:
        _end(child, inner)
    said = "was opened and stopped once more" if is_blanked else "does not open: blank by hand"
    print(f"device server: the device {said}", flush=True)  # noqa: T201


def _left(child: subprocess.Popen[bytes], inner: list[socket.socket], leave_s: float) -> bool:
    """Whether it stops its device and leaves in time, now that its lines end."""
    for line in inner:
        _shut(line)
    try:
        child.wait(leave_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[bytes], inner: list[socket.socket]) -> None:
    child.kill()
    child.wait()
    for line in inner:
        line.close()


def _child(device: Path) -> tuple[subprocess.Popen[bytes], list[socket.socket]]:
    """The process of a device, and the two lines by which it dialled back."""
    secret = secrets.token_bytes(KEY_BYTES)
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        child = subprocess.Popen(
            [sys.executable, "-I", str(SERVER), "--dial", str(port), str(device)], stdin=subprocess.PIPE
        )
        inner: list[socket.socket] = []
        try:
            assert child.stdin is not None
            child.stdin.write(secret)
            child.stdin.close()
            listener.settimeout(CHILD_S)
            while len(inner) < 2:
                inner.append(_admitted(listener, secret))
        except BaseException:
            child.kill()
            for line in inner:
                line.close()
            raise
    return child, inner


def _shut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
