"""A small server to run inside Gatan's DigitalMicrograph, so that another computer can drive microscope and DigiScan.

Open this one file in DigitalMicrograph as a Python script (3.5 or later), edit the four lines below, tick "execute on
background thread", execute. It needs DigitalMicrograph's own Python with numpy and nothing of stempilot, and uses only
calls of the `DigitalMicrograph` module. `instruments.adapters.digitalmicrograph` is the other end.

It blanks when it starts, after every exposure, when its client is gone, and when an open beam was left alone for
`LEASE_S`. One client commands; a second line, for stops, is answered beside it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import threading
import time
from typing import Any

import numpy as np

HOST = os.environ.get("STEMPILOT_DM_HOST", "127.0.0.1")  # the address of this computer that may be dialled
PORT = int(os.environ.get("STEMPILOT_DM_PORT", "9431"))
SECRET_FILE = os.environ.get("STEMPILOT_DM_SECRET", r"C:\stempilot\secret.txt")  # 32 characters or more, one line
LEASE_S = float(os.environ.get("STEMPILOT_DM_LEASE_S", "10"))

PROTOCOL = 2
HANDSHAKE_S = 5.0
LARGEST_REQUEST = 1 << 20
DATA_BYTES = 4  # of a DigiScan pixel: unsigned integers
X, Y, Z, ALPHA, BETA = 1, 2, 4, 8, 16


class Refused(Exception):
    """Nothing moved, nothing was exposed."""


class Stopped(Exception):
    """A stop came before, or between two exposures."""


class StillLit(Exception):
    """The beam was to be blanked and is not."""


class Told:
    """What is raised inside goes into a reply: DigitalMicrograph documents no classes of its errors."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, Exception):
            self._reply["error"] = {"kind": type(error).__name__, "words": str(error)}
        return isinstance(error, Exception)


