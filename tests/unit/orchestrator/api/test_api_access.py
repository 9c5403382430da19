"""Who may do what: tokens, scopes, owners, and what a browser on this machine cannot be made to do."""

from __future__ import annotations

import logging
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import SCOPES, Tokens, check_binding
from orchestrator.catalogue import Catalogue
from orchestrator.errors import SpecError
from tests.unit.orchestrator.api.serving import V1, Service, submission, submitted

_METHODS = ("get", "put", "post", "patch", "delete")


def operations(service: Service) -> list[tuple[str, str, str | None]]:
    """Method, path with something in its places, and the scope the published document asks for."""
    document = service.client().get(f"{V1}/openapi.json").json()
    found: list[tuple[str, str, str | None]] = []
    for path, methods in document["paths"].items():
        filled = re.sub(r"\{(\w+)\}", lambda place: _filling(place[1]), path)
        for method in _METHODS:
            if method in methods:
                security = methods[method]["security"]
                found.append((method, filled, security[0]["token"][0] if security else None))
    return found


def _filling(place: str) -> str:
    return {"name": "start.js", "sha256": "0" * 64}.get(place, "0" * 32)


def test_each_operation_opens_to_its_scope_and_to_no_other(guarded: Service) -> None:
    """Every operation of the document, asked with each scope alone: 403 for all but the one it declares."""
    secrets = {scope: guarded.token(scope, name=scope.replace(":", "-")) for scope in SCOPES}
    asked = 0
    for method, path, needed in operations(guarded):
        nobody = guarded.client().request(method, path)
        assert (nobody.status_code == 401) == (needed is not None), (method, path, nobody.text)
        for scope, secret in secrets.items():
            answer = guarded.client(secret).request(method, path, headers={"If-Match": "*"})
            allowed = needed in (None, scope) or scope == "admin"
            assert (answer.status_code == 403) == (not allowed), (method, path, scope, answer.text)
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            asked += 1
    assert asked > 150


def test_every_operation_under_the_prefix_declares_who_may_use_it(guarded: Service) -> None:
    document = guarded.client().get(f"{V1}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in _METHODS:
            assert method not in methods or "security" in methods[method], (method, path)
    anybody = {path for method, path, needed in operations(guarded) if needed is None}
    allowed = ("/health", "/ready", "/version", "/openapi.json", "/docs", "/docs/start.js")
    assert anybody <= {V1 + path for path in allowed}


@pytest.mark.parametrize("text", ["", "x", "Bearer", "Bearer x", "Basic YTpi", "Bearer stempilot_0_0"])
def test_what_is_no_token_opens_nothing(guarded: Service, text: str) -> None:
    answer = guarded.client().get(f"{V1}/whoami", headers={"Authorization": text})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_changed_secret_opens_nothing(guarded: Service) -> None:
    secret = guarded.token("read")
    assert guarded.client(secret).get(f"{V1}/whoami").json()["name"] == "anna"
    other = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    assert guarded.client(other).get(f"{V1}/whoami").status_code == 401
    other_id = secret.replace(secret.split("_")[1], "0" * 32)
    assert guarded.client(other_id).get(f"{V1}/whoami").status_code == 401


def test_a_token_ends(guarded: Service) -> None:
    secret = guarded.token("read", lasts=timedelta(seconds=5))
    assert guarded.client(secret).get(f"{V1}/whoami").status_code == 200
    clock = guarded.catalogue.now
    guarded.catalogue.now = lambda: clock() + timedelta(seconds=6)
    assert guarded.client(secret).get(f"{V1}/whoami").status_code == 401


def test_a_revoked_token_opens_nothing_at_once(guarded: Service) -> None:
    admin, secret = guarded.client(guarded.token("admin")), guarded.token("read", name="bob")
    assert guarded.client(secret).get(f"{V1}/whoami").status_code == 200
    own = next(token["id"] for token in admin.get(f"{V1}/tokens").json()["tokens"] if token["name"] == "bob")
    for _ in range(2):
        assert admin.delete(f"{V1}/tokens/{own}").status_code == 204
    assert guarded.client(secret).get(f"{V1}/whoami").status_code == 401
    assert admin.delete(f"{V1}/tokens/{'0' * 32}").status_code == 404


def test_a_secret_is_shown_once_and_stored_nowhere(guarded: Service, data: Path) -> None:
    admin = guarded.client(guarded.token("admin"))
    expires = (guarded.catalogue.now() + timedelta(days=1)).isoformat()
    body = {"name": "bob", "scopes": ["read"], "expires_at": expires}
    first = admin.post(f"{V1}/tokens", json=body, headers={"Idempotency-Key": "t1"})
    again = admin.post(f"{V1}/tokens", json=body, headers={"Idempotency-Key": "t1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == {**first.json(), "secret": None}
    assert "secret" not in admin.get(f"{V1}/tokens").json()["tokens"][-1]
    secret = first.json()["secret"]
    assert guarded.client(secret).get(f"{V1}/whoami").json()["scopes"] == ["read"]
    guarded.catalogue.close()
    stored = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert secret.split("_")[2].encode() not in stored
    assert first.json()["id"].encode() in stored


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "400 days"),
        ({"expires_at": "2190-01-01T00:00:00Z"}, "400 days"),
        ({"expires_at": None}, "expires_at"),
        ({"name": "no/slash"}, "name"),
    ],
)
def test_a_token_has_scopes_a_name_and_an_end(guarded: Service, change: dict[str, Any], word: str) -> None:
    body = {"name": "bob", "scopes": ["read"], "expires_at": "2026-12-01T00:00:00Z", **change}
    answer = guarded.client(guarded.token("admin")).post(f"{V1}/tokens", json=body)
    assert answer.status_code == 422
    assert word in answer.text


