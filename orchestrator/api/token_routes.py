"""Tokens: made (and shown once), listed, revoked, by administrators."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.answers import json_answer
from orchestrator.api.idempotency import with_answer
from orchestrator.api.models import FRAME_PATTERN, NewToken, TokenList, TokenMade
from orchestrator.api.problems import Problem
from orchestrator.api.route import PREFIX, StrictRoute, operation, services_of
from orchestrator.api.tokens import Token, Tokens
from orchestrator.plain_json import plain

router = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["tokens"])
TokenId = Annotated[str, Path(pattern=FRAME_PATTERN)]


@router.post("/tokens", operation_id="create_token", **operation("admin", {201: TokenMade}, keyed=True, creates=True))
def create(request: Request, body: NewToken) -> Response:
    """A new token. Its secret is in this answer and nowhere else: the same request again does not show it."""
    also = with_answer(request, _made_before)
    return _made(_tokens(request).create(body.name, body.scopes, body.expires_at, also=also))


@router.get("/tokens", operation_id="list_tokens", **operation("admin", {200: TokenList}, 409))
def tokens(request: Request) -> Response:
    """Every token ever made, without what opens anything."""
    return json_answer({"tokens": [_facts(token) for token in _tokens(request).all()]})


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    **operation("admin", {204: {"description": "It opens nothing any more."}}, 404, keyed=True),
)
def revoke(request: Request, token_id: TokenId) -> Response:
    """Make a token useless at once."""
    return _revoked(_tokens(request).revoke(token_id, also=with_answer(request, _revoked)))


def _revoked(token: Token) -> Response:
    del token
    return Response(status_code=204)


def _made(token: Token) -> Response:
    return json_answer({**_facts(token), "secret": token.secret}, 201, {"Location": f"{PREFIX}/tokens/{token.id}"})


def _made_before(token: Token) -> Response:
    return _made(replace(token, secret=None))


def _facts(token: Token) -> dict[str, object]:
    return {key: value for key, value in plain(token).items() if key != "secret"}


def _tokens(request: Request) -> Tokens:
    tokens = services_of(request).tokens
    if tokens is None:
        raise Problem("conflict", "this service was started without tokens; start it with tokens to make some")
    return tokens
