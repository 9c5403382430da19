"""Who asks, and what they may do: scopes, the identity of a request, what a service without tokens may listen on.

Neighbour: `tokens` knows the tokens; `route` asks here before anything of a request is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from orchestrator.api.limits import Limits
from orchestrator.api.problems import Problem
from orchestrator.errors import SpecError, StorageError

if TYPE_CHECKING:
    from orchestrator.api.services import Services
    from orchestrator.api.tokens import Tokens

Scope = Literal["read", "experiments:write", "queue:operate", "instruments:control", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "experiments:write", "queue:operate", "instruments:control", "admin")
WHAT_SCOPES_ALLOW: Final[dict[str, str]] = {
    "read": "look at everything but tokens",
    "experiments:write": "upload files, submit experiments, change and cancel those of the same name",
    "queue:operate": "change, hold, release, pause, resume and cancel anybody's experiments",
    "instruments:control": "stop instruments and clear their emergency stop",
    "admin": "everything, tokens included",
}
COOKIE: Final = "stempilot_token"  # a page's way to carry a token; good for looking only
SAFE_METHODS: Final = ("GET", "HEAD")
AT_ONCE: Final = CapacityLimiter(8)  # threads of their own for what must not wait behind slow requests


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `name` is what the record says of them; several tokens may carry one name."""

    name: str
    token_id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether they may do what needs `scope`; an administrator may do everything."""
        return scope in self.scopes or "admin" in self.scopes


LOCAL: Final = Identity("local", "local", frozenset(SCOPES))  # everybody, where there are no tokens


async def identify(request: Request, services: Services, *, at_once: bool = False) -> Identity | None:
    """Who asks, None for nobody known: a bearer token, or for looking the page's cookie.

    `at_once` waits for no other request; where the database does not answer, whom it knew before is known.
    """
    if services.tokens is None:
        return LOCAL
    text = _bearer(request)
    if text is None and request.method in SAFE_METHODS:
        text = request.cookies.get(COOKIE)
    if not text:
        return None
    if (known := services.tokens.remembered(text)) is not None:
        return known
    if not at_once:
        return await run_in_threadpool(services.tokens.identify, text)
    try:
        return await to_thread.run_sync(services.tokens.identify, text, limiter=AT_ONCE)
    except StorageError:
        if (known := services.tokens.remembered(text, since_s=inf)) is not None:
            return known
        raise


async def admit(request: Request, services: Services, scope: str, *, at_once: bool = False) -> Identity:
    """Who asks, allowed to do what needs `scope`. Raises Problem `unauthorized`, `forbidden` or `too-many`."""
    identity = await identify(request, services, at_once=at_once)
    if identity is None:
        given = "authorization" in request.headers
        if given and not at_once:
            count_refusal(request)
        why = "the token is not known, expired or revoked" if given else "no token was given"
        challenge = 'Bearer realm="stempilot"' + (', error="invalid_token"' if given else "")
        raise Problem(
            "unauthorized",
            f"{why}; send `Authorization: Bearer TOKEN`, an administrator makes one with POST /api/v1/tokens",
            headers={"WWW-Authenticate": challenge},
        )
    require(identity, scope)
    return identity


def check_write(request: Request, identity: Identity) -> None:
    """Count one more write of whoever asks. Raises Problem `too-many`."""
    limits: Limits = request.app.state.limits
    limits.count_write(address_of(request) if identity is LOCAL else identity.token_id)


def count_refusal(request: Request) -> None:
    """Count one more token that opened nothing. Raises Problem `too-many`."""
    limits: Limits = request.app.state.limits
    limits.count_refusal(address_of(request))


def address_of(request: Request) -> str:
    """Where a request comes from; "" where that cannot be said."""
    return request.client.host if request.client is not None else ""


def require(identity: Identity, scope: str) -> None:
    """Raise Problem `forbidden` unless they may do what needs `scope`."""
    if not identity.may(scope):
        has = ", ".join(sorted(identity.scopes)) or "none"
        raise Problem("forbidden", f"this needs the scope {scope} ({WHAT_SCOPES_ALLOW[scope]}); the token has {has}")


def require_owner(identity: Identity, owner: str | None) -> None:
    """Raise Problem `forbidden` unless the experiment is theirs or they operate the queue."""
    if identity.name != owner:
        require(identity, "queue:operate")


def check_binding(host: str, tokens: Tokens | None) -> None:
    """Raise SpecError where a service without tokens would listen beyond this machine."""
    if tokens is None and not is_loopback(host):
        raise SpecError(
            f"--host {host} can be reached from other machines, and without tokens anybody could command the "
            "instruments; switch tokens on, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address stays on this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bearer(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None
