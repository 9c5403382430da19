"""`stempilot serve --alone` in a process of its own, killed and started again as a test likes, always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.integration.harness import CONSOLE, ROOT
from tests.ports import unused_port

DEADLINE_S = 600.0


@dataclass
class Api:
    """`stempilot serve --alone` of one data folder, on one port, started as often as it is killed."""

    data: Path
    port: int
    options: tuple[str, ...]
    said: list[str] = field(default_factory=list[str])
    process: subprocess.Popen[str] | None = None
    listener: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def first_token(self) -> str:
        """The first administrator's token, once it was printed."""
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            if tokens := self.tokens_said():
                return tokens[0]
            time.sleep(0.02)
        raise AssertionError("no token was printed:\n" + "".join(self.said))

    def tokens_said(self) -> list[str]:
        """Every token that was printed."""
        return re.findall(r"stempilot_[0-9a-f]{32}_[0-9a-f]{64}", "".join(self.said))

    def start(self) -> None:
        command = ["serve", "--alone", "--data", str(self.data), "--port", str(self.port), *self.options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONSOLE, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.listener = threading.Thread(target=self._listen, args=(self.process,))
        self.listener.start()
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/api/v1/health", trust_env=False, verify=False).raise_for_status()
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the service did not start:\n" + "".join(self.said))

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            self.said.extend(lines)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_S)
            finally:
                self.process.kill()
        self._reap()

    def _reap(self) -> None:
        if self.process is not None and self.listener is not None:
            self.process.wait()
            self.listener.join()


@contextmanager
def served(data: Path, *options: str) -> Iterator[Api]:
    api = Api(data, unused_port(), options)
    try:
        api.start()
        yield api
    finally:
        api.stop()
