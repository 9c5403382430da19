"""The service keeps what its OpenAPI document promises, whatever is sent: examples, corner cases, fuzzing, sequences.

Statuses beyond the tool's own that schema-conforming requests may meet here: 412 and 428 (a version nobody read), 416,
422 (a spec that has the right form and still cannot run; JSON schema cannot say it), 502 (an instrument out of reach).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from orchestrator.api.examples import FILE_NAME, FILE_SHA256, FILE_TEXT
from tests.unit.orchestrator.api.serving import V1, Service, serve, submitted, with_frames

FEWEST_CASES = 500
_REFUSED = ["400", "401", "403", "404", "405", "406", "409", "412", "413", "415", "422", "428", "429"]


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
    accepted = ["2xx", "3xx", "401", "403", "404", "409", "412", "416", "422", "428", "429", "502"]
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
                "positive_data_acceptance": {"expected-statuses": accepted},
                "negative_data_rejection": {"expected-statuses": _REFUSED},
                "missing_required_header": {"expected-statuses": _REFUSED},
            },
        }
    )


@pytest.mark.slow
def test_whatever_is_sent_the_document_holds(guarded: Service) -> None:
    secret = guarded.token("admin")
    client = guarded.client(secret)
    client.put(f"{V1}/files/{FILE_SHA256}/{FILE_NAME}", content=FILE_TEXT.encode())
    reference = f"sha256:{FILE_SHA256}/{FILE_NAME}"
    seen = with_frames(guarded, client=client, reference=reference)
    ids = [seen, *(submitted(client, reference=reference) for _ in range(4))]
    guarded.queue.hold(ids[1])
    guarded.queue.cancel(ids[2])
    config = _config(guarded, secret, ids, [frame.id for frame in guarded.catalogue.frames(seen)])
    schema = openapi.from_asgi(f"{V1}/openapi.json", guarded.app, config=config)
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
