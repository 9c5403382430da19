"""What a body may not be: everything here was once accepted by a service that trusted its framework."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit.orchestrator.api.serving import V1, Service, submission

SUBMIT, VALIDATE = f"{V1}/experiments", f"{V1}/experiments:validate"
JSON = {"Content-Type": "application/json"}


def send(service: Service, text: str | bytes, url: str = SUBMIT) -> Any:
    return service.client().post(url, content=text, headers=JSON)


def changed(path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(submission())
    *parents, last = path.split(".")
    node: Any = body
    for part in parents:
        node = node[part]
    node[last] = value
    return body


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_malformed(service: Service, word: str) -> None:
    text = json.dumps(submission()).replace("200000000.0", word)
    answer = send(service, text)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:stempilot:problem:malformed")
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 400, "empty"),
        ("{", 400, "acceptable JSON"),
        ('{"spec": {}, "spec": {}}', 400, "'spec' is there twice"),
        (b'{"spec": "\xff"}', 400, "acceptable JSON"),
        ('{"spec": {"name": "\\ud800"}}', 422, "surrogate"),
        ('{"spec": {"name": "\\u0000"}}', 422, "U+0000"),
        ('{"spec": {"name": 1e999}}', 422, "too large for double"),
        ('{"spec": {"name": %s}}' % ("9" * 6000), 422, "beyond 9223372036854775807"),
        ('{"spec": %s}' % ("[" * 100 + "]" * 100), 422, "nested more than 64"),
        ("[" * 100_000, 400, "nested too deeply"),
        ("[]", 422, "body"),
        ("null", 422, "body"),
    ],
)
def test_what_two_readers_take_differently_is_refused(
    service: Service, text: str | bytes, status: int, words: str
) -> None:
    for url in (SUBMIT, VALIDATE):
        answer = send(service, text, url)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in json.dumps(answer.json())
    assert service.queue.entries() == []


@pytest.mark.parametrize(
    ("path", "value", "pointer", "words"),
    [
        ("spec.budget.electrons", -1, "#/spec/budget/electrons", "greater than 0 (got -1 electrons; allowed > 0"),
        ("spec.budget.frames", "200", "#/spec/budget/frames", "got '200'"),
        ("spec.budget.frames", True, "#/spec/budget/frames", "got True"),
        ("spec.budget.frames", 20.5, "#/spec/budget/frames", "got 20.5"),
        ("spec.budgte", {}, "#/spec/budgte", "did you mean 'budget'?"),
        ("spec.search_space", {}, "#/spec/search_space", "at least 1"),
        ("seed", -1, "#/seed", "got -1; allowed >= 0"),
        ("priority", 10**7, "#/priority", "allowed <= 1000000"),
        ("hold", "yes", "#/hold", "got 'yes'"),
        ("sed", 1, "#/sed", "did you mean 'seed'?"),
        ("not_before", "2026-11-21T22:00:00", "#/not_before", "timezone"),
        ("not_before", "0001-01-01T00:00:00+23:00", "#/not_before", "between the years 2000 and 2200"),
        ("not_after", "2020-01-01T00:00:00Z", "#/not_after", "is over: it is 20"),
        ("not_after", "2026-11-21", "#/not_after", "got '2026-11-21'"),
        ("priority", 2.5, "#/priority", "got 2.5"),
        ("spec.labels", {"a/b": 3}, "#/spec/labels/a~1b", "got 3"),
    ],
)
def test_every_fault_has_a_pointer_and_says_value_limit_and_unit(
    service: Service, path: str, value: Any, pointer: str, words: str
) -> None:
    body, now = changed(path, value), service.catalogue.now()
    service.catalogue.now = lambda: now
    answer = service.client().post(SUBMIT, json=body)
    assert answer.status_code == 422, answer.text
    faults = {fault["pointer"]: fault["detail"] for fault in answer.json()["errors"]}
    assert list(faults) == [pointer]
    assert words in faults[pointer]
    told = service.client().post(VALIDATE, json=body)  # says the same: what has not its form is 422 there too
    assert told.status_code in (200, 422)
    assert told.json()["errors"] == answer.json()["errors"]


def test_a_window_is_at_fault_where_it_ends(service: Service) -> None:
    body = {**submission(), "not_before": "2198-01-02T00:00:00Z", "not_after": "2198-01-01T00:00:00Z"}
    own = service.client().post(SUBMIT, json=submission(not_before=body["not_before"])).json()["id"]
    patched = service.client().patch(
        f"{SUBMIT}/{own}", json={"not_after": body["not_after"]}, headers={"If-Match": "*"}
    )
    for answer in (service.client().post(SUBMIT, json=body), patched):
        assert answer.status_code == 422
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["#/not_after"]
        assert "not later than not_before" in answer.json()["errors"][0]["detail"]


def test_all_faults_are_named_at_once(service: Service) -> None:
    body = changed("spec.budget", {"electrons": 0, "frames": -3})
    body["priority"] = "high"
    answer = service.client().post(SUBMIT, json=body)
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {
        "#/spec/budget/electrons",
        "#/spec/budget/frames",
        "#/priority",
    }
    late = changed("spec.specimen.structure", "/etc/passwd")
    answer = service.client().post(SUBMIT, json={**late, "not_after": "2020-01-01T00:00:00Z"})
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["#/not_after", "#/spec/specimen/structure"]


def test_a_whole_number_may_be_written_with_a_point(service: Service) -> None:
    body = changed("spec.budget.frames", 20.0)
    answer = service.client().post(SUBMIT, json={**body, "priority": 2.0})
    assert answer.status_code == 201, answer.text
    assert answer.json()["priority"] == 2
    assert service.catalogue.experiment(answer.json()["id"]).spec["budget"]["frames"] == 20


def test_another_media_type_is_not_understood(service: Service) -> None:
    text = json.dumps(submission())
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        answer = service.client().post(SUBMIT, content=text, headers={"Content-Type": media_type})
        assert answer.status_code == 415, answer.text
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert service.client().post(SUBMIT, content=text, headers=charset).status_code == 201


def test_a_body_is_at_most_a_mebibyte_announced_or_not(service: Service) -> None:
    large = b'{"spec": "' + b"x" * (1 << 20) + b'"}'
    announced = send(service, large)
    pieces = service.client().post(SUBMIT, content=iter([large[:1000], large[1000:]]), headers=JSON)
    for answer in (announced, pieces):
        assert answer.status_code == 413
        assert "1048576 bytes" in answer.json()["detail"]


def test_no_file_of_the_server_can_be_named(service: Service) -> None:
    for path in ("/etc/passwd", "structures/WSe2.extxyz", "../x", f"sha256:{'0' * 64}/a/b"):
        answer = service.client().post(SUBMIT, json=changed("spec.specimen.structure", path))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "#/spec/specimen/structure"
    for key, path in {"cache_folder": "/var/x", "file": "/dev/zero", "deep": {"x": ["~root"]}}.items():
        answer = service.client().post(SUBMIT, json=changed(f"spec.instrument.config.{key}", path))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith(f"#/spec/instrument/config/{key}")
    missing = service.client().post(SUBMIT, json=changed("spec.specimen.structure", f"sha256:{'0' * 64}/a.cif"))
    assert missing.status_code == 422
    assert "0" * 64 in missing.json()["detail"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=-1", "limit"), ("limit=0", "limit"), ("limit=501", "limit"), ("limit=" + "9" * 5000, "limit"),
        ("limit=ten", "limit"), ("offset=3", "offset"), ("Limit=3", "Limit"), ("limit=3&limit=4", "limit"),
        ("cursor=1", "cursor"), ("status=done", "status"), ("name=%00", "name"), ("children=perhaps", "children"),
    ],
)  # fmt: skip
def test_a_query_is_read_as_strictly(service: Service, query: str, parameter: str) -> None:
    answer = service.client().get(f"{V1}/experiments?{query}")
    assert answer.status_code == 422, answer.text
    assert [(fault["parameter"], fault["in"]) for fault in answer.json()["errors"]] == [(parameter, "query")]
