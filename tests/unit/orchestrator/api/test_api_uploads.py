"""Files on their way in: on the disk as they come, whole or not there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import guards
from tests.unit.orchestrator.api.serving import V1, Service

MIB = 1 << 20
PIECE = bytes(range(256)) * (MIB // 256)


def send(service: Service, path: str, pieces: list[bytes], look: Callable[[int], None]) -> int:
    """The status of a PUT whose body comes in pieces; `look` is called before each, with what was sent so far."""
    statuses: list[int] = []
    waiting, taken = list(pieces), 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        look(taken)
        if not waiting:
            return {"type": "http.disconnect"}
        body = waiting.pop(0)
        taken += len(body)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def take(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1")], "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}, "state": {},
    }  # fmt: skip
    asyncio.run(service.app(scope, receive, take))
    return statuses[0]


def test_a_file_is_on_the_disk_as_it_comes(service: Service) -> None:
    """Never more than two pieces of it are in memory, and afterwards it is there whole."""
    pieces, uploads = [PIECE] * 8, service.catalogue.data_folder / "uploads"
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    seen: list[int] = []

    def look(taken: int) -> None:
        found = list(uploads.glob(".*.part")) if uploads.exists() else []
        seen.append(sum(path.stat().st_size for path in found))
        assert seen[-1] >= taken - 2 * MIB

    assert send(service, f"{V1}/files/{digest}/large.bin", pieces, look) == 201
    assert max(seen) >= 6 * MIB
    assert (uploads / digest / "large.bin").read_bytes() == b"".join(pieces)
    assert list(uploads.glob(".*")) == []


@pytest.mark.parametrize("fault", ["too large", "another hash", "cut off"])
def test_what_is_not_whole_leaves_nothing(service: Service, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    uploads, pieces = service.catalogue.data_folder / "uploads", [PIECE] * 4
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    expected = {"too large": 413, "another hash": 422}
    if fault == "too large":
        monkeypatch.setattr(guards, "FILE_LIMIT_BYTES", 3 * MIB)
    else:
        pieces = pieces[:3]

    def cut_off(taken: int) -> None:
        if fault == "cut off" and taken >= 2 * MIB:
            raise ConnectionResetError("gone")

    try:
        status = send(service, f"{V1}/files/{digest}/large.bin", pieces, cut_off)
    except ConnectionResetError:
        status = None
    assert status == expected.get(fault, status)
    assert list(uploads.iterdir()) == []


def test_the_limit_holds_for_what_is_announced_too(service: Service, tmp_path: Path) -> None:
    headers = {"Content-Length": str(guards.FILE_LIMIT_BYTES + 1)}
    answer = service.client().put(f"{V1}/files/{'0' * 64}/large.bin", content=b"x", headers=headers)
    assert (answer.status_code, str(guards.FILE_LIMIT_BYTES) in answer.json()["detail"]) == (413, True)
    assert not (service.catalogue.data_folder / "uploads").exists()
