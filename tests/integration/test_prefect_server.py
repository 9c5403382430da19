"""Prefect's ephemeral API beside the pinned fastapi."""

from __future__ import annotations

from pathlib import Path

from tests.unit.house.test_imports import imported


def test_prefect_server_starts_with_the_pinned_fastapi(tmp_path: Path) -> None:
    assert imported("prefect.server.api.server", tmp_path)["file"]
