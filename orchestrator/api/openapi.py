"""The published OpenAPI 3.1 document: what FastAPI derives from the routes, and what it cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api.access import WHAT_SCOPES_ALLOW
from orchestrator.api.route import StrictRoute
from orchestrator.api.services import Services

_DESCRIPTION = """Submit experiments, follow them, command the queue and the instruments.

Errors are `application/problem+json`. Writes take an `Idempotency-Key`: the same key gives the same answer again.
Unknown fields and unknown query parameters are refused. Times are ISO 8601 with a zone; units end the names of numbers.
"""
_METHODS = ("get", "put", "post", "delete", "patch", "head")


def document_of(app: FastAPI, services: Services) -> dict[str, Any]:
    """The document of the application's strict routes."""
    routes = [route for route in app.router.routes if isinstance(route, StrictRoute)]
    document = get_openapi(
        title="stempilot", version=services.version, openapi_version="3.1.0", description=_DESCRIPTION, routes=routes,
        tags=[{"name": name} for name in _tags(routes)],
    )  # fmt: skip
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for generated in ("HTTPValidationError", "ValidationError"):
        schemas.pop(generated, None)
    schemas["Problem"] = PROBLEM
    if services.tokens is not None:
        components["securitySchemes"] = {"token": _SCHEME}
    for path in document["paths"].values():
        for operation in (path[method] for method in _METHODS if method in path):
            _without_null(operation)
            operation["summary"] = operation["description"].split(". ")[0].split("; ")[0].rstrip(".")
            if services.tokens is None:
                operation.pop("security", None)
                operation["responses"].pop("401", None)
    return document


def _without_null(operation: dict[str, Any]) -> None:
    """What may be left out is not therefore `null`: no parameter can be, and no body here is."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for holder in [*operation.get("parameters", []), body]:
        schema: dict[str, Any] = holder.get("schema", {})
        kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) > 1:
            schema["anyOf"] = kinds
        elif kinds:
            schema |= kinds[0]


def _tags(routes: list[StrictRoute]) -> list[str]:
    return list(dict.fromkeys(str(tag) for route in routes for tag in route.tags))


_SCHEME: dict[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "description": "Scopes: "
    + "; ".join(f"`{name}`: {text}" for name, text in WHAT_SCOPES_ALLOW.items())
    + ". `admin` includes all.",
}
PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `type` says it to programs, `detail` to people.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "examples": [
        {
            "type": "urn:stempilot:problem:not-found",
            "title": "There is no such thing",
            "status": 404,
            "detail": "no experiment '00000000' in the data folder; `stempilot list` shows them",
            "instance": "/api/v1/experiments/00000000",
        }
    ],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:stempilot:problem:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "current_status": {"type": "string", "description": "of the experiment, where its state is in the way"},
        "possible": {"type": "array", "items": {"type": "string"}, "description": "actions its state allows"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer into the body"},
                    "parameter": {"type": "string", "description": "of the path, the query, or a header's name"},
                    "in": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
