"""The service keeps what its OpenAPI document promises, whatever is sent: examples, corner cases, fuzzing, sequences.

A request that conforms to the document is done (2xx, 3xx), except where the document cannot say what is wrong with it:
`UNSAID` names each such status with its reason, for the operations that need it and no other.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.examples import FILE_NAME, FILE_SHA256, FILE_TEXT
from orchestrator.api.idempotency import KEY_PATTERN
from orchestrator.api.limits import Limits
from tests.unit.orchestrator.api.serving import V1, Service, serve, submitted, with_frames

FEWEST_CASES = 500
_DONE = ["2xx", "3xx"]
_REFUSED = ["400", "401", "404", "405", "415", "422", "428"]  # what a request that does not conform meets
_ACTIONS = ("hold", "release", "cancel", "pause", "resume")
_CHANGES = ("change_experiment", "delete_experiment", *(f"{action}_experiment" for action in _ACTIONS))
_RECORDS = ("get_experiment", "get_experiment_status", "list_events", "list_decisions", "list_frames")
_FRAMES = ("get_frame", "get_frame_image", "get_frame_data", "get_frame_file")
_INSTRUMENTS = ("get_instrument", "get_instrument_status", "stop_instrument", "clear_instrument")
_OTHERS = ("get_report", "write_report", "get_file", "revoke_token", "documentation_file_api_v1_docs__name__get")

# Status -> why the document cannot exclude it -> the operations.
UNSAID: dict[str, dict[str, tuple[str, ...]]] = {
    "404": {"a name of the right form, and nothing has it": _CHANGES + _RECORDS + _FRAMES + _INSTRUMENTS + _OTHERS},
    "409": {"the experiment's state is in the way": (*_CHANGES, "get_report")},
    "412": {"a version of the right form, and not the newest": _CHANGES},
    "422": {
        "a spec that has the right form and still cannot run": ("submit_experiment",),
        "a window of time that is over, or ends before it begins": ("validate_experiment", "change_experiment"),
        "an end that is over, or further away than 400 days": ("create_token",),
        "a body whose sha256 is another than the path says": ("upload_file",),
    },
}


@dataclass
class Outcome:
    """What was asked and what was found."""

    cases: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[int] = field(default_factory=Counter[int])
    succeeded: set[str] = field(default_factory=set[str])
    checks: Counter[str] = field(default_factory=Counter[str])
    failures: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    errors: list[str] = field(default_factory=list[str])

    def take(self, event: Any) -> None:
        if isinstance(event, events.ScenarioFinished):
            self._take_scenario(event)
        elif isinstance(event, events.NonFatalError):
            self.errors.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            self.errors.append(repr(event.exception))

    def _take_scenario(self, event: events.ScenarioFinished) -> None:
        recorder = event.recorder
        self.cases[event.phase.name] += len(recorder.cases)
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is not None:
                status = interaction.response.status_code
                self.statuses[status] += 1
                if status < 300 and case_id in recorder.cases:
                    self.succeeded.add(recorder.cases[case_id].value.operation.label)
        for nodes in recorder.checks.values():
            for node in nodes:
                self.checks[node.name] += 1
                if node.failure_info is not None:
                    failure = node.failure_info.failure
                    key = (failure.operation, type(failure).__name__, failure.message[:400])
                    self.failures.setdefault(key, node.failure_info.code_sample)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with tokens, with the whole check of specs, with nothing in it yet."""
    service = serve(tmp_path_factory.mktemp("contract"), with_tokens=True)
    yield service
    service.catalogue.close()


def _config(service: Service, secret: str, ids: list[str], frame_ids: list[str]) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "headers": {"Authorization": f"Bearer {secret}"},
            "suppress-health-check": ["all"],  # of the data's making: a slow machine is no finding
            "phases": {"coverage": {"unexpected-methods": ["TRACE", "PUT"]}},
            "generation": {"max-examples": 4, "deterministic": True, "database": "none"},
            "dictionaries": {"ids": {"values": ids}, "frames": {"values": frame_ids}},
            "parameters": {
                "path.experiment_id": {"dictionary": "ids", "probability": 0.8},
                "path.frame_id": {"dictionary": "frames", "probability": 0.9},
            },
            "checks": {
                "positive_data_acceptance": {"expected-statuses": _DONE},
                "negative_data_rejection": {"expected-statuses": _REFUSED},
                "missing_required_header": {"expected-statuses": _REFUSED},
            },
            "operations": [
                {
                    "include-operation-id": name,
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*_DONE, *statuses]}},
                }
                for name, statuses in _unsaid().items()
            ],
        }
    )


