"""The service as one ASGI application; every module whose name ends in `_routes` is a room of it.

`workflows.serve` makes the `Services`, calls `check_binding` and runs the application with uvicorn.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from instruments import InstrumentError
from orchestrator.api import (
    event_routes,
    experiment_routes,
    file_routes,
    instrument_routes,
    pages,
    queue_routes,
    record_routes,
    service_routes,
    token_routes,
)
from orchestrator.api.answers import outward
from orchestrator.api.event_feed import EventFeed
from orchestrator.api.guards import Guards
from orchestrator.api.idempotency import Replies
from orchestrator.api.limits import Limits
from orchestrator.api.openapi import document_of
from orchestrator.api.page_visits import PageDesk, problem_page
from orchestrator.api.problems import Problem, problem_of
from orchestrator.api.readiness import ReadinessDesk
from orchestrator.api.route import parameters_problem
from orchestrator.api.services import Services
from orchestrator.api.specs import SpecDesk
from orchestrator.errors import OrchestratorError, StorageError

_log = logging.getLogger(__name__)
_ROUTERS = (
    experiment_routes.router,
    event_routes.router,
    record_routes.router,
    file_routes.router,
    queue_routes.router,
    instrument_routes.router,
    token_routes.router,
    service_routes.router,
    service_routes.short_router,
    pages.router,
)


def create_app(services: Services) -> FastAPI:
    """The REST API under `/api/v1` and the pages people look at, over what `services` holds."""
    app = FastAPI(title="stempilot", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
                  lifespan=_lifespan)  # fmt: skip
    app.state.services = services
    app.state.limits = Limits(services.settings.serve.writes_per_s, services.catalogue.elapsed_s)
    app.state.replies = Replies(services.catalogue)
    app.state.specs = SpecDesk(services)
    app.state.event_feed = EventFeed(services.catalogue)
    app.state.stream_count = 0
    app.state.pages = PageDesk(services)
    app.state.readiness = ReadinessDesk(services, app.state.pages.dashboard.board.states)
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)
    app.state.openapi = cache(partial(document_of, app, services))  # made when it is first asked for
    app.add_middleware(Guards, own_names_only=services.tokens is None)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_parameters)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(OrchestratorError, _answer_error)
    app.add_exception_handler(InstrumentError, _answer_error)
    app.add_exception_handler(Exception, _answer_unknown)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    try:
        app.state.replies.forget_old()
        services.catalogue.uploads.forget_partial()
    except (StorageError, OSError) as error:
        _log.warning("what nobody will ask for again stays for now: %s", error)
    yield


def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.url.path)


def _answer_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return parameters_problem(error).response(request.url.path)


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrchestratorError | InstrumentError)
    problem = problem_of(error)
    problem.detail = outward(problem.detail, request.app.state.services)
    if problem.status >= 500:
        _log.error("%s %s: %s", request.method, request.url.path, error)
    return problem.response(request.url.path)


def _answer_http(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown path, a method that is not there."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        allowed = allowed_methods(request.app, request.scope)
        problem = Problem(
            "method-not-allowed", f"{request.method} is not allowed for {path[:200]}; allowed: {', '.join(allowed)}",
            headers={"Allow": ", ".join(allowed)},
        )  # fmt: skip
    elif error.status_code == 404:
        problem = Problem("not-found", f"nothing is served at {path[:200]}; /api/v1/docs lists what is")
    else:
        problem = Problem("malformed" if error.status_code < 500 else "internal", str(error.detail))
    return problem_page(request, problem)


def _answer_unknown(request: Request, error: Exception) -> Response:
    """An error nobody foresaw: the log gets all of it, the client a sentence."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = Problem("internal", "an error that was not foreseen; the service's log has it")
    problem.headers["X-Content-Type-Options"] = "nosniff"
    return problem_page(request, problem)


def allowed_methods(app: FastAPI, scope: Any) -> list[str]:
    """Every method that some route serves at this path, HEAD with GET."""
    found: set[str] = set()
    for route in app.router.routes:
        if isinstance(route, APIRoute) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))
