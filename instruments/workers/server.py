"""The far end of a worker: a program for another Python that serves one device, and leaves when its owner is gone.

Run as `python -I server.py COMMAND-LINE STOP-LINE`, two sockets it inherits; or as `python -I server.py --dial PORT
DEVICE`, which dials them and serves the device in that file (the secret comes on its standard input). Standard library
and NumPy only, in words that Python 3.8 understands. The device is an object whose methods are called by name, from the
main thread; its `stop` from beside, at any time. Neighbours: `protocol`; `process` is the other end.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
import time
from typing import Any

LEAVE_S = 5.0  # for a device to stop when its owner is gone


def loaded(path: str, name: str) -> Any:
    """The module in that file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Told:
    """Whatever a device raises within goes into the reply, and no further."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, Exception):
            self._reply.update({"error": type(error).__name__, "message": str(error)})
        return isinstance(error, Exception)


class Server:
    """Answers the two lines of one device."""

    def __init__(self, protocol: Any, file: str = "") -> None:
        self._protocol = protocol
        self._file = file  # of the device; none: that which the owner names
        self._device: Any = None
        self._leaving = threading.Lock()

    def serve_calls(self, line: socket.socket) -> None:
        """Carry out calls until the other end hangs up or says `close`."""
        while self._answer(line, self._call):
            pass

    def serve_stops(self, line: socket.socket) -> None:
        """Stop the device as often as it is asked; stop it and leave when the owner is gone."""
        while self._answer(line, self._stop):
            pass
        self.leave()

    def leave(self) -> None:
        """Stop what is open and end this process, whatever its threads do; vendors' exits abort or hang.

        Both lines end at once, and whoever comes second waits: no stop is cut off by the end of another.
        """
        threading.Timer(LEAVE_S, os._exit, (1,)).start()
        with self._leaving:
            if self._device is not None:
                self._device.stop()
            os._exit(0)

    def _answer(self, line: socket.socket, carry_out: Any) -> bool:
        try:
            request = self._protocol.receive(line)
        except self._protocol.Broken:
            return False
        reply = {"number": request.get("number")}
        with Told(reply):
            reply["result"] = carry_out(request)
        return self._sent(line, reply)

    def _sent(self, line: socket.socket, reply: dict[str, Any]) -> bool:
        try:
            self._protocol.send(line, reply)
        except TypeError as error:
            self._protocol.send(line, {"number": reply["number"], "error": "TypeError", "message": str(error)})
        except OSError:
            return False
        return True

    def _call(self, request: dict[str, Any]) -> Any:
        name, arguments = request["call"], request["arguments"]
        if name == "clock":
            return [time.time(), time.get_clock_info("time").resolution]
        if name == "open":
            module = loaded(self._file or arguments["file"], "stempilot_device")
            self._device = getattr(module, arguments["function"])(**arguments["config"])
            return None
        if name.startswith("_") or self._device is None:
            raise LookupError(f"no call {name!r} of this device")
        return getattr(self._device, name)(**arguments)

    def _stop(self, request: dict[str, Any]) -> bool | None:
        """Whether there was something to stop."""
        if self._device is None:
            return False
        self._device.stop()
        return True


def main() -> None:
    """Serve the two lines whose numbers are given, or those that are dialled."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  as little as possible is imported
    protocol = loaded(os.path.join(folder, "protocol.py"), "stempilot_protocol")  # noqa: PTH118
    if sys.argv[1] == "--dial":
        handshake = loaded(os.path.join(folder, "handshake.py"), "stempilot_handshake")  # noqa: PTH118
        command, stop = handshake.dialled("127.0.0.1", int(sys.argv[2]), sys.stdin.buffer.read(), LEAVE_S)
        server = Server(protocol, sys.argv[3])
    else:
        command, stop = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
        server = Server(protocol)
    threading.Thread(target=server.serve_stops, args=(stop,), name="stop line", daemon=True).start()
    server.serve_calls(command)
    server.leave()


if __name__ == "__main__":
    main()
