"""An instrument served to another machine: a ticket opens it, its limits hold, a lost gateway is a lost link."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import instruments
from instruments import (
    Blank,
    CommandRefused,
    ConfigurationError,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentFault,
    LinkLost,
    Microscope,
    SafetyEnvelope,
)
from instruments.remote import Endpoint, StopLine
from tests.integration.bench_microscope import exposure, installed_bench
from tests.integration.instrument_processes import Started, started, until

SETTINGS = """
[instruments.bench]
adapter = "bench"
[instruments.bench.safety]
max_exposure_s = 1.0
"""
CLI = "from workflows.cli.entry import main; main()"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def gateway(data: Path, ports: list[int]) -> Iterator[Started]:
    """`stempilot gateway` for the bench, answering."""
    plugins = data / "plugins"
    ticket = data / "bench.ticket"
    options = ("--data", data, "--port", ports[0], "--stop-port", ports[1], "--ticket", ticket)
    with started(
        CLI, "gateway", "--instrument", "bench", *options, said=data / "said.log", python_path=plugins
    ) as process:

        def ready() -> bool:
            assert process.process.poll() is None, process.text
            if not ticket.exists():
                return False
            endpoint = Endpoint.model_validate_json(ticket.read_text(encoding="utf-8"))
            return endpoint.pid == process.process.pid and StopLine(endpoint).status().pid == endpoint.pid

        until(ready, "the gateway")
        yield process


def test_an_instrument_behind_a_gateway(tmp_path: Path) -> None:
    installed_bench(tmp_path / "plugins")
    (tmp_path / "stempilot.toml").write_text(SETTINGS)
    ports, copy = free_ports(2), tmp_path / "copied.ticket"
    with gateway(tmp_path, ports) as process:
        copy.write_bytes((tmp_path / "bench.ticket").read_bytes())
        assert (tmp_path / "bench.ticket").stat().st_mode & 0o077 == 0
        microscope = instruments.open("gateway", ticket=str(copy), session="anna")
        assert isinstance(microscope, Microscope)
        assert microscope.capabilities().name == "bench"
        frame = microscope.acquire(exposure("a"))
        assert frame.total("haadf").shape == (2, 5)
        assert microscope.outcome("a") == "delivered"

        with pytest.raises(CommandRefused, match="exposure 2 s is above the limit 1 s"):
            microscope.acquire(exposure("long", beam_on_s=2.0))
        with pytest.raises(InstrumentBusy, match="has another owner"):
            instruments.open("gateway", ticket=str(copy))
        forged = json.loads(copy.read_text()) | {"secret": "0" * 64}
        wrong = tmp_path / "wrong.ticket"
        wrong.write_text(json.dumps(forged))
        with pytest.raises(LinkLost, match="refuses this secret"):
            instruments.open("gateway", ticket=str(wrong))
        with pytest.raises(ConfigurationError, match="cannot be used"):
            instruments.open("gateway", ticket=str(tmp_path / "none"))

        microscope.stop()
        with pytest.raises(InstrumentFault, match="was blanked"):
            microscope.acquire(exposure("b"))
        microscope.reconnect()
        guarded = GuardedMicroscope(microscope, SafetyEnvelope())
        guarded.acquire(exposure("c"))
        process.kill()
        with pytest.raises(LinkLost, match=r"cannot be reached|assume that the beam is on"):
            guarded.acquire(exposure("d"))
        with pytest.raises(LinkLost, match="nothing is issued"):
            guarded.acquire(exposure("e"))
        with pytest.raises(LinkLost, match="cannot be reached"):
            guarded.reconnect()
    with gateway(tmp_path, ports) as process:
        with pytest.raises(LinkLost, match="started anew"):  # a read would be sent again, but not past a lost beam
            microscope.read_state()
        guarded.reconnect()
        guarded.acknowledge("anna")
        assert guarded.outcome("a") == "unknown", "it was exposed, and this gateway has not heard of it"
        guarded.acquire(exposure("f"))
        guarded.execute(Blank(action_id="end"))
        microscope.close()
        assert process.ends() == 0, process.text
