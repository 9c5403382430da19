"""How every operation is served: who asks, then parameters and body, strictly, then the handler, once a key.

`operation` declares what an operation needs and answers; `StrictRoute` holds it to that, so that the published OpenAPI
document and the behaviour cannot differ. Neighbours: `access`, `bodies`, `idempotency`, `problems`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from functools import partial
from hashlib import sha256
from typing import Any, Final, Literal, get_args

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.access import LOCAL, Identity, admit, check_write
from orchestrator.api.bodies import parameter_faults, read_body
from orchestrator.api.idempotency import KEY_PATTERN, Replies
from orchestrator.api.incoming import received
from orchestrator.api.problems import KINDS, MEDIA_TYPE, Problem
from orchestrator.api.services import Services

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
PREFIX: Final = "/api/v1"
_NEEDS: Final = "x-needs"  # read from the document's own declaration, and left there for readers
_VERSION: Final = '^"[0-9]{1,18}"$'
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A new one for each intended write. The same key again gives the first answer again.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}
_UNNEEDED_KEY: Final = {
    **_IDEMPOTENCY_KEY,
    "description": "Taken, and without effect: this is done whenever it is asked for.",
    "schema": {"type": "string"},
}

_LOCATION: Final = {"description": "Where it is now.", "required": True, "schema": {"type": "string"}}
_ETAG: Final = {
    "description": "Its version, for If-Match.",
    "required": True,
    "schema": {"type": "string", "pattern": _VERSION},
}


def operation(
    scope: str | None,
    answers: Mapping[int, Any],
    *problems: int,
    if_match: Literal["required", "optional"] | None = None,
    links: Mapping[str, Any] | None = None,
    keyed: bool = False,
    at_once: bool = False,
    at_most_once: bool = False,
    streamed: bool = False,
    creates: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a route: the scope it needs (None: anybody), its answers, the problems it may end in.

    `answers` maps a status to a model, or to an OpenAPI response object; the first is the usual one. `keyed` writes
    take an Idempotency-Key, which one that acts `at_once` does not wait for; what is `at_most_once` is begun only once
    a key; a `streamed` body is in a file; what `creates` says where in Location; `extra` is more of OpenAPI.
    """
    responses: dict[int | str, dict[str, Any]] = {
        status: _problem_response(status) for status in _problem_statuses(scope, if_match, keyed=keyed) | {*problems}
    }
    for status, answer in answers.items():
        responses[status] = {"model": answer, "description": "Done."} if isinstance(answer, type) else dict(answer)
    usual = next(iter(answers))
    headers = {**({"Location": _LOCATION} if creates else {}), **({"ETag": _ETAG} if if_match or links else {})}
    if headers and usual != 204:
        responses[usual]["headers"] = headers
    if links:
        responses[usual]["links"] = dict(links)
    key = _UNNEEDED_KEY if at_once else _IDEMPOTENCY_KEY
    parameters = [*([key] if keyed else []), *([_if_match(if_match)] if if_match else [])]
    declared: dict[str, Any] = {
        _NEEDS: {
            "scope": scope,
            "if_match": if_match,
            "keyed": keyed,
            "at_once": at_once,
            "at_most_once": at_most_once,
            "streamed": streamed,
        },
        "security": [] if scope is None else [{"token": [scope]}],
        **({"parameters": parameters} if parameters else {}),
        **(extra or {}),
    }
    return {"status_code": usual, "responses": responses, "response_model": None, "openapi_extra": declared}


def _problem_statuses(scope: str | None, if_match: str | None, *, keyed: bool) -> set[int]:
    """Statuses of the problems that every operation with such needs may end in."""
    statuses = {422, 500, 503}
    if scope is not None:
        statuses |= {401, 403, 429}
    if keyed:
        statuses |= {400, 403, 409, 413, 415}
    if if_match is not None:
        statuses |= {412, 428} if if_match == "required" else {412}
    return statuses


