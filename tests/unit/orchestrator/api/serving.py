"""A service over a real catalogue and a real queue, for tests; its instruments are told what to answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from instruments import InstrumentFault
from orchestrator.api import Services, Tokens, create_app
from orchestrator.catalogue import Catalogue
from orchestrator.decisions import Decision
from orchestrator.queue import ExperimentQueue
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import load_mapping
from tests.unit.orchestrator.microscope_frames import command, frame, suggestion
from workflows.documents import experiment_document
from workflows.reporting import write_report
from workflows.validation import check_spec

ROOT = Path(__file__).resolve().parents[4]
SPEC = ROOT / "tests/integration/specs/small_raster.yaml"
STRUCTURE = ROOT / "examples/structures/WSe2.extxyz"
URL = "http://127.0.0.1"
V1 = "/api/v1"


@dataclass
class TwoInstruments:
    """A desk with two instruments that do what they are told, unless they are out of reach."""

    lost: set[str] = field(default_factory=set[str])
    locks: dict[str, str] = field(default_factory=dict[str, str])

    def names(self) -> list[str]:
        return ["replay", "simulated"]

    def capabilities(self, name: str) -> Mapping[str, Any]:
        self._reach(name)
        return {"schema_version": 1, "name": name, "simulated": True, "axes": [], "modes": []}

    def status(self, name: str) -> Mapping[str, Any]:
        self._reach(name)
        return {"name": name, "beam_blanked": True, "exposing": None, "locked": self.locks.get(name)}

    def emergency_stop(self, name: str | None, by: str, reason: str) -> Mapping[str, Any]:
        answers: dict[str, Any] = {}
        for own in self.names() if name is None else [name]:
            self.locks[own] = f"{by}: {reason}"
            is_lost = own in self.lost
            answers[own] = {"beam_blanked": None if is_lost else True, "message": "no answer" if is_lost else "blanked"}
        return answers

    def clear(self, name: str, by: str) -> None:
        self._reach(name)
        self.locks.pop(name, None)

    def _reach(self, name: str) -> None:
        if name in self.lost:
            raise InstrumentFault(f"{name} does not answer; look at it")


@dataclass
class Service:
    """One service and ways to ask it."""

    app: FastAPI
    catalogue: Catalogue
    queue: ExperimentQueue
    desk: TwoInstruments
    tokens: Tokens | None

    def token(self, *scopes: str, name: str = "anna", lasts: timedelta = timedelta(hours=1)) -> str:
        """The secret of a new token."""
        assert self.tokens is not None
        return str(self.tokens.create(name, scopes, self.catalogue.now() + lasts).secret)

    def client(self, token: str | None = None) -> TestClient:
        """A client, with a token or without."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return TestClient(self.app, base_url=URL, headers=headers, raise_server_exceptions=False)


def serve(
    data: Path,
    *,
    with_tokens: bool = False,
    check: Callable[[ExperimentSpec], None] | None = None,
    url: str | None = None,
) -> Service:
    """A service over a new or old data folder; `check` replaces the whole check of a spec, `url` names a database."""
    settings = Settings.load(data, environment={})
    catalogue = Catalogue.open(data, url=url, shared=True, group_commit=True)
    queue, desk = ExperimentQueue(catalogue), TwoInstruments()
    tokens = Tokens.open(catalogue) if with_tokens else None
    services = Services(
        catalogue=catalogue,
        queue=queue,
        settings=settings,
        check_spec=check or partial(check_spec, settings=settings),
        write_report=partial(write_report, catalogue, settings),
        experiment_document=partial(experiment_document, catalogue),
        instruments=desk,
        tokens=tokens,
        version="0.0.test",
    )
    return Service(create_app(services), catalogue, queue, desk, tokens)


def accept(spec: ExperimentSpec) -> None:
    """The check of a test that is not about checks."""
    del spec


def upload(client: TestClient, path: Path = STRUCTURE) -> str:
    """The reference under which a spec may name the file, now that it is there."""
    data = path.read_bytes()
    answer = client.put(f"{V1}/files/{hashlib.sha256(data).hexdigest()}/{path.name}", content=data)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["reference"])


def submission(reference: str | None = None, **changes: Any) -> dict[str, Any]:
    """The body of a submission; without a structure unless a reference is given."""
    spec = load_mapping(SPEC)
    spec["specimen"]["structure"] = reference
    return {"spec": spec, **changes}


def submitted(client: TestClient, **changes: Any) -> str:
    """The id of a new experiment in the queue."""
    answer = client.post(f"{V1}/experiments", json=submission(**changes))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def with_frames(
    service: Service, count: int = 2, client: TestClient | None = None, reference: str | None = None
) -> str:
    """The id of a queued experiment whose journal has that many observed frames."""
    own = submitted(client or service.client(), reference=reference)
    for seq in range(1, count + 1):
        decision = Decision.of(suggestion(seq), own, seq)
        asked = command(f"{own}-a{seq:06d}")
        intent = service.catalogue.intend(own, decision, asked)
        service.catalogue.keep(intent, frame(asked, seq))
        service.catalogue.observe(intent, {"score": {"value": 0.5 * seq, "std": 0.1}})
    return own
