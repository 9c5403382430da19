"""SerialEM's socket as its public sources describe it, written for these tests: not SerialEM."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import numpy as np

NUMBERS = {
    "TiltTo": 65, "Record": 75, "MoveStageTo": 286, "ReportStageXYZ": 293, "ReportTiltAngle": 294,
    "ReportHighVoltage": 412, "SetExposure": 419, "SetBeamBlank": 459,
}  # fmt: skip
SIDE_PX = 64
_places = np.random.default_rng(8).uniform(-250, 250, (2000, 2))


class SerialEMDouble:
    """One client at a time; stage in um, images upside down as SerialEM holds them, in `chunks` pieces."""

    def __init__(self, chunks: int = 3) -> None:
        self.stage_um, self.tilt_deg, self.is_blanked, self.exposure_s = [0.0, 0.0, 0.0], 0.0, False, 0.1
        self.chunks, self.busy, self.fails, self.is_mute, self.handshakes = chunks, False, "", False, 0
        self.lit_count = 0  # exposures begun with the beam on
        self.seen: list[tuple[str, list[float], list[str]]] = []
        self._rng = np.random.default_rng(3)
        self._image: np.ndarray | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def hang_up(self) -> None:
        client = self._client
        if client is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._listener.accept()
            except OSError:
                return
            with self._client as client:
                try:
                    while True:
                        self._answer(client)
                except (OSError, EOFError):
                    continue

    def _message(self, client: socket.socket) -> bytes:
        (size,) = struct.unpack("<i", self._exactly(client, 4))
        return self._exactly(client, size - 4)

    def _exactly(self, client: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = client.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _answer(self, client: socket.socket) -> None:
        body = self._message(client)
        (code,) = struct.unpack_from("<i", body)
        if self.is_mute:
            return
        if self.busy:
            client.sendall(struct.pack("<2i", 8, -9))
        elif code == 3:
            client.sendall(struct.pack("<3i", 12, 0, 1))
        elif code == 4:
            self._send_image(client)
        else:
            assert code == 1
            self._command(client, body)

    def _command(self, client: socket.socket, body: bytes) -> None:
        number, last, words = struct.unpack_from("<3i", body, 4)
        array = body[16:]
        assert len(array) == 4 * words
        doubles: list[float] = []
        texts: list[str] = []
        if last > 0:
            doubles = list(struct.unpack_from(f"<{last + 1}d", array, 4 * (last + 1)))[1:]
            texts = [one.decode() for one in array[12 * (last + 1) :].split(b"\0")][1 : last + 1]
        name = next(name for name, known in NUMBERS.items() if known == number)
        self.seen.append((name, doubles, texts))
        reported = self._carried_out(name, doubles)
        count, error = len(reported), int(self.fails == name)
        flags_and_values = struct.pack(f"<{count}i{count}d", *([0] * count), *reported)
        padded = flags_and_values.ljust((len(flags_and_values) + 5) // 4 * 4, b"\0")
        longs = struct.pack("<4i", 0, count - 1, error, len(padded) // 4)
        client.sendall(struct.pack("<i", 4 + len(longs) + len(padded)) + longs + padded)

    def _carried_out(self, name: str, doubles: list[float]) -> list[float]:
        match name:
            case "ReportStageXYZ":
                return list(self.stage_um)
            case "ReportTiltAngle":
                return [self.tilt_deg]
            case "ReportHighVoltage":
                return [60.0]
            case "MoveStageTo":
                self.stage_um = list(doubles)
            case "TiltTo":
                self.tilt_deg = doubles[0]
            case "SetBeamBlank":
                self.is_blanked = doubles[0] != 0
            case "SetExposure":
                self.exposure_s = doubles[1]
            case "Record":
                self.lit_count += not self.is_blanked
                self._image = self._recorded()
                time.sleep(self.exposure_s)
        return []

    def _recorded(self) -> np.ndarray:
        offsets = np.arange(SIDE_PX) - (SIDE_PX - 1) / 2
        x, y = offsets[None, :] + 1e3 * self.stage_um[0], offsets[:, None] + 1e3 * self.stage_um[1]
        along_y, along_x = np.exp(-((y - _places[:, 1]) ** 2) / 20), np.exp(-((x.T - _places[:, 0]) ** 2) / 20)
        bright = along_y @ along_x.T
        rate = 0.0 if self.is_blanked else 2e4 * self.exposure_s
        return self._rng.poisson(rate * (0.1 + bright)).astype("<u2")[::-1]

    def _send_image(self, client: socket.socket) -> None:
        image = self._image
        if image is None:
            client.sendall(struct.pack("<8i", 32, 0, 0, 0, 0, 0, 0, 0))
            return
        data, (rows, columns) = image.tobytes(), image.shape
        client.sendall(struct.pack("<8i", 32, 0, 6, 2 * columns, columns, rows, len(data), self.chunks))
        piece = -(-len(data) // self.chunks)
        for start in range(0, len(data), piece):
            if start:
                assert self._message(client) == struct.pack("<i", 2)
                self.handshakes += 1
            client.sendall(data[start : start + piece])
