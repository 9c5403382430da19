"""Who looks at a page, what their forms carry, and how the pages answer when something is wrong. Neighbour: `pages`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from instruments import InstrumentError
from orchestrator.api.access import COOKIE, LOCAL, Identity, identify, require
from orchestrator.api.form_guard import FormGuard
from orchestrator.api.problems import Problem, problem_of
from orchestrator.api.route import parameters_problem
from orchestrator.api.services import Services
from orchestrator.dashboard import Dashboard, Message, Visit
from orchestrator.dashboard.kept import Kept
from orchestrator.errors import OrchestratorError, StorageError

_log = logging.getLogger(__name__)
POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)  # fmt: skip
_MESSAGES_KEPT: Final = 256
_FIELDS_MOST: Final = 20


class PageDesk:
    """What the pages need besides the services; one for an application."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.dashboard = Dashboard(services.catalogue, services.queue, services.instruments, services.version)
        self.forms = FormGuard.open(services.catalogue.data_folder)
        self._messages = Kept[Message | None](_MESSAGES_KEPT)

    def keep_message(self, message: Message) -> str:
        """The key under which the next page finds it."""
        key = secrets.token_urlsafe(9)
        self._messages.get(key, lambda: message)
        return key

    def message(self, key: str | None) -> Message | None:
        """What was kept under the key; None where nothing was."""
        return None if key is None else self._messages.get(key, lambda: None)


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was sent by one of our pages, and by whom."""

    identity: Identity
    fields: Mapping[str, str]

    @property
    def by(self) -> str:
        """What the record says of them."""
        return self.identity.name


def desk_of(request: Request) -> PageDesk:
    """The application's desk."""
    return request.app.state.pages


class PageRoute(APIRoute):
    """A route whose errors are pages, and which sends strangers to the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler inside the checks."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except RequestValidationError as error:
                return problem_page(request, parameters_problem(error))
            except Problem as problem:
                return problem_page(request, problem)
            except (OrchestratorError, InstrumentError) as error:
                return problem_page(request, problem_of(error))

        return handle


async def looker(request: Request) -> Identity:
    """Who looks. Raises Problem `unauthorized` or `forbidden`."""
    identity = await identify(request, desk_of(request).services)
    if identity is None:
        raise Problem("unauthorized", "log in to look at this page")
    require(identity, "read")
    return identity


async def sent_form(request: Request) -> Form:
    """The form of a page of ours. Raises Problem `unauthorized`, `forbidden` or `malformed`."""
    desk = desk_of(request)
    identity = await person_of(request)
    fields = await form_fields(request)
    if not desk.forms.is_ours(identity.token_id, fields.get("csrf", "")):
        raise Problem("forbidden", "this form is not from a page of this service; load the page again, then repeat it")
    return Form(identity, fields)


async def person_of(request: Request) -> Identity:
    """Who sends a form: the cookie's owner. Raises Problem `unauthorized`."""
    tokens = desk_of(request).services.tokens
    if tokens is None:
        return LOCAL
    text = request.cookies.get(COOKIE, "")
    identity = await run_in_threadpool(tokens.identify, text)
    if identity is None:
        raise Problem("unauthorized", "log in first")
    return identity


async def form_fields(request: Request) -> dict[str, str]:
    """Fields of a form as a browser sends it. Raises Problem `malformed`."""
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=_FIELDS_MOST)
    except ValueError as error:
        raise Problem("malformed", f"the form cannot be read: {error}") from error
    return dict(pairs)


def visit_of(request: Request, identity: Identity | None) -> Visit:
    """What the page is made for."""
    desk = desk_of(request)
    return Visit(
        csrf=desk.forms.field(identity.token_id if identity is not None else "nobody"),
        person=identity.name if identity is not None and identity is not LOCAL else None,
        message=desk.message(request.query_params.get("told")),
    )


def page(html: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page, which is never kept: going back shows what is."""
    return HTMLResponse(
        html, status, {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", **(headers or {})}
    )


def told(request: Request, back: str, message: Message) -> Response:
    """Back to a page that says what came of a form."""
    key = desk_of(request).keep_message(message)
    return RedirectResponse(f"{back}?{urlencode({'told': key})}", 303)


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, for something that is not of the API."""
    is_api = request.url.path.startswith("/api/")
    return not is_api and "text/html" in request.headers.get("accept", "")


def problem_page(request: Request, problem: Problem) -> Response:
    """What went wrong as a page; strangers who look are sent to the login."""
    desk, path = desk_of(request), request.url.path
    is_read = request.method in ("GET", "HEAD")
    if problem.kind == "unauthorized" and is_read and wants_page(request):
        return RedirectResponse(f"/login?{urlencode({'back': path})}", 303)
    if not wants_page(request):
        return problem.response(path)
    if problem.status >= 500:
        _log.error("%s %s: %s", request.method, path, problem.detail)
    faults = "; ".join(str(fault["detail"]) for fault in problem.members.get("errors", []))
    detail = f"{problem.detail} ({faults})" if faults else problem.detail
    try:
        html = desk.dashboard.error_html(problem.status, problem.title, detail, Visit(csrf=""))
    except StorageError:
        return problem.response(path)
    return page(html, problem.status, problem.headers)
