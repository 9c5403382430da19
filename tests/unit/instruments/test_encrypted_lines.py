"""Lines under TLS: everything arrives as it was sent, nothing in the clear, nobody with another certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from instruments import ConfigurationError
from instruments.remote import lines
from instruments.remote.encrypted import client_context, make_certificate, server_context
from instruments.remote.lines import ListeningLine, dial
from instruments.remote.wire import receive, send

SECRET = b"s" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder / "c.pem", folder / "k.pem", "titan")
    return folder / "c.pem", folder / "k.pem"


def echo(connection: Connection) -> None:
    while connection.poll(None):
        send(connection, receive(connection))


@pytest.fixture
def line(made: tuple[Path, Path]) -> Iterator[ListeningLine]:
    with closing(ListeningLine("echo", SECRET, echo, tls=server_context(*made))) as listening:
        yield listening


def test_arrays_larger_than_every_buffer_come_back_as_they_went(line: ListeningLine, made: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 2**16, shape).astype(np.uint16) for shape in ((1, 3), (2, 700, 900), (0, 4))]
    with dial("127.0.0.1", line.port, SECRET, 60.0, client_context(made[0].read_text())) as connection:
        for image in images:
            send(connection, {"image": image})
            assert connection.poll(60.0)
            back = receive(connection)["image"]
            assert (back.dtype, back.shape, back.tobytes()) == (image.dtype, image.shape, image.tobytes())
    assert made[1].stat().st_mode & 0o077 == 0


def test_another_certificate_no_tls_and_another_secret_are_refused(
    line: ListeningLine, made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path / "c.pem", tmp_path / "k.pem", "titan")
    with pytest.raises(ssl.SSLCertVerificationError):
        dial("127.0.0.1", line.port, SECRET, 60.0, client_context((tmp_path / "c.pem").read_text()))
    with pytest.raises(AuthenticationError):
        dial("127.0.0.1", line.port, b"t" * 64, 60.0, client_context(made[0].read_text()))
    monkeypatch.setattr(lines, "HANDSHAKE_S", 0.2)  # it waits for who says nothing it understands
    with pytest.raises(OSError, match=r"is not an instrument's|reset"):
        dial("127.0.0.1", line.port, SECRET, 60.0)
    monkeypatch.undo()
    with dial("127.0.0.1", line.port, SECRET, 60.0, client_context(made[0].read_text())) as connection:
        send(connection, "still there")
        assert receive(connection) == "still there"


def test_nothing_is_readable_on_the_cable(made: tuple[Path, Path], line: ListeningLine) -> None:
    """A cable that keeps what goes over it: the words sent are not in it."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as tap:

        def carry() -> None:
            here, _ = tap.accept()
            there = socket.create_connection(("127.0.0.1", line.port))
            with here, there:
                back = threading.Thread(target=copy, args=(there, here))
                back.start()
                copy(here, there)
                there.shutdown(socket.SHUT_WR)
                back.join()

        def copy(source: socket.socket, into: socket.socket) -> None:
            while got := source.recv(4096):
                heard.extend(got)
                into.sendall(got)

        carrier = threading.Thread(target=carry)
        carrier.start()
        with dial("127.0.0.1", tap.getsockname()[1], SECRET, 60.0, client_context(made[0].read_text())) as connection:
            send(connection, "the defocus of the century")
            assert receive(connection) == "the defocus of the century"
        carrier.join()
    assert len(heard) > 500
    assert b"defocus" not in heard


def test_what_is_no_certificate_is_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no certificate with its key"):
        server_context(made[0], made[0])
    with pytest.raises(ConfigurationError, match="no certificate with its key"):
        server_context(tmp_path / "none.pem", made[1])
    with pytest.raises(ConfigurationError, match="copy the ticket again"):
        client_context("nonsense")
