"""Routes of the pages people look at. Neighbours: `app` mounts them, `orchestrator.dashboard` makes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from orchestrator.api.access import COOKIE, Identity, count_refusal, require, require_owner
from orchestrator.api.experiment_routes import queue_facts
from orchestrator.api.page_visits import (
    Form,
    PageDesk,
    PageRoute,
    desk_of,
    form_fields,
    looker,
    page,
    sent_form,
    told,
    visit_of,
)
from orchestrator.api.problems import Problem
from orchestrator.dashboard import ASSETS, Body, Message, Visit, asset_bytes
from orchestrator.errors import Conflict, NotFound
from orchestrator.plain_json import plain
from orchestrator.queue import QueueEntry

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Looker = Annotated[Identity, Depends(looker)]
Sent = Annotated[Form, Depends(sent_form)]
ExperimentId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
IdOrBeginning = Annotated[str, Path(pattern=r"^[0-9a-f]{8,32}$")]
FrameId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Word = Annotated[str, Path(max_length=100, pattern=r"^[^/\x00-\x1f]+$")]
Before = Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")]
_PageNumber = Annotated[int, Query(alias="page", ge=1, le=10**6)]

REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_FOR_NOW: Final = {"Cache-Control": "private, max-age=60"}
_BACK: Final = re.compile(r"/(experiments/[0-9a-f]{32})?")
_DONE: Final = {
    "hold": "{} is held: it will not start until it is released.",
    "release": "{} is released and waits for its turn.",
    "pause": "{} pauses after the frame it is taking.",
    "resume": "{} goes on in its turn.",
    "cancel": "{} is cancelled.",
}


# --- looking


@router.get("/")
def queue_page(request: Request, who: Looker, before: Before = None) -> Response:
    """The queue and the instruments."""
    return page(desk_of(request).dashboard.queue_html(visit_of(request, who), before))


@router.get("/live/queue")
def live_queue(request: Request, who: Looker, before: Before = None) -> Response:
    """The part of the first page that changes; 304 while it does not."""
    return _body(request, desk_of(request).dashboard.queue_body(visit_of(request, who), before))


@router.get("/experiments/{experiment_id}")
def experiment_page(
    request: Request, who: Looker, experiment_id: IdOrBeginning, page_number: _PageNumber = 1
) -> Response:
    """One experiment; the beginning of an id leads to it."""
    own = desk_of(request).services.catalogue.experiment(experiment_id).id
    if own != experiment_id:
        return RedirectResponse(f"/experiments/{own}", 307)
    return page(desk_of(request).dashboard.experiment_html(experiment_id, visit_of(request, who), page_number))


@router.get("/live/experiments/{experiment_id}")
def live_experiment(
    request: Request, who: Looker, experiment_id: ExperimentId, page_number: _PageNumber = 1
) -> Response:
    """The part of an experiment's page that changes; 304 while it does not."""
    body = desk_of(request).dashboard.experiment_body(experiment_id, visit_of(request, who), page_number)
    return _body(request, body)


@router.get("/experiments/{experiment_id}/report")
def report(request: Request, who: Looker, experiment_id: ExperimentId) -> Response:
    """The report, or a page that offers to write one."""
    desk = desk_of(request)
    row = desk.services.catalogue.experiment(experiment_id)
    path = desk.services.catalogue.data_folder / "experiments" / row.id / "report.html"
    if not path.is_file():
        return page(desk.dashboard.no_report_html(row.id, visit_of(request, who)), 404)
    headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-cache"}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/assets/{digest}/{name}")
def asset(digest: str, name: str) -> Response:
    """Style, script, icon; the digest in the address changes with them."""
    del digest
    if name not in ASSETS:
        raise NotFound(f"no asset {name[:100]!r}; there are {', '.join(ASSETS)}")
    return Response(asset_bytes(name), headers={"Cache-Control": "public, max-age=31536000, immutable"},
                    media_type=ASSETS[name])  # fmt: skip


# --- pictures


@router.get("/experiments/{experiment_id}/frames/{frame_id}/{detector}.png")
def frame_picture(
    request: Request, who: Looker, experiment_id: ExperimentId, frame_id: FrameId, detector: Word
) -> Response:
    """One detector of a frame, y upwards."""
    del who
    return _png(desk_of(request).dashboard.frame_png(experiment_id, frame_id, detector), _FOR_EVER)


@router.get("/experiments/{experiment_id}/ground.png")
def ground(request: Request, who: Looker, experiment_id: ExperimentId) -> Response:
    """The survey frames laid together; the address says how many there were."""
    del who
    return _png(desk_of(request).dashboard.ground_png(experiment_id), _FOR_NOW)


@router.get("/experiments/{experiment_id}/maps/{name}.png")
def map_picture(request: Request, who: Looker, experiment_id: ExperimentId, name: Word) -> Response:
    """One of the objective's maps."""
    del who
    return _png(desk_of(request).dashboard.map_png(experiment_id, name), _FOR_NOW)


@router.get("/experiments/{experiment_id}/sites/{row_number}.png")
def site_picture(
    request: Request,
    who: Looker,
    experiment_id: ExperimentId,
    row_number: Annotated[int, Path(ge=0, le=10**7)],
    frame: Annotated[str, Query(pattern=r"^[0-9a-f]{32}$")],
) -> Response:
    """One find close up."""
    del who
    return _png(desk_of(request).dashboard.site_png(experiment_id, row_number, frame), _FOR_NOW)


# --- doing


