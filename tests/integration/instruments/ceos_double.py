"""CEOS's gateway as public clients of it describe it, written for these tests: not CEOS.

JSON-RPC in netstrings, one call a connection. Measurements need a beam; a correction moves an aberration by target
minus value.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

NOISE_M = 1e-10


class CeosDouble:
    """`spoil` turns a right reply (framed) into another; None: silence. `is_lit` says whether there is a beam."""

    def __init__(self, is_lit: Callable[[], bool]) -> None:
        self.true_m: dict[str, complex] = {
            "C1": -30e-9 + 0j, "A1": 12e-9 + 5e-9j, "B2": -40e-9 + 90e-9j, "A2": 60e-9 - 20e-9j, "C3": 1.5e-6 + 0j
        }  # fmt: skip
        self.is_lit = is_lit
        self.spoil: Callable[[bytes], bytes | None] = lambda reply: reply
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.asked = threading.Event()
        self._clients: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        for client in self._clients:
            client.close()
        assert not self._thread.is_alive()

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(30)
            with suppress(OSError, ValueError):
                if self._answer(client):
                    client.close()
                else:
                    self._clients.append(client)  # silent, and open until the end

    def _answer(self, client: socket.socket) -> bool:
        head = b""
        while not head.endswith(b":"):
            piece = client.recv(1)
            if not piece:
                return True
            head += piece
        content = b""
        while len(content) < int(head[:-1]) + 1:
            content += client.recv(4096)
        assert content.endswith(b",")
        request = json.loads(content[:-1])
        assert request["jsonrpc"] == "2.0"
        self.calls.append((request["method"], request["params"]))
        body = {"jsonrpc": "2.0", "id": request["id"], **self._carried_out(request["method"], request["params"])}
        self.asked.set()
        reply = self.spoil(framed(body))
        if reply is not None:
            client.sendall(reply)
        return reply is not None

    def _carried_out(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "getInfo":
                return {"result": {"correctorType": "CESCOR", "version": "double"}}
            case "measureC1A1":
                return self._measured(("C1", "A1"))
            case "acquireTableau":
                if params["tabType"] not in ("Fast", "Standard", "Enhanced"):
                    return failure(f"Invalid Tableau type {params['tabType']!r}")
                return self._measured(tuple(self.true_m))
            case "correctAberration":
                name = params["name"]
                if name not in self.true_m:
                    return failure(f'Unknown aberration "{name}"')
                change = complex(*params["target"]) - complex(*params["value"])
                self.true_m[name] += change
                return {"result": None}
            case _:
                return {"error": {"code": -32601, "message": "Method not found"}}

    def _measured(self, names: tuple[str, ...]) -> dict[str, Any]:
        if not self.is_lit():
            return failure("no beam on the detector")
        seen = {name: [self.true_m[name].real, self.true_m[name].imag] for name in names}
        seen |= {name: [value[0]] for name, value in seen.items() if name in ("C1", "C3")}
        confidence = {name: [2 * NOISE_M] for name in seen}
        return {"result": {"aberrations": seen | {"WD": [1e-3, 0.0]}, "confidence": confidence}}


def failure(words: str) -> dict[str, Any]:
    return {"error": {"code": -32000, "message": "Server error", "data": {"message": words}}}


def framed(body: Any) -> bytes:
    content = json.dumps(body).encode()
    return b"%d:%s," % (len(content), content)
