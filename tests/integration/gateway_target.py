"""`stempilot gateway` with TLS as a target of the kit: its lines can be cut, its process killed and started again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import instruments
from instruments import Microscope
from instruments.adapters.gateway import GatewayMicroscope
from instruments.conformance.target import Address
from instruments.remote import Endpoint, StopLine
from instruments.remote.encrypted import make_certificate
from orchestrator.settings import FILE_NAME
from tests.integration.instrument_processes import Started, started, until

CLI = "from workflows.cli.entry import main; main()"


@dataclass
class GatewayTarget:
    """A configured instrument served from `folder`; a context manager around its process. Exposures are its events."""

    folder: Path
    adapter: str
    config: Mapping[str, Any]
    patience_s: float = 4.0
    name: str = "gateway"
    _running: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in self.config.items())
        (self.folder / FILE_NAME).write_text(
            f'[instruments.far]\nadapter = "{self.adapter}"\n[instruments.far.config]\n{table}\n', encoding="utf-8"
        )
        make_certificate(self.folder / "facility.pem", self.folder / "facility.key.pem", "the facility")
        self.revive()
        return self

    def __exit__(self, *ending: object) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9 of the gateway."""
        self._running.close()

    def revive(self) -> None:
        """Start it again, with what it keeps in its folder."""
        process = self._running.enter_context(self._process())
        until(lambda: self._answers(process), "the gateway")

    def open(self) -> Microscope:
        """By the ticket, a new owner in the same session."""
        return self.open_at(self.addresses())

    def open_at(self, addresses: tuple[Address, ...]) -> Microscope:
        """The same through other ports."""
        (host, port), (_, stop_port) = addresses
        copy = self.folder / f"copied-{uuid4().hex}.ticket"  # several clients open at once
        ticket = self._endpoint().model_copy(update={"host": host, "port": port, "stop_port": stop_port})
        copy.write_text(ticket.model_dump_json(), encoding="utf-8")
        return instruments.open("gateway", ticket=str(copy), session="conformance", patience_s=self.patience_s)

    def close(self, microscope: Microscope) -> None:
        """Hang up."""
        assert isinstance(microscope, GatewayMicroscope)
        microscope.close()

    def addresses(self) -> tuple[Address, ...]:
        """Command line and stop line."""
        endpoint = self._endpoint()
        assert endpoint.certificate is not None, "this is about encrypted lines"
        return (endpoint.host, endpoint.port), (endpoint.host, endpoint.stop_port)

    def exposure_count(self) -> int:
        """As the gateway tells of them."""
        told = StopLine(self._endpoint()).events().events
        return sum(event.command == "acquire_frame" and event.state == "running" for event in told)

    @property
    def _ticket(self) -> Path:
        return self.folder / "far.ticket"

    def _endpoint(self) -> Endpoint:
        return Endpoint.model_validate_json(self._ticket.read_text(encoding="utf-8"))

    def _process(self) -> AbstractContextManager[Started]:
        options = ("--data", self.folder, "--specimen", "lamella", "--ticket", self._ticket)
        options += ("--certificate", self.folder / "facility.pem")
        options += ("--certificate-key", self.folder / "facility.key.pem")
        return started(CLI, "gateway", "--instrument", "far", *options, said=self.folder / "said.log")

    def _answers(self, process: Started) -> bool:
        assert process.process.poll() is None, process.text
        if not self._ticket.exists():
            return False
        endpoint = self._endpoint()
        return endpoint.pid == process.process.pid and StopLine(endpoint).status().pid == endpoint.pid
