"""The Merlin adapter against a server that answers wrongly, late, or not at all; what it sends is written out here."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Capabilities,
    Command,
    CommandRefused,
    Detector,
    Frame,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    LinkLost,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    ResultUnknown,
    ScanPattern,
    Unsupported,
    registry,
)
from instruments.adapters.merlin import MerlinMicroscope
from instruments.adapters.merlin.config import MerlinConfig
from instruments.adapters.merlin.control import MerlinControl
from instruments.adapters.merlin.messages import payload_bytes, request

SIDE_PX, COUNT = 4, 4
CONFIG: dict[str, Any] = {
    "shape_px": (SIDE_PX, SIDE_PX), "settle_s": 0.0, "answer_s": 60.0, "first_frame_s": 60.0, "trigger": "internal",
    "thresholds_ev": (20e3,),
}  # fmt: skip


def counts_of(number: int) -> np.ndarray:
    return np.arange(SIDE_PX * SIDE_PX, dtype=np.uint16).reshape(SIDE_PX, SIDE_PX) + 300 * number


def framed(payload: bytes) -> bytes:
    return b"MPX,%010d," % (len(payload) + 1) + payload


def frame(
    number: int,
    *,
    kind: str = "MQ1",
    exposure_s: float = 1e-3,
    side: int = SIDE_PX,
    threshold: float = 20,
    holds: tuple[str, str] = ("U16", ">u2"),
) -> bytes:
    """`holds` is the number type as the header calls it, and NumPy."""
    text = (
        f"{kind},{number:06d},00384,01,{side:04d},{side:04d},{holds[0]},1x1,01,now,{exposure_s},0,0,0,"
        f"{float(threshold)},0,0,0,0,0,0,0,3RX,12"
    )
    return framed(text.encode().ljust(384) + counts_of(number).astype(holds[1]).tobytes())


def announced(count: int = COUNT) -> bytes:
    return framed(f"HDR,\t\nFrames in Acquisition (Number):\t{count}\nEnd\t".encode())


GOOD = announced() + b"".join(frame(number) for number in range(1, COUNT + 1))


class Server:
    """Both ports; sends `data` when armed, and answers as `answer` says (None: never)."""

    def __init__(self) -> None:
        self.data = GOOD
        self.before_arming = b""
        self.answer: Callable[[str, str, str], str | None] = lambda kind, name, said: said
        self.asked: list[tuple[str, str]] = []
        self.values = {"IMAGEX": str(SIDE_PX), "IMAGEY": str(SIDE_PX)}
        self._control, self._frames = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self._lines: list[socket.socket] = []
        self._reader: socket.socket | None = None
        self.has_greeted = threading.Event()
        self._accepting = [
            threading.Thread(target=self._accept, args=(port, serve), daemon=True)
            for port, serve in ((self._control, self._serve_control), (self._frames, self._serve_frames))
        ]
        for thread in self._accepting:
            thread.start()

    @property
    def ports(self) -> dict[str, int]:
        return {"control_port": self._control.getsockname()[1], "data_port": self._frames.getsockname()[1]}

    def hang_up(self) -> None:
        for port in (self._control, self._frames):
            with suppress(OSError):
                port.shutdown(socket.SHUT_RDWR)
        for thread in self._accepting:  # so that no line is accepted after the last was closed
            thread.join(30.0)
        for line in (*self._lines, self._control, self._frames):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _accept(self, port: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            while True:
                line = port.accept()[0]
                self._lines.append(line)
                threading.Thread(target=serve, args=(line,), daemon=True).start()

    def _serve_frames(self, line: socket.socket) -> None:
        with suppress(OSError):
            line.sendall(self.before_arming)
        self._reader = line
        self.has_greeted.set()

    def _waiting_reader(self) -> socket.socket:
        """Who waits for frames now: not one that has hung up, and the next may not be accepted yet."""
        until_s = time.monotonic() + 60.0
        while self._reader is None or _has_hung_up(self._reader):
            assert time.monotonic() < until_s, "nobody waits for frames"
            time.sleep(0.005)
        return self._reader

    def _serve_control(self, line: socket.socket) -> None:
        with suppress(OSError, ValueError), line.makefile("rb") as file:
            while prefix := file.read(15):
                kind, name, value = file.read(payload_bytes(prefix)).decode().split(",")
                self.asked.append((kind, name))
                reply = self.answer(kind, name, self._said(kind, name, value))
                if reply is not None:
                    line.sendall(framed(reply.encode()))
                if name == "STARTACQUISITION":
                    self._waiting_reader().sendall(self.data)
                if name == "HANG":
                    line.close()

    def _said(self, kind: str, name: str, value: str) -> str:
        if kind == "SET":
            self.values[name] = value
        return f"GET,{name},{self.values.get(name, 'undef')},0" if kind == "GET" else f"{kind},{name},0"


def _has_hung_up(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def wait_no_longer_than(answer_s: float, part: MerlinMicroscope | MerlinControl) -> None:
    """From here on; what comes before may take as long as a busy machine takes."""
    part._config = part._config.model_copy(update={"answer_s": answer_s})


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.hang_up()


@pytest.fixture
def merlin(server: Server) -> Iterator[MerlinMicroscope]:
    opened = registry.open("merlin", **CONFIG, **server.ports)
    assert isinstance(opened, MerlinMicroscope)
    yield opened
    opened.close()


def command(action_id: str = "one") -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=120.0,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25.0),
        scan=ScanPattern(field_of_view_nm=1.0, shape_px=(2, 2), dwell_time_us=1000.0),
        mode="patterns",
    )


def test_frames_and_settings_as_they_are_meant(server: Server, merlin: MerlinMicroscope) -> None:
    counts = merlin.acquire(command()).counts["merlin"]
    assert np.array_equal(counts.reshape(COUNT, SIDE_PX, SIDE_PX), [counts_of(number) for number in range(1, 5)])
    told = {name: float(server.values[name]) for name in ("ACQUISITIONTIME", "NUMFRAMESTOACQUIRE", "THRESHOLD0")}
    assert told == {"ACQUISITIONTIME": 1.0, "NUMFRAMESTOACQUIRE": 4.0, "THRESHOLD0": 20.0}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (announced() + frame(1) + frame(2) + frame(4) + frame(5), "frames 3 to 3 were lost"),
        (announced() + frame(2) + frame(3) + frame(4) + frame(5), "frames 1 to 1 were lost"),
        (announced() + frame(1) + frame(1) + frame(2) + frame(3), "out of order"),
        (announced() + frame(1) + frame(2), "after 1 of 4 frames: nothing more came"),
        (announced() + frame(1) + frame(2) + frame(3) + frame(4)[:-2], "after 1 of 4 frames: nothing more came"),
        (announced() + frame(1) + frame(2)[:-2] + frame(3) + frame(4) + b"MP", "no beginning of a message"),
        (announced() + frame(1, kind="MQ2"), "no header of a frame"),
        (announced() + frame(1, side=8), "a detector of"),
        (announced() + frame(1) + frame(2, exposure_s=2e-3) + frame(3) + frame(4), "was exposed for 0.002 s"),
        (announced() + frame(1) + frame(2, threshold=9) + frame(3) + frame(4), "thresholds changed"),
        (announced() + frame(1) + frame(2, exposure_s=float("nan")) + frame(3) + frame(4), "was exposed for nan s"),
        (announced() + frame(1, threshold=float("nan")), "nan is no threshold"),
        (announced() + frame(1, holds=("U08", ">u1")), r"holds u1, not 2 bytes a pixel, as a depth of 12 bits"),
        (announced() + frame(1, holds=("U32", ">u4")), r"holds u4, not 2 bytes a pixel"),
        (announced(9) + frame(1), "announces 9 frames, asked for 4"),
        (frame(1), "no header of an acquisition"),
        (b"GARBAGE" * 20, "no beginning of a message"),
        (b"MPX,9999999999,HDR", "a header of 9999999998 bytes"),
    ],
)
def test_frames_that_are_lost_or_wrong_are_said_and_never_filled_in(
    server: Server, merlin: MerlinMicroscope, data: bytes, words: str
) -> None:
    server.data = data
    if "nothing more came" in words:
        wait_no_longer_than(0.1, merlin)
    with merlin.patterns.subscribe() as reader:
        with pytest.raises(AcquisitionFailed, match=words):
            merlin.acquire(command("bad"))
        with pytest.raises(AcquisitionFailed, match="ended early"):
            list(reader.blocks(60.0))
    assert ("CMD", "STOPACQUISITION") in server.asked, "it was disarmed"
    server.data = GOOD
    wait_no_longer_than(60.0, merlin)
    assert merlin.acquire(command("good")).counts["merlin"].max() == 1215, "nothing of the bad one is left"


def test_what_was_left_on_the_line_is_read_away(server: Server) -> None:
    server.before_arming = frame(7) * 3
    opened = registry.open("merlin", **{**CONFIG, "settle_s": 0.1}, **server.ports)
    try:
        assert server.has_greeted.wait(60.0)
        assert opened.acquire(command()).counts["merlin"].max() == 1215
    finally:
        assert isinstance(opened, MerlinMicroscope)
        opened.close()


def test_an_arming_without_an_answer_is_never_sent_again(server: Server, merlin: MerlinMicroscope) -> None:
    def answer(kind: str, name: str, said: str) -> str | None:
        is_arming = name == "STARTACQUISITION"
        if (kind, name) == ("GET", "FILEENABLE"):  # the last before it
            wait_no_longer_than(1.0, merlin._control)
        elif is_arming:
            wait_no_longer_than(60.0, merlin._control)
        return None if is_arming else said

    server.answer = answer
    with pytest.raises(ResultUnknown):
        merlin.acquire(command())
    assert server.asked.count(("CMD", "STARTACQUISITION")) == 1
    assert ("CMD", "STOPACQUISITION") in server.asked
    assert merlin.outcome("one") == "unknown"
    with pytest.raises(AcquisitionFailed, match="not repeated"):
        merlin.acquire(command())


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (lambda kind, name, said: said[:-1] + "1" if kind == "SET" else said, InstrumentBusy, "busy"),
        (lambda kind, name, said: said[:-1] + "2" if kind == "SET" else said, Unsupported, "does not know"),
        (lambda kind, name, said: said[:-1] + "3" if kind == "SET" else said, CommandRefused, "out of its range"),
        (lambda kind, name, said: f"GET,{name},7,0" if kind == "GET" else said, InstrumentFault, "instead of"),
        (lambda kind, name, said: "SET,ANOTHER,0" if kind == "SET" else said, LinkLost, "answered"),
        (lambda kind, name, said: None, LinkLost, "silent until the deadline"),
    ],
)
def test_settings_that_are_not_taken_arm_nothing(
    server: Server,
    merlin: MerlinMicroscope,
    answer: Callable[[str, str, str], str | None],
    expected: type[InstrumentError],
    words: str,
) -> None:
    server.answer = answer
    if words.startswith("silent"):
        wait_no_longer_than(0.2, merlin._control)
    with pytest.raises(expected, match=words):
        merlin.acquire(command())
    assert ("CMD", "STARTACQUISITION") not in server.asked
    assert merlin.outcome("one") == "not_started"


class Column:
    """An instrument that scans, and ends its scans as it is told; a stop ends one that goes on."""

    def __init__(self, ending: InstrumentError | None) -> None:
        self._ending, self._stop = ending, threading.Event()
        self.told: list[str] = []

    def capabilities(self) -> Capabilities:
        mode = Mode(name="haadf", detectors=(Detector(name="haadf", without_references="none"),))
        return Capabilities(name="column", simulated=True, axes=(), modes=(mode,))

    def acquire(self, command: AcquireFrame) -> Frame:
        if self._ending is not None:
            raise self._ending
        assert self._stop.wait(60.0), "nobody ended the scan"
        raise AcquisitionFailed("stopped")

    def stop(self) -> None:
        self.told.append("stop")
        self._stop.set()

    def release(self) -> None:
        self.told.append("release")

    def outcome(self, action_id: str) -> Outcome:
        return "unknown"

    def read_state(self) -> MicroscopeState:
        raise NotImplementedError

    def execute(self, command: Command) -> MicroscopeState:
        raise NotImplementedError


def scanned_by(column: Column, server: Server, **more: Any) -> MerlinMicroscope:
    scan = {"adapter": "handed in", "mode": "haadf"}
    return MerlinMicroscope(MerlinConfig.checked({**CONFIG, **server.ports, "column": scan, **more}), column)


@pytest.mark.parametrize("ending", [CommandRefused("too far"), AcquisitionFailed("the scan broke"), LinkLost("gone")])
def test_a_scan_that_fails_ends_the_wait_for_frames(server: Server, ending: InstrumentError) -> None:
    server.data, column = announced(), Column(ending)
    opened = scanned_by(column, server, first_frame_s=50.0)
    try:
        with pytest.raises(type(ending), match=str(ending)):
            opened.acquire(command())
    finally:
        opened.close()
    assert column.told == [], "it had ended by itself"
    assert ("CMD", "STOPACQUISITION") in server.asked
    assert opened.outcome("one") == ("not_started" if isinstance(ending, CommandRefused) else "unknown")


def test_lost_frames_end_the_scan_which_would_burn_for_nothing(server: Server) -> None:
    server.data, column = announced() + frame(1) + frame(3) + frame(4) + frame(5), Column(None)
    opened = scanned_by(column, server)
    try:
        with pytest.raises(AcquisitionFailed, match="frames 2 to 2 were lost"):
            opened.acquire(command())
    finally:
        opened.close()
    assert column.told == ["stop", "release"]


def test_a_stop_blanks_first_and_stays(server: Server) -> None:
    server.data, column = announced() + frame(1), Column(None)
    opened = scanned_by(column, server, first_frame_s=50.0, answer_s=20.0)
    try:
        with opened.patterns.subscribe() as reader, ThreadPoolExecutor(1) as owner:
            coming = owner.submit(opened.acquire, command())
            assert next(iter(reader.blocks(60.0))).first == 0, "it runs"
            opened.stop()
            with pytest.raises(InstrumentFault, match="stopped"):
                coming.result(60.0)
        assert column.told == ["stop"]
        with pytest.raises(InstrumentFault, match="stopped"):
            opened.acquire(command("after"))
        opened.release()
        assert column.told == ["stop", "release"]
    finally:
        opened.close()


def test_a_request_is_framed_with_its_comma() -> None:
    assert payload_bytes(request("GET", "TEMPERATURE")[:15]) == len("GET,TEMPERATURE,0")
