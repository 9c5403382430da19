"""A device served to another computer: the same adapter, its library behind a device server over loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from instruments import ConfigurationError, LinkLost, Microscope, ResultUnknown, Unblank, registry
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.pyjem import DEVICE
from instruments.conformance import CHECKS, Conditions
from instruments.conformance.target import Address
from instruments.workers import process
from tests.integration.instruments.conformed import conformed
from tests.integration.instruments.own_clock import assert_ours
from tests.integration.instruments.server_process import Otherwise
from tests.integration.instruments.test_pyjem import CONFIG, frame
from tests.integration.instruments.test_worker import wait_for
from tests.integration.instruments.vendor_target import VendorTarget, doubled

PROGRAM = Path(process.__file__).with_name("device_server.py")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorTarget]:
    with doubled(tmp_path_factory.mktemp("served")) as target:
        yield target


class ServedTarget:
    """A device server, a program of its own; a `Served` target of the conformance kit."""

    name = "pyjem"

    def __init__(self, target: VendorTarget) -> None:
        self._ticket = target.folder / "ticket"
        self._config = {name: value for name, value in CONFIG.items() if name != "python"}

    def __enter__(self) -> Self:
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def config(self, port: int | None = None) -> dict[str, Any]:
        where = {"host": "127.0.0.1", "port": port or self._port, "ticket": self._ticket}
        return {**self._config, "device_server": where}

    def addresses(self) -> tuple[Address, ...]:
        return (("127.0.0.1", self._port),)

    def open(self) -> Microscope:
        return registry.open("pyjem", **self.config())

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope:
        return registry.open("pyjem", **{**self.config(addresses[0][1]), **more})

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, DrivenMicroscope)
        microscope.close()

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()
        if self._server.stdout is not None:
            self._server.stdout.close()

    def revive(self) -> None:
        options = ["--port", "0", "--ticket", str(self._ticket), "--leave-s", "0.5"]
        command = [sys.executable, str(PROGRAM), str(DEVICE), *options]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        self._port = int(self._server.stdout.readline().split()[-1])
        assert self._ticket.stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def config(target: VendorTarget) -> Iterator[dict[str, Any]]:
    with ServedTarget(target) as served:
        yield served.config()


def test_it_conforms_over_a_line_that_fails(target: VendorTarget) -> None:
    wanted = ("mute_server", "call_after_timeout", "lost_answer", "server_killed", "concurrent_clients")
    conditions = Conditions(shape_px=(64, 64), field_of_view_nm=64.0, dwell_time_us=200.0)
    elsewhere = {one.name: "as in its worker" for one in CHECKS if one.name not in wanted}
    with ServedTarget(target) as served:
        hasty = Otherwise(served, answer_s=1.5, start_s=8.0)
        report = conformed(served, conditions, "pyjem, device server", without=elsewhere, hasty=hasty)
    assert {finding.verdict for finding in report.findings} == {"passed"}, report.table()


@pytest.fixture
def microscope(config: dict[str, Any]) -> Iterator[DrivenMicroscope]:
    opened = registry.open("pyjem", **config)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def test_frames_cross_and_a_broken_line_blanks(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    taken = microscope.acquire(frame("served", 30.0, count=10))
    assert taken.counts["adf"].nbytes > 1 << 16, "more than what would be shared on one computer"
    assert_ours(taken, "pyjem", 10.0)
    assert taken.state.stage.x_nm == 30.0
    microscope.execute(Unblank(action_id="on"))
    assert target.diary[-1] == "unblank"
    microscope._driver.worker.worker.kill()  # what a lost owner looks like from there
    wait_for(lambda: target.diary[-2:] == ["blank", "halt"])
    microscope.reconnect()
    assert microscope.read_state().beam_blanked
    assert microscope.acquire(frame("after")).electrons > 0


def test_a_library_that_hangs_there_is_killed_there(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    with target.doing_wrong("hangs"), pytest.raises(ResultUnknown, match="assume that the beam is on"):
        microscope.acquire(frame("hung", deadline_s=2.0))
    wait_for(lambda: target.diary[-3:] == ["blank", "blank", "halt"])  # opened and stopped there, without its owner
    microscope.reconnect()
    assert microscope.read_state().beam_blanked
    assert microscope.outcome("hung") == "unknown"


def test_the_end_of_the_server_blanks_too(target: VendorTarget) -> None:
    with ServedTarget(target) as served:
        opened = served.open()
        assert isinstance(opened, DrivenMicroscope)
        opened.execute(Unblank(action_id="on"))
        served.kill()
        wait_for(lambda: target.diary[-2:] == ["blank", "halt"])
        with pytest.raises(LinkLost):
            opened.read_state()
        opened.close()


def test_a_stranger_is_not_let_in_and_holds_up_nobody(tmp_path: Path) -> None:
    """At a server of its own: what a device was told at the end of another test would be taken for a stranger's."""
    (tmp_path / "own").mkdir()
    with doubled(tmp_path / "own") as target, ServedTarget(target) as served:
        config = served.config()
        where = config["device_server"]
        with socket.create_connection((where["host"], where["port"]), 10) as stranger:
            assert len(stranger.recv(64)) == 32
            stranger.sendall(bytes(64))
            assert stranger.recv(64) == b""
        forged = tmp_path / "forged"
        forged.write_text("00" * 32)
        with pytest.raises(LinkLost, match="the ticket is not its own"):
            registry.open("pyjem", **{**config, "device_server": {**where, "ticket": forged}})
        assert target.diary == []
        with pytest.raises(ConfigurationError, match="copy it from there"):
            registry.open("pyjem", **{**config, "device_server": {**where, "ticket": tmp_path / "none"}})
        with pytest.raises(ConfigurationError, match="and not both"):
            registry.open("pyjem", **{**config, "python": sys.executable})
        opened = registry.open("pyjem", **config)
        assert isinstance(opened, DrivenMicroscope)
        with pytest.raises(LinkLost, match="serves somebody else"):
            registry.open("pyjem", **config)
        opened.close()
