"""Files that a spec names, sent before it and known by what is in them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.answers import json_answer
from orchestrator.api.examples import FILE_NAME, FILE_SHA256, FILE_TEXT
from orchestrator.api.incoming import part_of
from orchestrator.api.models import FileFacts
from orchestrator.api.problems import Problem
from orchestrator.api.ranges import bytes_answer
from orchestrator.api.route import PREFIX, StrictRoute, operation, services_of
from orchestrator.errors import NotFound, SpecError

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["files"])
OCTETS: Final = "application/octet-stream"
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", examples=[FILE_SHA256])]
FileName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_+=@,()-][A-Za-z0-9 ._+=@,()-]{0,159}$", examples=[FILE_NAME])]
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "contentEncoding": "binary"}, "example": FILE_TEXT}},
    }
}
_CONTENT: Final[dict[int, Any]] = {
    200: {"description": "The file.", "content": {OCTETS: {"schema": {"type": "string", "contentEncoding": "binary"}}}}
}


@router.put(
    "/files/{sha256}/{name}",
    operation_id="upload_file",
    **operation("experiments:write", {201: FileFacts, 200: FileFacts}, keyed=True, streamed=True, extra=_BODY),
)
def upload(request: Request, sha256: Sha256, name: FileName) -> Response:
    """Keep a file under its content's sha256; 201 when it is new, 200 when it was there, 422 when the hash differs."""
    part = part_of(request)
    found = part.sha256
    if found != sha256:
        fault = {"parameter": "sha256", "in": "path", "detail": f"the {part.size_bytes} bytes sent have sha256 {found}"}
        raise Problem("invalid", f"the body's sha256 is {found}, the path says {sha256}", errors=[fault])
    is_new = services_of(request).catalogue.uploads.take(part, name)
    facts = {"sha256": sha256, "name": name, "size_bytes": part.size_bytes, "reference": f"sha256:{sha256}/{name}"}
    return json_answer(facts, 201 if is_new else 200, {"Location": f"{PREFIX}/files/{sha256}/{name}"})


@router.get(
    "/files/{sha256}/{name}",
    operation_id="get_file",
    **operation("read", {**_CONTENT, 206: _CONTENT[200], 304: {"description": "You have it already."}}, 404, 416),
)
def download(request: Request, sha256: Sha256, name: FileName) -> Response:
    """A file that was uploaded; HEAD says whether it is there, Range is understood."""
    try:
        path = services_of(request).catalogue.uploads.path(sha256, name)
    except SpecError as error:
        raise NotFound(str(error)) from error
    return bytes_answer(request, path.read_bytes(), sha256=sha256, media_type=OCTETS)
