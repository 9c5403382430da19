"""Prefect's ephemeral API beside the pinned fastapi."""

from __future__ import annotations

from tests.integration.test_imports import imported


def test_prefect_server_starts_with_the_pinned_fastapi() -> None:
    assert imported("prefect.server.api.server")["file"]