@router.post("/experiments/{experiment_id}")
def act(request: Request, form: Sent, experiment_id: ExperimentId) -> Response:
    """Hold, release, cancel, pause, resume, or another priority."""
    desk, action = desk_of(request), form.fields.get("action", "")
    entry = desk.services.queue.entry(experiment_id)
    require_owner(form.identity, entry.submitted_by)
    if action != "priority" and action not in _DONE:
        raise Problem("malformed", f"action {action[:50]!r} is none of priority, {', '.join(_DONE)}")
    try:
        text = _priority(desk, entry, form) if action == "priority" else _acted(desk, entry, action, form)
    except Conflict as error:
        return told(request, _back(form), Message(kind="bad", text=str(error)))
    return told(request, _back(form), Message(kind="good", text=text))


@router.post("/experiments/{experiment_id}/report")
def write_report(request: Request, form: Sent, experiment_id: ExperimentId) -> Response:
    """Write the report of what there is, and show it."""
    services = desk_of(request).services
    require(form.identity, "experiments:write")
    row = services.catalogue.experiment(experiment_id)
    entry = queue_facts(services, row.id)
    require_owner(form.identity, None if entry is None else entry["submitted_by"])
    services.write_report(row.id)
    return RedirectResponse(f"/experiments/{experiment_id}/report", 303)


@router.post("/stop")
def stop_all(request: Request, form: Sent) -> Response:
    """Blank every beam and lock every instrument, now."""
    return _stop(request, form, None)


@router.post("/instruments/{name}/stop")
def stop(request: Request, form: Sent, name: Word) -> Response:
    """Blank one instrument's beam and lock it, now."""
    return _stop(request, form, name)


@router.post("/instruments/{name}/clear")
def clear(request: Request, form: Sent, name: Word) -> Response:
    """Unlock an instrument that a person has looked at."""
    desk = desk_of(request)
    require(form.identity, "instruments:control")
    if form.fields.get("looked") != "yes":
        raise Problem("malformed", f"say that you have looked at {name} by ticking the box, then unlock it")
    desk.services.instruments.clear(name, form.by)
    desk.dashboard.board.forget()
    return told(request, _back(form), Message(kind="good", text=f"{name} is unlocked; experiments may start on it."))


# --- who


@router.get("/login")
def login_page(request: Request, back: str = "/") -> Response:
    """Where a token is given."""
    return page(desk_of(request).dashboard.login_html(visit_of(request, None), _own_path(back)))


@router.post("/login")
def login(request: Request, fields: Annotated[dict[str, str], Depends(form_fields)]) -> Response:
    """Keep a good token in a cookie that only this service sees."""
    desk = desk_of(request)
    if not desk.forms.is_ours("nobody", fields.get("csrf", "")):
        raise Problem("forbidden", "this form is not from a page of this service; load the page again")
    back, token, tokens = _own_path(fields.get("back", "/")), fields.get("token", "").strip(), desk.services.tokens
    if tokens is None:
        return RedirectResponse(back, 303)
    if tokens.identify(token) is None:
        count_refusal(request)
        message = Message(kind="bad", text="That token is not known, expired or revoked.")
        return page(desk.dashboard.login_html(_with(visit_of(request, None), message), back), 401)
    answer = RedirectResponse(back, 303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=is_secure, path="/")
    return answer


@router.post("/logout")
def logout(form: Sent) -> Response:
    """Forget the token in this browser; it stays good elsewhere."""
    del form
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
    return answer


# --- inside


def _body(request: Request, body: Body) -> Response:
    headers = {"ETag": f'"{body.etag}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return page(body.html, headers=headers)


def _png(data: bytes, headers: Mapping[str, str]) -> Response:
    return Response(data, headers=headers, media_type="image/png")


def _own_path(back: str) -> str:
    """A path of ours to go back to, nobody else's."""
    return back if _BACK.fullmatch(back) else "/"


def _back(form: Form) -> str:
    return _own_path(form.fields.get("back", "/"))


def _acted(desk: PageDesk, entry: QueueEntry, action: str, form: Form) -> str:
    queue = desk.services.queue
    known: dict[str, Callable[..., QueueEntry]] = {
        "hold": queue.hold, "release": queue.release, "pause": queue.pause, "resume": queue.resume,
        "cancel": queue.cancel,
    }  # fmt: skip
    after = known[action](entry.id, by=form.by)
    if action == "cancel" and after.status == "running":
        return f"{entry.name} is cancelled after the frame it is taking."
    return _DONE[action].format(entry.name)


def _priority(desk: PageDesk, entry: QueueEntry, form: Form) -> str:
    text = form.fields.get("priority", "")
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise Problem("malformed", f"priority {text[:50]!r} is not a whole number")
    after = desk.services.queue.change(entry.id, by=form.by, priority=int(text))
    return f"{entry.name} has priority {after.priority} now."


def _stop(request: Request, form: Form, name: str | None) -> Response:
    desk = desk_of(request)
    require(form.identity, "instruments:control")
    answers: Mapping[str, Any] = plain(desk.services.instruments.emergency_stop(name, form.by, "stopped on the page"))
    desk.dashboard.board.forget()
    doubtful = [own for own, answer in answers.items() if answer.get("beam_blanked") is not True]
    stopped = ", ".join(own for own in answers if own not in doubtful)
    text = f"Stopped: {stopped}. The beam is blanked and nothing starts until a person unlocks it." if stopped else ""
    if doubtful:
        said = "; ".join(f"{own}: {_said(answers[own])}" for own in doubtful)
        doubt = f"Not confirmed: {said}. If a beam may be on there, go and look; close the column valves."
        return told(request, _back(form), Message(kind="bad", text=text or doubt, more=doubt if text else ""))
    return told(request, _back(form), Message(kind="good", text=text))


def _said(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error") or answer.get("message") or "no answer")


def _with(visit: Visit, message: Message) -> Visit:
    return replace(visit, message=message)
