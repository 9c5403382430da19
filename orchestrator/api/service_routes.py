"""The service itself: health, readiness, version, who I am, and its documentation, served from this machine alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import swagger_ui_bundle
from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from orchestrator.api.answers import json_answer
from orchestrator.api.models import Health, Readiness, Version, WhoAmI
from orchestrator.api.problems import Problem
from orchestrator.api.readiness import ReadinessDesk
from orchestrator.api.route import PREFIX, StrictRoute, identity_of, operation, services_of
from orchestrator.versions import versions

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["service"])
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
_OBJECT = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
_HTML = {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_ASSET = {
    "description": "A file of the documentation pages.",
    "content": {name: {"schema": {"type": "string"}} for name in ("text/css", "text/javascript")},
}


@router.get("/health", **operation(None, {200: Health}))
async def health() -> Response:
    """Whether the service answers at all; looks at nothing else."""
    return json_answer({"status": "ok"})


@router.get("/ready", **operation(None, {200: Readiness, 503: Readiness}))
def ready(request: Request) -> Response:
    """Whether experiments can be taken: database writable, room on the disk; at most two seconds old."""
    found = _readiness(request).recent()
    return json_answer({"ready": found.is_ready, "checks": found.words}, 200 if found.is_ready else 503)


@router.get("/ready/details", **operation("read", {200: Readiness, 503: Readiness}))
def ready_in_full(request: Request) -> Response:
    """The same as it is now, with what is wrong: bytes that are free, each instrument by name, its lock's reason."""
    found = _readiness(request).look()
    return json_answer({"ready": found.is_ready, "checks": found.details}, 200 if found.is_ready else 503)


@router.get("/version", **operation(None, {200: Version}))
async def version(request: Request) -> Response:
    """Versions of stempilot, of this API, and of what results depend on."""
    return json_answer({"stempilot": services_of(request).version, "api": "v1", "libraries": versions()})


@router.get("/whoami", **operation("read", {200: WhoAmI}))
async def whoami(request: Request) -> Response:
    """The name and scopes of the token that asks."""
    identity = identity_of(request)
    return json_answer(
        {"name": identity.name, "scopes": sorted(identity.scopes), "tokens": services_of(request).tokens is not None}
    )


@router.get("/openapi.json", **operation(None, {200: _OBJECT}))
def openapi_document(request: Request) -> Response:
    """This API as an OpenAPI 3.1 document."""
    return json_answer(request.app.state.openapi())


@router.get("/docs", **operation(None, {200: _HTML}))
async def documentation() -> Response:
    """This API as a page to read and to try out; it asks nothing of any other machine."""
    return HTMLResponse(_DOCS_PAGE, headers={"Content-Security-Policy": _DOCS_POLICY})


@router.get("/docs/start.js", **operation(None, {200: _ASSET}))
async def documentation_start() -> Response:
    """The script that begins the documentation page."""
    return Response(_DOCS_SCRIPT, media_type="text/javascript")


@router.get("/docs/{name}", **operation(None, {200: _ASSET}, 404))
async def documentation_file(name: Annotated[str, InPath(pattern=r"^[a-z-]{1,30}\.(css|js)$")]) -> Response:
    """A file the documentation page is made of."""
    if name not in _ASSETS:
        raise Problem("not-found", f"no file {name!r} here; there are {', '.join(_ASSETS)}")
    return FileResponse(_assets() / name, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})


def _readiness(request: Request) -> ReadinessDesk:
    return request.app.state.readiness


@cache
def _assets() -> Path:
    return Path(swagger_ui_bundle.swagger_ui_path)


_DOCS_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stempilot API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="{PREFIX}/docs/swagger-ui.css"></head>
<body><div id="api"></div>
<script src="{PREFIX}/docs/swagger-ui-bundle.js"></script><script src="{PREFIX}/docs/start.js"></script></body></html>
"""
# The page reads OpenAPI 3.0, where a schema has one example and no list of them.
_DOCS_SCRIPT = f"""function older(node) {{
  if (node === null || typeof node !== "object") return;
  if (Array.isArray(node.examples)) node.example = node.examples[0];
  Object.values(node).forEach(older);
}}
fetch("{PREFIX}/openapi.json").then(answer => answer.json()).then(document => {{
  older(document.components);
  document.openapi = "3.0.3";
  SwaggerUIBundle({{ spec: document, dom_id: "#api", validatorUrl: null, deepLinking: true, tryItOutEnabled: true }});
}});
"""

short_router = APIRouter(include_in_schema=False)


@short_router.get("/docs")
async def short_way() -> Response:
    """To the documentation."""
    return RedirectResponse(f"{PREFIX}/docs", 307)