class StrictRoute(APIRoute):
    """A route that refuses what its declaration does not know, and asks who it is before it reads anything."""

    def get_route_handler(self) -> Handler:
        """The handler inside the checks."""
        inner = super().get_route_handler()
        needs: dict[str, Any] = (self.openapi_extra or {})[_NEEDS]
        model = _body_model(self)

        async def handle(request: Request) -> Response:
            services: Services = request.app.state.services
            scope = needs["scope"]
            request.state.identity = (
                LOCAL if scope is None else await admit(request, services, scope, at_once=needs["at_once"])
            )
            self._check_query(request)
            request.state.if_version = _if_version(request, needs["if_match"])
            if not needs["keyed"]:
                return await inner(request)
            if not needs["at_once"]:
                check_write(request, request.state.identity)
            if needs["streamed"]:
                async with received(request, services.catalogue.uploads) as part:
                    return await self._once(request, part.sha256, partial(inner, _Parsed(request, None)))
            data = await request.body()
            body = _read(
                request, model, data, is_required=bool(self.body_field and self.body_field.field_info.is_required())
            )
            if needs["at_once"]:  # whatever was answered before, and whether or not the answer can be kept
                return await inner(_Parsed(request, body))
            return await self._once(request, sha256(data).hexdigest(), partial(inner, _Parsed(request, body)))

        return handle

    async def _once(
        self, request: Request, body_sha256: str, answer: Callable[[], Coroutine[Any, Any, Response]]
    ) -> Response:
        replies: Replies = request.app.state.replies
        at_most_once = (self.openapi_extra or {})[_NEEDS]["at_most_once"]
        return await replies.once(request, body_sha256, answer, at_most_once=at_most_once)

    def _check_query(self, request: Request) -> None:
        names = [name for name, _ in request.query_params.multi_items()]
        known = _query_names(self)
        unknown = f"unknown parameter; known: {', '.join(sorted(known)) or 'none'}"
        errors = [
            {"parameter": name[:100], "in": "query", "detail": "given more than once" if name in known else unknown}
            for name in dict.fromkeys(names)
            if name not in known or names.count(name) > 1
        ]
        if errors:
            raise Problem("invalid", f"{len(errors)} fault(s) in the query; `errors` says where", errors=errors[:50])


class _Parsed(Request):
    """A request whose body was read and checked before; FastAPI takes the model as it is."""

    def __init__(self, request: Request, body: BaseModel | None) -> None:
        super().__init__(request.scope, request.receive)
        self._model = body

    async def body(self) -> bytes:
        """Something where there is a model, so that FastAPI asks for it."""
        return b"{}" if self._model is not None else b""

    async def json(self) -> Any:
        """The model."""
        return self._model


def identity_of(request: Request) -> Identity:
    """Who asks, as the route found out."""
    return request.state.identity


def services_of(request: Request) -> Services:
    """What the application was made with."""
    return request.app.state.services


def version_of(request: Request) -> int | None:
    """The version the client saw, from If-Match; None where any will do."""
    return request.state.if_version


def parameters_problem(error: RequestValidationError) -> Problem:
    """The problem for faults in the path, the query or a header."""
    faults = parameter_faults(error.errors())
    return Problem("invalid", f"{len(faults)} fault(s) in the parameters; `errors` says where", errors=faults)


def _body_model(route: APIRoute) -> type[BaseModel] | None:
    """The model of the body, also where the body may be left out (`Model | None`)."""
    field = route.body_field
    annotation: Any = None if field is None else field.field_info.annotation
    choices = get_args(annotation) or (annotation,)
    return next((choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)), None)


def _query_names(route: APIRoute) -> frozenset[str]:
    return frozenset(field.alias for field in route.dependant.query_params)


def _read(request: Request, model: type[BaseModel] | None, data: bytes, *, is_required: bool) -> BaseModel | None:
    if model is None or (not data and not is_required):
        return None
    if not data:
        raise Problem("malformed", "the body is empty; send a JSON object, `{}` at least")
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() != "application/json":
        given = request.headers.get("content-type", "none")
        raise Problem("unsupported-media-type", f"the body's media type is {given[:100]!r}; send application/json")
    return read_body(model, data)


def _if_version(request: Request, wanted: str | None) -> int | None:
    text = request.headers.get("if-match")
    if wanted is None or text is None:
        if wanted == "required":
            raise Problem(
                "precondition-required", "read it first, then send its ETag as If-Match; `*` means whatever it is now"
            )
        return None
    if text != "*" and re.match(_VERSION, text) is None:
        fault = {"parameter": "If-Match", "in": "header", "detail": f"{text[:50]!r} is neither an ETag of ours nor *"}
        raise Problem("invalid", 'If-Match is the ETag that was read, such as "3", or *', errors=[fault])
    return None if text == "*" else int(text.strip('"'))


def _if_match(wanted: str) -> dict[str, Any]:
    return {
        "name": "If-Match",
        "in": "header",
        "required": wanted == "required",
        "description": "The ETag that was read; 412 when it has changed since.",
        "schema": {"type": "string", "anyOf": [{"const": "*"}, {"pattern": _VERSION}]},
    }


def _problem_response(status: int) -> dict[str, Any]:
    kinds = [title for code, title in KINDS.values() if code == status]
    return {
        "description": "; or: ".join(kinds) + ".",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
