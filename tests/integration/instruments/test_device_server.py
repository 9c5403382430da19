"""A device served to another computer: the same adapter, its library behind a device server over loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from instruments import ConfigurationError, LinkLost, ResultUnknown, Unblank, registry
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.pyjem import DEVICE
from instruments.workers import process
from tests.integration.instruments.test_pyjem import CONFIG, frame
from tests.integration.instruments.test_worker import wait_for
from tests.integration.instruments.vendor_target import VendorTarget, doubled

PROGRAM = Path(process.__file__).with_name("device_server.py")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorTarget]:
    with doubled(tmp_path_factory.mktemp("served")) as target:
        yield target


@contextmanager
def served(target: VendorTarget) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A device server, a program of its own, and the adapter's configuration for it."""
    ticket = target.folder / "ticket"
    options = ["--port", "0", "--ticket", str(ticket), "--leave-s", "0.5"]
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(DEVICE), *options], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[-1])
            assert ticket.stat().st_mode & 0o077 == 0
            config = {name: value for name, value in CONFIG.items() if name != "python"}
            yield server, {**config, "device_server": {"host": "127.0.0.1", "port": port, "ticket": ticket}}
        finally:
            server.kill()


@pytest.fixture(scope="module")
def config(target: VendorTarget) -> Iterator[dict[str, Any]]:
    with served(target) as (_, config):
        yield config


@pytest.fixture
def microscope(config: dict[str, Any]) -> Iterator[DrivenMicroscope]:
    opened = registry.open("pyjem", **config)
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def test_frames_cross_and_a_broken_line_blanks(target: VendorTarget, microscope: DrivenMicroscope) -> None:
    taken = microscope.acquire(frame("served", 30.0, count=10))
    assert taken.counts["adf"].nbytes > 1 << 16, "more than what would be shared on one computer"
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
    with served(target) as (server, config):
        opened = registry.open("pyjem", **config)
        assert isinstance(opened, DrivenMicroscope)
        opened.execute(Unblank(action_id="on"))
        server.kill()
        wait_for(lambda: target.diary[-2:] == ["blank", "halt"])
        with pytest.raises(LinkLost):
            opened.read_state()
        opened.close()


def test_a_stranger_is_not_let_in_and_holds_up_nobody(
    config: dict[str, Any], target: VendorTarget, tmp_path: Path
) -> None:
    where = config["device_server"]
    before = len(target.diary)
    with socket.create_connection((where["host"], where["port"]), 10) as stranger:
        assert len(stranger.recv(64)) == 32
        stranger.sendall(bytes(64))
        assert stranger.recv(64) == b""
    forged = tmp_path / "forged"
    forged.write_text("00" * 32)
    with pytest.raises(LinkLost, match="the ticket is not its own"):
        registry.open("pyjem", **{**config, "device_server": {**where, "ticket": forged}})
    assert target.since(before) == []
    with pytest.raises(ConfigurationError, match="copy it from there"):
        registry.open("pyjem", **{**config, "device_server": {**where, "ticket": tmp_path / "none"}})
    with pytest.raises(ConfigurationError, match="and not both"):
        registry.open("pyjem", **{**config, "python": sys.executable})
    registry.open("pyjem", **config).close()  # type: ignore[attr-defined]
