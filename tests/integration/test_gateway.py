"""An instrument served to another machine: a ticket opens it, its limits hold, a lost gateway is a lost link."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import instruments
from instruments import (
    Blank,
    CommandRefused,
    ConfigurationError,
    Frame,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentFault,
    LinkLost,
    SafetyEnvelope,
)
from instruments.adapters import gateway as adapter
from instruments.adapters.gateway import GatewayMicroscope
from instruments.remote import Endpoint, StopLine
from instruments.remote.encrypted import make_certificate
from instruments.state import ClockOffset
from tests.integration.bench_microscope import exposure, installed_bench
from tests.integration.instrument_processes import Started, started, until
from tests.integration.instruments.own_clock import assert_ours
from tests.ports import unused_port

LEASE_S = 5.0
SETTINGS = f"""
lease_s = {LEASE_S}
[instruments.bench]
adapter = "bench"
[instruments.bench.safety]
max_exposure_s = 1000.0
"""
CLI = "from workflows.cli.entry import main; main()"
CLIENT = """
import sys, instruments
from tests.integration.bench_microscope import exposure
microscope = instruments.open("gateway", ticket=sys.argv[1], session="bernd")
print("exposes", flush=True)
microscope.acquire(exposure("bernd's", "expose", beam_on_s=900.0))
"""


@contextmanager
def gateway(data: Path, ports: list[int]) -> Iterator[Started]:
    """`stempilot gateway` for the bench, answering."""
    plugins = data / "plugins"
    ticket = data / "bench.ticket"
    made = data / "facility.pem", data / "facility.key.pem"
    make_certificate(*made, "the facility")
    options = ("--data", data, "--port", ports[0], "--stop-port", ports[1], "--ticket", ticket, "--specimen", "lamella")
    options += ("--certificate", made[0], "--certificate-key", made[1])
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


def told_why(line: StopLine, known: int) -> str | None:
    """Why the instrument was stopped after that event."""
    stops = [event.message for event in line.events(known, 1.0).events if event.kind == "stopped"]
    return next((message for message in stops if "owner" in message), None)


def a_killed_client_is_blanked_for(ticket: Path, folder: Path) -> None:
    """An exposure of 15 minutes, its owner killed: the gateway itself takes the beam off after its lease."""
    endpoint = Endpoint.model_validate_json(ticket.read_text())
    line = StopLine(endpoint)
    with started(CLIENT, ticket, said=folder / "client.log", python_path=folder / "plugins") as client:
        until(lambda: line.status().exposing == "bernd's", "the exposure")
        known = line.events().last
        time.sleep(1.2 * LEASE_S)  # an owner who lives keeps its beam
        assert line.status().exposing == "bernd's", client.text
        client.kill()
        told = until(lambda: told_why(line, known), "the end of the beam")
    silent_s = re.match(r"its owner was not heard of for (\d+\.\d+) s", told)
    assert silent_s is not None, told
    assert float(silent_s[1]) > LEASE_S / 2
    until(lambda: line.status().exposing is None, "the end of the exposure")
    assert line.status().beam_blanked is True


def clock_of(frame: Frame) -> ClockOffset:
    assert frame.state.column is not None
    return frame.state.column.clocks["gateway of bench"]


def test_an_instrument_behind_a_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_bench(tmp_path / "plugins")
    (tmp_path / "stempilot.toml").write_text(SETTINGS)
    ports, copy = [unused_port(), unused_port()], tmp_path / "copied.ticket"
    with gateway(tmp_path, ports) as process:
        copy.write_bytes((tmp_path / "bench.ticket").read_bytes())
        assert (tmp_path / "bench.ticket").stat().st_mode & 0o077 == 0
        microscope = instruments.open("gateway", ticket=str(copy), session="anna")
        assert isinstance(microscope, GatewayMicroscope)
        assert microscope.capabilities().name == "bench"
        with microscope.events.subscribe() as told:
            frame = microscope.acquire(exposure("a"))
            of_a = until(lambda: told.next(1.0), "an event from the gateway")
        assert_ours(frame, "gateway of bench", 30.0)
        monkeypatch.setattr(adapter, "CLOCK_AGE_S", 0.0)
        again = microscope.acquire(exposure("a"))
        monkeypatch.undo()
        assert clock_of(again).measured_at > clock_of(frame).measured_at, "an old reading is renewed"
        assert (of_a.kind, of_a.action_id) == ("action", "a")
        assert frame.total("haadf").shape == (2, 5)
        assert microscope.outcome("a") == "delivered"

        with pytest.raises(CommandRefused, match="exposure 2000 s is above the limit 1000 s"):
            microscope.acquire(exposure("long", beam_on_s=2000.0))
        with pytest.raises(InstrumentBusy, match="has another owner"):
            instruments.open("gateway", ticket=str(copy))
        forged = json.loads(copy.read_text()) | {"secret": "0" * 64}
        wrong = tmp_path / "wrong.ticket"
        wrong.write_text(json.dumps(forged))
        with pytest.raises(LinkLost, match="refuses this secret"):
            instruments.open("gateway", ticket=str(wrong))
        with pytest.raises(ConfigurationError, match="cannot be used"):
            instruments.open("gateway", ticket=str(tmp_path / "none"))
        foreign = tmp_path / "foreign.pem"
        make_certificate(foreign, tmp_path / "foreign.key.pem", "the facility")
        wrong.write_text(json.dumps(json.loads(copy.read_text()) | {"certificate": foreign.read_text()}))
        with pytest.raises(LinkLost, match="another certificate than its ticket"):
            instruments.open("gateway", ticket=str(wrong))

        microscope.stop()
        with pytest.raises(InstrumentFault, match="was blanked"):
            microscope.acquire(exposure("b"))
        microscope.reconnect()
        guarded = GuardedMicroscope(microscope, SafetyEnvelope())
        guarded.acquire(exposure("c"))
        of_two = microscope.specimen_dose()
        assert (of_two.specimen, of_two.electrons) == ("lamella", 200.0)
        microscope.close()
        a_killed_client_is_blanked_for(copy, tmp_path)
        microscope.reconnect()
        so_far = microscope.specimen_dose()
        assert so_far.electrons == 300.0, "the books are one for all clients and sessions"
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
        assert microscope.specimen_dose() == so_far, "kill -9 takes nothing from the books"
        assert guarded.outcome("a") == "unknown", "it was exposed, and this gateway has not heard of it"
        guarded.acquire(exposure("f"))
        guarded.execute(Blank(action_id="end"))
        microscope.close()
        assert process.ends() == 0, process.text
