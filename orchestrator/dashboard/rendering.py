"""Templates to HTML, and static files at addresses that change when they do. Neighbour: `dashboard` fills them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.dashboard.phrases import clock_time
from orchestrator.dashboard.queue_view import actions, first_line
from orchestrator.dashboard.specimen_map import dose_scale

STATIC: Final = Path(__file__).parent / "static"
ASSETS: Final = {
    "page.css": "text/css",
    "live.js": "text/javascript",
    "login.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a person is told at the top of a page; `kind` is `good` or `bad`."""

    kind: str
    text: str
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who looks and what their forms must carry; `person` is None where there are no tokens."""

    csrf: str
    person: str | None = None
    message: Message | None = None

    def csrf_field(self) -> Markup:
        """The hidden field of every form."""
        return Markup('<input type="hidden" name="csrf" value="{}">').format(self.csrf)


def render(template: str, visit: Visit, now: datetime, version: str, **values: Any) -> str:
    """One page or piece of a page."""
    shared = {
        "csrf_field": visit.csrf_field,
        "person": visit.person,
        "message": visit.message,
        "version": version,
        "zone": time.strftime("%Z"),
        "as_of": clock_time(now, now),
        "iso": now.isoformat(timespec="seconds"),
        "moment": _moment_at(now),
        "here": None,
    }
    return _environment().get_template(template).render(**{**shared, **values})


def asset_bytes(name: str) -> bytes:
    """A static file. Raises KeyError for one that is not there."""
    if name not in ASSETS:
        raise KeyError(name)
    return (STATIC / name).read_bytes()


def asset_url(name: str) -> str:
    """Its address, with a part that changes with its content."""
    return f"/assets/{_digest(name)}/{name}"


@lru_cache(len(ASSETS))
def _digest(name: str) -> str:
    return sha256(asset_bytes(name)).hexdigest()[:12]


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.dashboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known: dict[str, Any] = {
        "asset": asset_url, "dose_scale": dose_scale, "actions": actions, "first_line": first_line,
    }  # fmt: skip
    environment.globals.update(known)
    return environment


def _moment_at(now: datetime) -> Callable[[datetime], str]:
    def moment(when: datetime) -> str:
        return clock_time(when, now)

    return moment
