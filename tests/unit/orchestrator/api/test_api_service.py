"""The service as a whole: its document, its pages, and what every answer has in common."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from orchestrator.api.examples import FILE_NAME, FILE_SHA256, FILE_TEXT, SUBMISSION
from orchestrator.api.problems import KINDS
from orchestrator.catalogue import folder
from tests.unit.orchestrator.api.serving import STRUCTURE, V1, Service, serve, submitted

_METHODS = {"get", "put", "post", "patch", "delete", "head"}


def test_every_answer_carries_what_keeps_a_browser_honest(service: Service) -> None:
    client = service.client()
    for path in ("/health", "/experiments", "/nothing", "/docs", "/experiments?x=1"):
        headers = client.get(V1 + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
        assert headers["cache-control"] == "no-store"


def test_unknown_places_and_methods_are_problems(service: Service) -> None:
    client = service.client()
    for path in ("/nothing", f"{V1}/nothing", f"{V1}/experiments/", f"{V1}//experiments"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    own = "0" * 32
    for path, allowed in {
        "/experiments": "GET, HEAD, POST",
        f"/experiments/{own}": "DELETE, GET, HEAD, PATCH",
        f"/experiments/{own}/hold": "POST",
        f"/files/{own * 2}/x": "GET, HEAD, PUT",
        "/stop": "POST",
    }.items():
        for method in ("OPTIONS", "TRACE", "PUT" if "PUT" not in allowed else "PATCH"):
            answer = client.request(method, V1 + path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)
            assert answer.json()["type"].endswith("method-not-allowed")


def test_an_unforeseen_error_is_told_without_its_trace(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**wanted: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(service.queue, "entries", broken)
    answer = service.client().get(f"{V1}/queue")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_readiness_is_told_without_names_to_whoever_asks(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock's reason, no name, no number without a token; with one, all of it."""
    nobody, anna, now_s = guarded.client(), guarded.client(guarded.token("read", "instruments:control")), [0.0]
    guarded.catalogue.elapsed_s = lambda: now_s[0]
    monkeypatch.setattr("orchestrator.dashboard.instrument_view._FRESH_S", 0.0)
    anna.post(f"{V1}/instruments/simulated/stop", json={"reason": "Bob spilled the nitrogen"})
    guarded.desk.lost.add("replay")
    short = {"ready": True, "checks": {"storage": "ok", "instruments": "1 of 2 answer"}}
    assert nobody.get(f"{V1}/ready").json() == short
    assert nobody.get(f"{V1}/ready/details").status_code == 401
    checks = anna.get(f"{V1}/ready/details").json()["checks"]
    assert checks["instrument simulated"] == "locked: anna: Bob spilled the nitrogen"
    assert checks["instrument replay"].startswith("failed: replay does not answer")
    assert re.fullmatch(r"ok: \d+ bytes free", checks["storage"])
    guarded.desk.lost.add("simulated")
    now_s[0] = 1.9
    assert nobody.get(f"{V1}/ready").json() == short
    now_s[0] = 2.0
    assert nobody.get(f"{V1}/ready").json()["checks"]["instruments"] == "0 of 2 answer"


def test_readiness_is_looked_at_once_however_many_ask(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    free_bytes = folder.free_bytes
    monkeypatch.setattr(folder, "free_bytes", lambda place: looked.append(place) or free_bytes(place))
    service.catalogue.elapsed_s = lambda: 0.0
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: service.client().get(f"{V1}/ready").json(), range(16)))
    assert [answer["ready"] for answer in answers] == [True] * 16
    assert len(looked) == 1


def test_the_document_is_openapi_3_1_and_whole(service: Service, guarded: Service) -> None:
    for asked in (service, guarded):
        document = asked.client().get(f"{V1}/openapi.json").json()
        assert document["openapi"] == "3.1.0"
        schemas = document["components"]["schemas"]
        used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
        assert used <= set(schemas)
        for schema in schemas.values():
            Draft202012Validator.check_schema(schema)
        names = [
            methods[method]["operationId"]
            for methods in document["paths"].values()
            for method in _METHODS & set(methods)
        ]
        assert len(names) == len(set(names))
        has_tokens = asked.tokens is not None
        assert ("securitySchemes" in document["components"]) == has_tokens
        assert ("401" in document["paths"][f"{V1}/queue"]["get"]["responses"]) == has_tokens


def test_every_problem_is_documented(service: Service) -> None:
    document = service.client().get(f"{V1}/openapi.json").json()
    told = {
        status
        for methods in document["paths"].values()
        for method in _METHODS & set(methods)
        for status in methods[method]["responses"]
    }
    assert {str(status) for status, _ in KINDS.values()} - told <= {"401", "405"}


def test_the_examples_of_the_document_work(data: Path) -> None:
    service = serve(data)
    assert STRUCTURE.read_text() == FILE_TEXT
    assert hashlib.sha256(STRUCTURE.read_bytes()).hexdigest() == FILE_SHA256
    client = service.client()
    client.put(f"{V1}/files/{FILE_SHA256}/{FILE_NAME}", content=FILE_TEXT.encode())
    assert client.post(f"{V1}/experiments:validate", json=SUBMISSION).json() == {"valid": True, "errors": []}
    assert client.post(f"{V1}/experiments", json=SUBMISSION).status_code == 201
    service.catalogue.close()


def test_the_documentation_asks_nothing_of_another_machine(service: Service) -> None:
    client = service.client()
    page = client.get(f"{V1}/docs")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    local = [name for name in named if not name.startswith("data:")]
    assert len(local) == 3
    for name in local:
        assert name.startswith(f"{V1}/docs/")
        assert client.get(name).status_code == 200
    assert "http" not in page.headers["content-security-policy"]
    assert client.get("/docs", follow_redirects=False).headers["location"] == f"{V1}/docs"
    assert client.get(f"{V1}/docs/index.html").status_code == 422
    assert client.get(f"{V1}/docs/other.js").status_code == 404


def test_head_is_get_without_its_body(service: Service) -> None:
    client = service.client()
    own = submitted(client)
    for path in ("/health", "/experiments", f"/experiments/{own}", "/queue", "/docs"):
        got, head = client.get(V1 + path), client.head(V1 + path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    assert client.head(f"{V1}/nothing").status_code == 404


def test_versions(service: Service) -> None:
    version = service.client().get(f"{V1}/version").json()
    assert (version["stempilot"], version["api"]) == ("0.0.test", "v1")
    assert "python" in version["libraries"]