def test_the_first_token_is_made_once_and_the_pepper_is_for_one_user(catalogue_folder: Path) -> None:
    with Catalogue.open(catalogue_folder, shared=True) as catalogue:
        tokens = Tokens.open(catalogue)
        first = tokens.first()
        assert first is not None
        assert first.secret is not None
        assert tokens.first() is None
        again = Tokens.open(catalogue)
        assert again.first() is None
        identity = again.identify(first.secret)
        assert identity is not None
        assert identity.may("admin")
        assert identity.may("instruments:control")
        tokens.revoke(first.id)
        assert tokens.first() is not None
    assert stat.S_IMODE((catalogue_folder / "token-pepper").stat().st_mode) == 0o600
    (catalogue_folder / "token-pepper").write_bytes(b"other pepper, of thirty-two bytes and more")
    with Catalogue.open(catalogue_folder, shared=True) as catalogue:
        assert Tokens.open(catalogue).identify(first.secret) is None


def test_only_its_owner_and_operators_change_an_experiment(guarded: Service) -> None:
    anna = guarded.client(guarded.token("experiments:write", "read", name="anna"))
    again = guarded.client(guarded.token("experiments:write", name="anna"))
    bob = guarded.client(guarded.token("experiments:write", "read", name="bob"))
    operator = guarded.client(guarded.token("experiments:write", "queue:operate", name="carol"))
    own = submitted(anna)
    assert bob.get(f"{V1}/experiments/{own}").status_code == 200
    for method, rest in [("post", "/hold"), ("post", "/cancel"), ("patch", ""), ("delete", ""), ("post", "/report")]:
        body = {"json": {}} if method != "delete" else {}
        answer = bob.request(method, f"{V1}/experiments/{own}{rest}", headers={"If-Match": "*"}, **body)
        assert answer.status_code == 403, answer.text
    assert again.post(f"{V1}/experiments/{own}/hold").json()["status"] == "held"
    released = operator.post(f"{V1}/experiments/{own}/release")
    assert (released.status_code, released.json()["status"]) == (200, "queued")
    assert anna.get(f"{V1}/experiments/{own}/status").json()["submitted_by"] == "anna"


def test_a_key_belongs_to_one_token(guarded: Service) -> None:
    anna, bob = (guarded.client(guarded.token("experiments:write", name=name)) for name in ("anna", "bob"))
    first, second = (
        client.post(f"{V1}/experiments", json=submission(), headers={"Idempotency-Key": "k"}) for client in (anna, bob)
    )
    assert first.json()["id"] != second.json()["id"]


def test_no_token_in_the_log(guarded: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = guarded.token("admin")
    client = guarded.client(secret)
    for path in ("/whoami", "/nothing", "/experiments?limit=0", f"/experiments/{'0' * 32}"):
        client.get(V1 + path)
    client.post(f"{V1}/experiments", json=submission())
    client.get(f"{V1}/whoami", headers={"Authorization": f"Bearer {secret}x"})
    assert secret.split("_")[2] not in caplog.text


def test_a_cookie_is_good_for_looking_only(guarded: Service) -> None:
    client = guarded.client()
    client.cookies.set("stempilot_token", guarded.token("admin"))
    assert client.get(f"{V1}/whoami").status_code == 200
    assert client.post(f"{V1}/stop").status_code == 401


def test_without_tokens_only_this_machines_names_are_answered(service: Service, guarded: Service) -> None:
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7", "", "[", "[::1"):
        answer = service.client().get(f"{V1}/health", headers={"Host": host})
        assert answer.status_code == 403, host
        assert answer.json()["type"].endswith("foreign-origin")
    for host in ("localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765"):
        assert service.client().get(f"{V1}/health", headers={"Host": host}).status_code == 200
    assert guarded.client().get(f"{V1}/health", headers={"Host": "tem.facility.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9"}, {"Origin": "http://["},
     {"Sec-Fetch-Site": "cross-site"}],
)  # fmt: skip
def test_no_page_of_another_site_writes(service: Service, headers: dict[str, str]) -> None:
    own = submitted(service.client())
    for path in (f"/experiments/{own}/cancel", "/stop", "/experiments"):
        assert service.client().post(V1 + path, headers=headers).status_code == 403
    assert service.queue.entry(own).status == "queued"
    same = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert service.client().post(f"{V1}/experiments/{own}/cancel", headers=same).status_code == 200


def test_without_tokens_nobody_else_can_be_listened_to(guarded: Service) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        check_binding(host, None)
    for host in ("0.0.0.0", "::", "10.0.0.7", "tem.facility.example", ""):
        with pytest.raises(SpecError, match="without tokens"):
            check_binding(host, None)
        check_binding(host, guarded.tokens)
