"""A connection against servers that are mute, slow, killed, talk across, or answer too late."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from instruments import Events, InstrumentBusy, LinkLost, ResultUnknown, Unsupported
from instruments.connections import Connection, Exchange, Line, WrongReply, http_exchange

SHORT_S = 0.25
LONG_S = 60.0
Serve = Callable[[socket.socket, int], None]


@contextmanager
def server(serve: Serve) -> Iterator[int]:
    """A port; `serve` gets each connection with its number, counted from 0. Everything is closed at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    plains: list[socket.socket] = []

    def run(plain: socket.socket, number: int) -> None:
        with plain, suppress(OSError, ValueError):
            serve(plain, number)

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plains.append(plain)
            threads.append(threading.Thread(target=run, args=(plain, len(threads))))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for plain in plains:
            with suppress(OSError):
                plain.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def asked(plain: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        more = plain.recv(1)
        if not more:
            raise OSError("client gone")
        data += more
    return data.decode().strip()


def answer(plain: socket.socket, _: int) -> None:
    """A good server: to `NAME NUMBER` it says the number doubled, with the name."""
    while True:
        name, number = asked(plain).split()
        plain.sendall(f"{name} {2 * int(number)}\n".encode())


def double(name: str, number: int) -> Exchange[int]:
    """The exchange of one request; a reply with another name is not ours."""

    def exchange(line: Line) -> int:
        line.send(f"{name} {number}\n".encode())
        replied, value = line.read_until(b"\n").decode().split()
        if replied != name:
            raise WrongReply(f"asked for {name}, answered {replied}")
        if value == "-1":
            raise Unsupported("the server has no such thing")
        return int(value)

    return exchange


@contextmanager
def connected(serve: Serve, events: Events | None = None) -> Iterator[Connection]:
    with server(serve) as port:
        connection = Connection("bench", "127.0.0.1", port, events=events)
        try:
            yield connection
        finally:
            connection.close()


def ask(connection: Connection, number: int, *, name: str = "x", deadline_s: float = LONG_S, again: bool = True) -> int:
    return connection.call(double(name, number), what="double", deadline_s=deadline_s, repeatable=again)


def test_calls_are_answered() -> None:
    with connected(answer) as connection:
        assert [ask(connection, number) for number in range(5)] == [0, 2, 4, 6, 8]
        assert not connection.is_lost


@pytest.mark.parametrize(("again", "error"), [(True, LinkLost), (False, ResultUnknown)])
def test_a_mute_server_ends_at_the_deadline(again: bool, error: type[Exception]) -> None:
    def mute(plain: socket.socket, _: int) -> None:
        while plain.recv(100):
            pass

    with connected(mute) as connection, pytest.raises(error, match="silent until the deadline"):
        ask(connection, 1, deadline_s=SHORT_S, again=again)


def test_bytes_that_drip_in_do_not_move_the_deadline() -> None:
    def drip(plain: socket.socket, _: int) -> None:
        asked(plain)
        while True:
            plain.sendall(b"1")
            time.sleep(0.02)

    with connected(drip) as connection, pytest.raises(ResultUnknown, match="silent until the deadline"):
        ask(connection, 1, deadline_s=SHORT_S, again=False)


def test_a_late_reply_is_never_that_of_the_next_call() -> None:
    may_answer = threading.Event()

    def late(plain: socket.socket, number: int) -> None:
        if number == 0:
            asked(plain)
            may_answer.wait(LONG_S)
            plain.sendall(b"x 666\n")
        else:
            answer(plain, number)

    with connected(late) as connection:
        with pytest.raises(ResultUnknown):
            ask(connection, 1, deadline_s=SHORT_S, again=False)
        may_answer.set()
        assert [ask(connection, number, again=False) for number in (1, 2, 3)] == [2, 4, 6]


def test_what_nobody_asked_for_is_not_taken_for_a_reply() -> None:
    said = threading.Event()

    def chatty(plain: socket.socket, number: int) -> None:
        name, value = asked(plain).split()
        plain.sendall(f"{name} {2 * int(value)}\n".encode())
        if number == 0:
            plain.sendall(b"x 666\n")
            said.set()
        answer(plain, number)

    with connected(chatty) as connection:
        assert ask(connection, 1) == 2
        assert said.wait(LONG_S)
        deadline_s = time.monotonic() + LONG_S
        while connection._line is not None and connection._line.is_quiet and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert ask(connection, 5, again=False) == 10


@pytest.mark.parametrize(("again", "error"), [(True, LinkLost), (False, ResultUnknown)])
def test_the_reply_of_another_client_is_refused(again: bool, error: type[Exception]) -> None:
    def across(plain: socket.socket, _: int) -> None:
        while True:
            asked(plain)
            plain.sendall(b"other 3\n")

    with connected(across) as connection, pytest.raises(error, match="answered other"):
        ask(connection, 1, again=again)


def test_a_server_killed_in_the_middle_of_a_call_is_asked_again_only_where_that_is_harmless() -> None:
    requests: list[str] = []

    def dying(plain: socket.socket, number: int) -> None:
        if number % 2 == 0:
            requests.append(asked(plain))
            plain.sendall(b"x 1")  # and gone, without the end of the line
        else:
            answer(plain, number)

    with connected(dying) as connection:
        assert ask(connection, 4) == 8  # first broken off, then on a new line
        connection.reconnect()
        with pytest.raises(ResultUnknown, match="hung up"):
            ask(connection, 5, again=False)
        assert connection.is_lost
        assert requests == ["x 4", "x 5"]


def test_nobody_there_sends_nothing() -> None:
    with server(answer) as port:
        pass
    connection = Connection("bench", "127.0.0.1", port)
    for again in (True, False):
        with pytest.raises(LinkLost, match="was not sent"):
            ask(connection, 1, again=again)
    connection.close()
    with pytest.raises(LinkLost, match="was closed"):
        ask(connection, 1)


def test_a_no_of_the_server_keeps_the_line() -> None:
    numbers: list[int] = []

    def refusing(plain: socket.socket, number: int) -> None:
        numbers.append(number)
        asked(plain)
        plain.sendall(b"x -1\n")
        answer(plain, number)

    with connected(refusing) as connection:
        with pytest.raises(Unsupported):
            ask(connection, 1)
        assert ask(connection, 2) == 4
    assert numbers == [0]


def test_many_threads_get_their_own_answers() -> None:
    wrong: list[str] = []

    with connected(answer) as connection:

        def client(name: str) -> None:
            wrong.extend(f"{name} {number}" for number in range(50) if ask(connection, number, name=name) != 2 * number)

        threads = [threading.Thread(target=client, args=(f"client{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_whoever_waits_for_the_line_waits_until_its_deadline() -> None:
    release, inside = threading.Event(), threading.Event()

    def holding(line: Line) -> int:
        inside.set()
        release.wait(LONG_S)
        return 1

    with connected(answer) as connection:
        thread = threading.Thread(
            target=lambda: connection.call(holding, what="hold", deadline_s=LONG_S, repeatable=True)
        )
        thread.start()
        assert inside.wait(LONG_S)
        with pytest.raises(InstrumentBusy, match="nothing was sent"):
            ask(connection, 1, deadline_s=SHORT_S)
        release.set()
        thread.join()


def test_abort_breaks_a_call_that_waits() -> None:
    reached = threading.Event()

    def silent(plain: socket.socket, number: int) -> None:
        asked(plain)
        reached.set()
        plain.recv(1)

    errors: list[Exception] = []
    with connected(silent) as connection:

        def waiting() -> None:
            try:
                ask(connection, 1, again=False)
            except ResultUnknown as error:
                errors.append(error)

        thread = threading.Thread(target=waiting)
        thread.start()
        assert reached.wait(LONG_S)
        connection.abort()
        thread.join(LONG_S)
    assert len(errors) == 1


def test_a_link_lost_and_back_is_an_event() -> None:
    def once(plain: socket.socket, number: int) -> None:
        if number:
            answer(plain, number)

    events = Events()
    with events.subscribe() as told, connected(once, events) as connection:
        assert ask(connection, 1) == 2
        assert [event.kind for event in told.take()] == ["link_lost", "link_back"]


def test_a_greeting_comes_first_on_every_line() -> None:
    def greeting(plain: socket.socket, number: int) -> None:
        plain.sendall(b"hello\n")
        answer(plain, number)

    with server(greeting) as port:
        connection = Connection("bench", "127.0.0.1", port, greet=lambda line: line.read_until(b"\n"))
        assert ask(connection, 1) == 2
        connection.reconnect()
        assert ask(connection, 2) == 4
        connection.close()


def test_frames_are_read_without_a_copy() -> None:
    def sending(plain: socket.socket, _: int) -> None:
        asked(plain)
        plain.sendall(bytes(range(256)) * 1000)

    def exchange(line: Line) -> bytearray:
        line.send(b"x\n")
        head = line.read_exactly(56)
        rest = bytearray(256_000 - 56)
        line.fill(memoryview(rest))
        return bytearray(head) + rest

    with connected(sending) as connection:
        frame = connection.call(exchange, what="frame", deadline_s=LONG_S, repeatable=False)
        assert frame == bytes(range(256)) * 1000


def test_a_line_without_end_is_no_reply() -> None:
    def endless(plain: socket.socket, _: int) -> None:
        while True:
            plain.sendall(b"a" * 10_000)

    with connected(endless) as connection, pytest.raises(LinkLost, match="within 100000 bytes"):
        connection.call(lambda line: line.read_until(b"\n", 100_000), what="read", deadline_s=LONG_S, repeatable=True)


# --- HTTP


class Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = json.dumps({"path": self.path, "got": json.loads(body)}).encode()
        self.send_response(200 if self.path == "/good" else 404)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None:
        pass


def test_http_on_a_line_that_is_kept() -> None:
    pages = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=pages.serve_forever, args=(0.01,))
    thread.start()
    try:
        host, port = "127.0.0.1", pages.server_address[1]
        connection = Connection("pages", host, int(port))
        for path, status in (("/good", 200), ("/bad", 404), ("/good", 200)):
            request = http_exchange("PUT", path, host=f"{host}:{port}", body=b'{"x": 1}')
            reply = connection.call(request, what=path, deadline_s=LONG_S, repeatable=True)
            assert (reply.status, json.loads(reply.body)) == (status, {"path": path, "got": {"x": 1}})
        connection.close()
    finally:
        pages.shutdown()
        thread.join()
        pages.server_close()


def test_http_refuses_what_is_no_http_and_headers_with_line_breaks() -> None:
    def other(plain: socket.socket, _: int) -> None:
        asked(plain)
        plain.sendall(b"WELCOME to port 7\r\n\r\n")

    with connected(other) as connection, pytest.raises(ResultUnknown, match="no HTTP reply"):
        connection.call(http_exchange("x", "1", host="h"), what="page", deadline_s=LONG_S, repeatable=False)
    with pytest.raises(ValueError, match="line break"):
        http_exchange("GET", "/", host="h", headers={"X": "a\r\nB: c"})
