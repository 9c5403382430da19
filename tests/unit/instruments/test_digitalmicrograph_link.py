"""The adapter's end of the line to DigitalMicrograph, against servers that answer wrongly; and its configuration."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    LinkLost,
    Optics,
    ResultUnknown,
)
from instruments.adapters.digitalmicrograph_config import DigitalMicrographConfig, ScanConfig, capabilities_of
from instruments.adapters.digitalmicrograph_frames import Scanned
from instruments.adapters.digitalmicrograph_link import PROTOCOL, DigitalMicrographLink, ServerError
from instruments.scans import ScanPattern

SECRET = "of these tests only: 0123456789abcdef"
Answer = Callable[[dict[str, Any]], bytes]


def framed(content: Any, *arrays: np.ndarray) -> bytes:
    data = json.dumps(content).encode()
    return struct.pack(">I", len(data)) + data + b"".join(array.tobytes() for array in arrays)


def message(client: socket.socket) -> dict[str, Any]:
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        piece = client.recv(4096)
        if not piece:
            raise EOFError
        data += piece
    return json.loads(data[4:])


def greet(client: socket.socket) -> None:
    client.sendall(framed({"protocol": PROTOCOL, "nonce": "n"}))
    hello = message(client)
    words = json.dumps(
        ["server", hello["line"], hello["session"], str(hello["takes_over"]), "n", hello["nonce"]]
    ).encode()
    proof = hmac.new(SECRET.encode(), words, hashlib.sha256).hexdigest()
    client.sendall(framed({"proof": proof}) + framed({"ready": True}))


@contextmanager
def answering(*answers: Answer, greeting: Callable[[socket.socket], None] = greet) -> Iterator[DigitalMicrographLink]:
    """A link to a server that greets rightly and gives these answers, one after another, then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = iter(answers)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError, EOFError):
                client.settimeout(30)
                greeting(client)
                while True:
                    request = message(client)
                    client.sendall(next(left, lambda _: b"")(request))

    thread = threading.Thread(target=serve)
    thread.start()
    link = DigitalMicrographLink("127.0.0.1", listener.getsockname()[1], SECRET, 30.0)
    try:
        yield link
    finally:
        link.close()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
    assert not thread.is_alive()


def right(request: dict[str, Any]) -> bytes:
    return framed({"id": request["id"], "arrays": [], "result": request["call"]})


def arrays(*described: Any) -> Answer:
    return lambda request: framed({"id": request["id"], "arrays": list(described)})