class Instrument:
    """Microscope, DigiScan and camera by DigitalMicrograph's own calls; micrometres, degrees, microseconds, seconds."""

    def __init__(self, dm: Any) -> None:
        self._dm = dm
        self._microscope = dm.Py_Microscope()
        self._stopped = threading.Event()
        self._beam = threading.Lock()  # a stop comes before the beam is let on, or after it
        self.is_lit = True  # until it was blanked
        self.blank(True)

    def describe(self) -> dict[str, Any]:
        """Who answers."""
        return {
            "protocol": PROTOCOL,
            "microscope": told(str, self._microscope.GetMicroscopeName),
            "high_tension_v": told(float, self._microscope.GetHighTension),
        }

    def clock(self) -> dict[str, Any]:
        """The time here, seconds since 1970, and how finely it is told."""
        return {"time_s": [time.time(), time.get_clock_info("time").resolution]}

    def read(self) -> dict[str, Any]:
        """Everything that is read back; None for what this microscope does not tell."""
        microscope = self._microscope
        return {
            "stage": [
                told(float, microscope.GetStageX),
                told(float, microscope.GetStageY),
                told(float, microscope.GetStageZ),
                told(float, microscope.GetStageAlpha),
                told(float, microscope.GetStageBeta),
            ],
            "focus": told(float, microscope.GetFocus),
            "beam_shift": told(floats, microscope.GetBeamShift),
            "magnification_index": told(int, microscope.GetMagIndex),
            "high_tension_v": told(float, microscope.GetHighTension),
            "is_blanked": bool(microscope.GetBeamBlanked()),
        }

    def move(self, flags: int, values: list[float]) -> None:
        """Begin to move the axes of `flags`: x, y, z in um, alpha, beta in degrees; who waits looks at `read`."""
        self._go_on()
        self._microscope.SetStagePositions(int(flags), *[float(value) for value in values])

    def focus(self, value: float) -> None:
        """Absolute, in the maker's units."""
        self._go_on()
        self._microscope.SetFocus(float(value))

    def beam_shift(self, values: list[float]) -> None:
        """Absolute, x and y in the maker's units."""
        self._go_on()
        self._microscope.SetBeamShift(*[float(value) for value in values])

    def magnification(self, index: int) -> None:
        """By the maker's number."""
        self._go_on()
        self._microscope.SetMagIndex(int(index))

    def blank(self, is_blanked: bool) -> bool:
        """Blank, or let the beam on; what was read back."""
        with self._beam:
            if not is_blanked:
                self._go_on()
            self.is_lit = True  # until it is read back
            self._microscope.SetBeamBlanked(bool(is_blanked))
            self.is_lit = not self._microscope.GetBeamBlanked()
        if is_blanked and self.is_lit:
            raise StillLit("DigitalMicrograph was told to blank, and the beam is on")
        return not self.is_lit

    def stop(self) -> bool:
        """Blank now; nothing moves or exposes until `release`. From any thread."""
        self._stopped.set()
        return self.blank(True)

    def release(self) -> None:
        """Move and expose again."""
        self._stopped.clear()

    def scan(
        self,
        width_px: int,
        height_px: int,
        pixel_time_us: float,
        rotation_deg: float,
        line_sync: bool,
        signals: list[int],
        count: int,
        is_lit: bool,
    ) -> list[np.ndarray]:
        """Frames of DigiScan, one after another: each signal in turn, then the next frame."""
        size = (int(width_px), int(height_px), float(rotation_deg), float(pixel_time_us), bool(line_sync))
        return self._exposed(lambda: self._scanned(size, signals), count, is_lit)

    def camera(self, exposure_s: float, binning: int, area_px: list[int], count: int, is_lit: bool) -> list[np.ndarray]:
        """Unprocessed images of the active camera; `area_px` is top, left, bottom, right."""
        camera = self._dm.GetActiveCamera()
        camera.PrepareForAcquire()
        unprocessed = self._dm.GetCameraUnprocessedEnum()
        arguments = (float(exposure_s), int(binning), int(binning), unprocessed, *[int(edge) for edge in area_px])

        def taken() -> list[np.ndarray]:
            return [np.array(camera.AcquireImage(*arguments).GetNumArray())]

        return self._exposed(taken, count, is_lit)

    def _exposed(self, take: Any, count: int, is_lit: bool) -> list[np.ndarray]:
        """The beam on meanwhile, if it is to be, and blanked after it whatever happens."""
        arrays: list[np.ndarray] = []
        self._go_on()
        try:
            if is_lit:
                self.blank(False)
            for _ in range(int(count)):
                self._go_on()
                arrays += take()
        finally:
            self.blank(True)
        return arrays

    def _scanned(self, size: tuple[int, int, float, float, bool], signals: list[int]) -> list[np.ndarray]:
        """One frame: an image for each signal, filled by DigiScan, and a copy of it."""
        dm, (width, height) = self._dm, size[:2]
        images = [dm.CreateImage(np.zeros((height, width), np.uint32)) for _ in signals]
        parameters = dm.DS_CreateParameters(*size)
        try:
            for signal, image in zip(signals, images):  # noqa: B905  DigitalMicrograph's Python is older than `strict`
                dm.DS_SetParametersSignal(parameters, int(signal), DATA_BYTES, True, image.GetID())
            dm.DS_StartAcquisition(parameters, False, True)  # once, and back when it is done
        finally:
            dm.DS_DeleteParameters(parameters)
        return [np.array(image.GetNumArray()) for image in images]

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped("stopped, the beam blanked; release it first")


COMMANDS = (
    "describe", "clock", "read", "move", "focus", "beam_shift", "magnification", "blank", "release", "scan", "camera",
)  # fmt: skip
STOPS = ("stop",)


class Server:
    """The listening socket, and who may command."""

    def __init__(self, instrument: Instrument, secret: bytes) -> None:
        self._instrument = instrument
        self._secret = secret
        self._owner = threading.Lock()
        self._owning: tuple[str, socket.socket] | None = None

    def serve(self, listener: socket.socket) -> None:
        """Every client in a thread of its own; never ends."""
        while True:
            client, address = listener.accept()
            threading.Thread(target=self._answer, args=(client, address), daemon=True).start()

    def _answer(self, client: socket.socket, address: Any) -> None:
        with client:
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.settimeout(HANDSHAKE_S)
                hello = greeted(client, self._secret)
                if hello["line"] == "stop":
                    self._serve(client, STOPS)
                else:
                    self._command(client, str(hello["session"]), bool(hello["takes_over"]))
            except EOFError:
                return
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"client {address} dropped: {error or type(error).__name__}")

    def _command(self, client: socket.socket, session: str, takes_over: bool) -> None:
        """This client commands, until it hangs up; then the beam is blanked. There is one at a time."""
        former = self._owning
        may_replace = former is not None and (takes_over or former[0] == session)
        if former is not None and may_replace:
            hung_up(former[1])  # the same client on a new line, or one whose computer died
        if not self._owner.acquire(timeout=HANDSHAKE_S if may_replace else 0.2):
            send(client, {"ready": False, "words": "another client has it, or it is in the middle of something"})
            return
        try:
            self._owning = (session, client)
            send(client, {"ready": True})
            self._serve(client, COMMANDS)
        finally:
            self._owning = None
            reply: dict[str, Any] = {}
            with Told(reply):
                self._instrument.blank(True)
            if reply:
                say("the client is gone, and {}".format(reply["error"]["words"]))
            self._owner.release()

    def _serve(self, client: socket.socket, known: tuple[str, ...]) -> None:
        """Calls, one after another. Raises OSError when an open beam was left alone: then the line is closed."""
        while True:
            client.settimeout(LEASE_S if self._instrument.is_lit and known is COMMANDS else None)
            request = receive(client)
            client.settimeout(None)
            carry_out(self._instrument, request, known, client)