def _unsaid() -> dict[str, list[str]]:
    """Of each operation, the statuses that a conforming request may meet besides success."""
    found: dict[str, list[str]] = {}
    for status, reasons in UNSAID.items():
        for name in (name for names in reasons.values() for name in names):
            found.setdefault(name, []).append(status)
    return found


def _make_cheap(service: Service) -> None:
    """Count nothing, write each experiment's report once: neither is in the document."""
    service.app.state.limits = Limits(0.0, lambda: 0.0, 0.0)
    services = service.app.state.services
    service.app.state.services = replace(services, write_report=cache(services.write_report))


@dataclass(frozen=True)
class WithNewKeys:
    """The service, where a good key is a new one: the document cannot say that a used one is another request's."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [
                (name, key + uuid.uuid4().hex.encode() if self._is_good(name, key) else key)
                for name, key in scope["headers"]
            ]
        await self.app(scope, receive, send)

    def _is_good(self, name: bytes, key: bytes) -> bool:
        return name == b"idempotency-key" and len(key) < 160 and bool(re.fullmatch(KEY_PATTERN, key.decode("latin-1")))


@pytest.mark.slow
def test_whatever_is_sent_the_document_holds(guarded: Service) -> None:
    _make_cheap(guarded)
    secret = guarded.token("admin")
    client = guarded.client(secret)
    client.put(f"{V1}/files/{FILE_SHA256}/{FILE_NAME}", content=FILE_TEXT.encode())
    reference = f"sha256:{FILE_SHA256}/{FILE_NAME}"
    seen = with_frames(guarded, client=client, reference=reference)
    ids = [seen, *(submitted(client, reference=reference) for _ in range(4))]
    guarded.queue.hold(ids[1])
    guarded.queue.cancel(ids[2])
    config = _config(guarded, secret, ids, [frame.id for frame in guarded.catalogue.frames(seen)])
    schema = openapi.from_asgi(f"{V1}/openapi.json", WithNewKeys(guarded.app), config=config)
    known = {result.ok().definition.raw["operationId"] for result in schema.get_all_operations()}
    assert set(_unsaid()) <= known, set(_unsaid()) - known
    outcome = Outcome()
    for event in from_schema(schema).execute():
        outcome.take(event)
    told = "\n\n".join(f"{key}\n{sample}" for key, sample in outcome.failures.items())
    assert not outcome.failures, told
    assert not outcome.errors, "\n".join(outcome.errors)
    assert outcome.cases.total() >= FEWEST_CASES, outcome.cases
    assert set(outcome.statuses) >= {200, 201, 400, 401, 404, 405, 409, 412, 415, 422, 428}, outcome.statuses
    assert not {status for status in outcome.statuses if status >= 500}, outcome.statuses
    assert len(outcome.checks) >= 14, outcome.checks
    operations = {result.ok().label for result in schema.get_all_operations()}
    assert len(outcome.succeeded) >= len(operations) - 5, sorted(operations - outcome.succeeded)


def test_a_folder_is_served_again(guarded: Service) -> None:
    """After everything above the database is whole, and another service on the same folder shows what is in it."""
    guarded.catalogue.database.check()
    again = serve(guarded.catalogue.data_folder, with_tokens=True)
    try:
        client = guarded.client(guarded.token("admin"))
        client.put(f"{V1}/files/{FILE_SHA256}/{FILE_NAME}", content=FILE_TEXT.encode())
        own = submitted(client, reference=f"sha256:{FILE_SHA256}/{FILE_NAME}")
        entries = guarded.queue.entries(limit=500)
        assert own in [entry.id for entry in entries]
        assert entries == sorted(entries, key=lambda entry: (-entry.priority, entry.seq))
        shown = again.client(again.token("read")).get(f"{V1}/experiments?limit=500").json()["experiments"]
        assert {line["id"] for line in shown} == {entry.id for entry in entries}
    finally:
        again.catalogue.close()
