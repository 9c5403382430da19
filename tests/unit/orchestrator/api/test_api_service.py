"""The service as a whole: its document, its pages, and what every answer has in common."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from instruments import InstrumentFault
from orchestrator.api.examples import FILE_NAME, FILE_SHA256, FILE_TEXT, SUBMISSION
from orchestrator.api.problems import KINDS
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


def test_readiness_says_what_is_not_there(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    client = service.client()
    assert client.get(f"{V1}/ready").json()["checks"]["instrument simulated"] == "ok"
    service.desk.lost.add("simulated")
    checks = client.get(f"{V1}/ready").json()["checks"]
    assert checks["instrument simulated"].startswith("failed: simulated does not answer")
    assert checks["storage"].startswith("ok: ")
    with pytest.raises(InstrumentFault):
        service.desk.status("simulated")


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