def told(kind: Any, ask: Any) -> Any:
    """What a call gives, as `kind` makes it; None where it raises, as of an axis that the holder has not."""
    with Told({}):
        return kind(ask())
    return None


def floats(values: Any) -> list[float]:
    """Numbers as a reply can hold them."""
    return [float(value) for value in values]


def carry_out(instrument: Instrument, request: dict[str, Any], known: tuple[str, ...], client: socket.socket) -> None:
    """One call and its reply; arrays follow the reply as they lie."""
    reply: dict[str, Any] = {"id": request["id"], "arrays": []}
    arrays: list[np.ndarray] = []
    with Told(reply):
        if request["call"] not in known:
            raise Refused("no call {!r} on this line".format(request["call"]))
        result = getattr(instrument, request["call"])(**request.get("with", {}))
        if isinstance(result, list):
            arrays = [np.ascontiguousarray(array) for array in result]
            reply["arrays"] = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
        else:
            reply["result"] = result
    send(client, reply)
    for array in arrays:
        client.sendall(array.data)


def greeted(client: socket.socket, secret: bytes) -> dict[str, Any]:
    """What the client says of itself, once both ends have proved that they know the secret."""
    ours = secrets.token_hex(32)
    send(client, {"protocol": PROTOCOL, "nonce": ours})
    hello = receive(client)
    words = (str(hello["line"]), str(hello["session"]), str(hello["takes_over"]), ours, str(hello["nonce"]))
    if not hmac.compare_digest(proof(secret, "client", *words), str(hello["proof"])):
        raise ValueError("it does not know the secret")
    send(client, {"proof": proof(secret, "server", *words)})
    return hello


def proof(secret: bytes, *words: str) -> str:
    """That who says these words knows the secret."""
    return hmac.new(secret, json.dumps(words).encode(), hashlib.sha256).hexdigest()


def send(client: socket.socket, message: dict[str, Any]) -> None:
    """A message: its length in four bytes, then JSON."""
    content = json.dumps(message).encode()
    client.sendall(struct.pack(">I", len(content)) + content)


def receive(client: socket.socket) -> dict[str, Any]:
    """The next message. Raises EOFError, ValueError."""
    (size,) = struct.unpack(">I", exactly(client, 4))
    if size > LARGEST_REQUEST:
        raise ValueError(f"a message of {size} bytes")
    message = json.loads(exactly(client, size).decode())
    if not isinstance(message, dict):
        raise ValueError("a message that is no table")
    return message


def exactly(client: socket.socket, size_bytes: int) -> bytes:
    """So many bytes. Raises EOFError."""
    data = b""
    while len(data) < size_bytes:
        piece = client.recv(size_bytes - len(data))
        if not piece:
            raise EOFError("it hung up")
        data += piece
    return data


def hung_up(client: socket.socket) -> None:
    """Hang up, so that its thread ends after what it is in the middle of."""
    with Told({}):
        client.shutdown(socket.SHUT_RDWR)


def say(words: str) -> None:
    """A line in DigitalMicrograph's output."""
    print("stempilot: " + words, flush=True)  # noqa: T201


def read_secret(path: str) -> bytes:
    """The one line of that file."""
    with open(path, encoding="ascii") as file:  # noqa: PTH123  as little as possible is imported
        secret = file.read().strip().encode("ascii")
    if len(secret) < 32:
        raise ValueError(f"the secret in {path} has {len(secret)} characters; it needs 32 or more")
    return secret


def main() -> None:
    """Blank, listen, serve."""
    import DigitalMicrograph  # pyright: ignore[reportMissingImports]

    secret = read_secret(SECRET_FILE)
    instrument = Instrument(DigitalMicrograph)
    listener = socket.socket()
    listener.bind((HOST, PORT))
    listener.listen(8)
    say(f"listening at {HOST} {listener.getsockname()[1]}")
    Server(instrument, secret).serve(listener)


if __name__ == "__main__":
    main()
