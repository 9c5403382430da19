"""Answers: JSON with its headers, bytes with ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from orchestrator.api.services import Services
from orchestrator.plain_json import to_text


def json_answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; numbers that are not finite are null."""
    return Response(to_text(document), status, headers, "application/json")


def etag(version: int) -> str:
    """The ETag of the state clients may change."""
    return f'"{version}"'


def outward(text: str, services: Services) -> str:
    """A message without the place of the data folder, which is nobody's business outside."""
    return text.replace(str(services.catalogue.data_folder), "the data folder")