WRONG: dict[str, Answer] = {
    "silent": lambda _: b"",
    "of another call": lambda request: framed({"id": request["id"] + 1, "result": 5}),
    "too long": lambda _: struct.pack(">I", 1 << 31),
    "no JSON": lambda _: struct.pack(">I", 3) + b"{{{",
    "no table": lambda _: framed([1, 2]),
    "arrays of objects": arrays({"dtype": "O", "shape": [2, 2]}),
    "arrays without end": arrays({"dtype": "<u4", "shape": [1 << 20, 1 << 20]}),
    "arrays of nothing": arrays({"dtype": "<u4", "shape": [0, 4]}),
    "no arrays": arrays(3),
    "arrays that stop": lambda request: arrays({"dtype": "<u4", "shape": [4, 4]})(request) + bytes(63),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_is_none_and_the_next_call_gets_its_own(kind: str) -> None:
    within_s = 0.4 if kind in ("silent", "arrays that stop") else 30.0
    with answering(right, WRONG[kind], right) as link:
        link.ask("read")
        with pytest.raises(ResultUnknown, match="its dose counts as spent"):
            link.ask("scan", within_s=within_s, repeatable=False)
        assert link.is_lost
        assert link.ask("read").result == "read"
        assert not link.is_lost


def test_what_may_be_sent_again_is_sent_once_more() -> None:
    with answering(WRONG["no JSON"], right) as link:
        assert link.ask("read").result == "read"
    with answering(WRONG["no JSON"], WRONG["no JSON"], right) as link, pytest.raises(LinkLost):
        link.ask("read")


def test_arrays_come_as_they_lie() -> None:
    sent = np.arange(6, dtype="<u4").reshape(2, 3), np.ones((3, 1), "<f8")
    described = [{"dtype": one.dtype.str, "shape": one.shape} for one in sent]
    with answering(lambda request: framed({"id": request["id"], "arrays": described}, *sent)) as link:
        reply = link.ask("scan", repeatable=False)
    assert all(np.array_equal(found, array) for found, array in zip(reply.arrays, sent, strict=True))


def test_what_the_server_says_no_to_keeps_its_name() -> None:
    error = {"kind": "StillLit", "words": "the beam is on"}
    with answering(lambda request: framed({"id": request["id"], "error": error}), right) as link:
        with pytest.raises(ServerError, match="the beam is on") as raised:
            link.ask("scan", repeatable=False)
        assert raised.value.kind == "StillLit"
        assert link.ask("read").result == "read", "on the same line"


def test_a_server_that_does_not_know_the_secret_is_told_nothing() -> None:
    heard: list[dict[str, Any]] = []

    def impostor(client: socket.socket) -> None:
        client.sendall(framed({"protocol": PROTOCOL, "nonce": "n"}))
        hello = message(client)
        client.sendall(framed({"proof": hello["proof"]}) + framed({"ready": True}))  # our own proof given back
        heard.append(message(client))

    with answering(right, greeting=impostor) as link, pytest.raises(LinkLost, match="does not know the secret"):
        link.ask("read")
    assert heard == []
    older = framed({"protocol": PROTOCOL - 1, "nonce": "n"})
    with (
        answering(right, greeting=lambda client: client.sendall(older)) as link,
        pytest.raises(LinkLost, match=f"speaks protocol {PROTOCOL - 1}, not {PROTOCOL}; copy the new one there"),
    ):
        link.ask("read")


def config(folder: Path, **more: Any) -> dict[str, Any]:
    scan = {"signals": {"haadf": 0}, "fields_nm": {"5": 128.0, "7": 64.0}}  # as TOML has keys
    secret = folder / "secret"
    secret.write_text(SECRET)
    return {"secret_file": secret, "scan": scan, "probe_current_pa": 50.0, "beam_energy_ev": 60e3, **more}


def test_configurations_that_cannot_be_meant(tmp_path: Path) -> None:
    for wrong, words in (
        ({"scan": None}, "neither scan nor camera"),
        ({"limits": {"x_nm": (5, -5)}}, "not in order"),
        ({"limits": {"defocus_nm": (-5, 5)}}, "focus calibration"),
        ({"limits": {"beam_shift_x_nm": (-5, 5)}}, "limits of both its axes"),
        ({"beam_shift": {"matrix": ((1, 2), (2, 4))}}, "loses a direction"),
        ({"focus": {"scale": 0}}, "cannot be 0 nm"),
        ({"scan": {"signals": {}, "fields_nm": {5: 1.0}}}, "scan.signals"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            DigitalMicrographConfig.checked(config(tmp_path, **wrong))
    with pytest.raises(ConfigurationError, match="secret_file"):
        DigitalMicrographConfig.checked(config(tmp_path, secret_file=tmp_path / "none")).secret()


def test_the_card_says_what_cannot_be_promised(tmp_path: Path) -> None:
    card = capabilities_of(DigitalMicrographConfig.checked(config(tmp_path)))
    assert not card.can_interrupt
    assert not card.simulated
    assert card.axis("x_nm") is None, "no limits, no axis"
    field = card.axis("field_of_view_nm")
    assert field is not None
    assert field.maximum == pytest.approx(128.0 * 1.005)


def test_frames_from_images() -> None:
    command = AcquireFrame(
        action_id="a", deadline_s=1, mode="scan", optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=1),
        scan=ScanPattern(field_of_view_nm=64, shape_px=(2, 3), dwell_time_us=1),
    )  # fmt: skip
    shot = Scanned(ScanConfig(signals={"haadf": 0}, fields_nm={5: 64.0}, flip_rows=True))
    image = np.arange(6.0).reshape(2, 3)
    counts = shot.counts(image, command)
    assert (counts.dtype.kind, counts.tolist()) == ("u", [[3, 4, 5], [0, 1, 2]])
    for wrong in (image + 0.5, image - 1, image[:, :2]):
        with pytest.raises(AcquisitionFailed, match="counts from 0"):
            shot.counts(wrong, command)
    assert shot.magnification_index(command, present=9) == 5
    with pytest.raises(CommandRefused, match="no magnification gives"):
        shot.magnification_index(command.model_copy(update={"scan": command.scan.model_copy(
            update={"field_of_view_nm": 60.0})}), present=5)  # fmt: skip
