"""API tokens: 256 random bits, shown once, stored as an HMAC under this installation's pepper; scoped, expiring.

Neighbour: `access` says what a scope allows.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, RowMapping, insert, select, update

from orchestrator.api.access import SCOPES, Identity
from orchestrator.api.secret_file import kept_secret
from orchestrator.catalogue import Catalogue, schema
from orchestrator.catalogue.identifiers import new_id
from orchestrator.errors import NotFound, SpecError, StorageError

PEPPER_NAME: Final = "token-pepper"
PREFIX: Final = "stempilot"
FIRST_NAME: Final = "first-admin"
LONGEST: Final = timedelta(days=400)
FIRST_LASTS: Final = timedelta(days=90)
_FORM: Final = re.compile(rf"{PREFIX}_([0-9a-f]{{32}})_([0-9a-f]{{64}})")
_REMEMBERED_S: Final = 2.0  # how long another process's revocation may go unnoticed
_USED_EVERY: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What may be known of a token afterwards; `secret` is there only when it has just been made."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    secret: str | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it opens anything at that moment."""
        return self.revoked_at is None and now < self.expires_at


class Tokens:
    """The tokens of one installation."""

    def __init__(self, catalogue: Catalogue, pepper: bytes) -> None:
        self._catalogue = catalogue
        self._pepper = pepper
        self._lock = threading.Lock()
        self._remembered: dict[str, tuple[float, Token, str]] = {}

    @classmethod
    def open(cls, catalogue: Catalogue) -> Tokens:
        """The tokens of a data folder; its pepper is made when there is none. Raises StorageError."""
        return cls(catalogue, kept_secret(catalogue.data_folder / PEPPER_NAME))

    def first(self) -> Token | None:
        """A token that may do everything, with its secret, if no such token is good any more; else None."""
        now = self._catalogue.now()
        if any("admin" in token.scopes and token.is_good(now) for token in self.all()):
            return None
        return self.create(FIRST_NAME, ("admin",), now + FIRST_LASTS)

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime,
        also: Callable[[Connection, Token], None] | None = None,
    ) -> Token:
        """A new token, with its secret; nobody can show that again. `also` joins its transaction. Raises SpecError."""
        now = self._catalogue.now()
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise SpecError(f"scopes: {', '.join(unknown)} not known; there are {', '.join(SCOPES)}")
        if not now < expires_at <= now + LONGEST:
            raise SpecError(
                f"expires_at: {expires_at.isoformat()} is not within the next {LONGEST.days} days, until "
                f"{(now + LONGEST).isoformat(timespec='seconds')}"
            )
        own_id, random_part = new_id(), secrets.token_hex(32)
        token = Token(
            id=own_id, name=name, scopes=tuple(sorted(set(scopes))), created_at=now, expires_at=expires_at,
            secret=f"{PREFIX}_{own_id}_{random_part}",
        )  # fmt: skip
        values = {
            "id": own_id, "name": name, "digest": self._digest(own_id, random_part), "scopes": list(token.scopes),
            "created_at": now, "expires_at": expires_at,
        }  # fmt: skip
        with self._catalogue.database.writing() as connection:
            connection.execute(insert(schema.api_token).values(**values))
            if also is not None:
                also(connection, token)
        return token

    def all(self) -> list[Token]:
        """Every token ever made, oldest first, without secrets."""
        table = schema.api_token
        with self._catalogue.database.reading() as connection:
            return [_token(row) for row in connection.execute(select(table).order_by(table.c.id)).mappings()]

    def revoke(self, token_id: str, also: Callable[[Connection, Token], None] | None = None) -> Token:
        """Make a token useless at once; more than once is harmless. `also` joins its transaction. Raises NotFound."""
        table, now = schema.api_token, self._catalogue.now()
        good = (table.c.id == token_id) & table.c.revoked_at.is_(None)
        with self._catalogue.database.writing() as connection:
            connection.execute(update(table).where(good).values(revoked_at=now))
            row = connection.execute(select(table).where(table.c.id == token_id)).mappings().first()
            if row is None:
                raise NotFound(f"no token {token_id!r}; GET /api/v1/tokens lists them by id")
            if also is not None:
                also(connection, _token(row))
        with self._lock:
            self._remembered.clear()
        return _token(row)

    def remembered(self, text: str, since_s: float | None = None) -> Identity | None:
        """Who sent this, if that was looked up at most `since_s` (a moment) ago; never waits."""
        if (parts := _FORM.fullmatch(text)) is None:
            return None
        kept = self._remembered.get(parts[1])
        if kept is None or time.monotonic() - kept[0] > (_REMEMBERED_S if since_s is None else since_s):
            return None
        return self._verified(kept[1], kept[2], parts[2])

    def identify(self, text: str) -> Identity | None:
        """Who sent this; None where no good token is like it."""
        if (parts := _FORM.fullmatch(text)) is None:
            return None
        table = schema.api_token
        with self._catalogue.database.reading() as connection:
            row = connection.execute(select(table).where(table.c.id == parts[1])).mappings().first()
        if row is None:
            return None
        token = _token(row)
        identity = self._verified(token, row["digest"], parts[2])
        if identity is not None:
            with self._lock:
                self._remembered[token.id] = (time.monotonic(), token, row["digest"])
            self._note_use(token)
        return identity

    def _verified(self, token: Token, digest: str, random_part: str) -> Identity | None:
        same = hmac.compare_digest(digest, self._digest(token.id, random_part))
        if not same or not token.is_good(self._catalogue.now()):
            return None
        return Identity(token.name, token.id, frozenset(token.scopes))

    def _note_use(self, token: Token) -> None:
        now, table = self._catalogue.now(), schema.api_token
        if token.last_used_at is not None and now - token.last_used_at < _USED_EVERY:
            return
        try:
            with self._catalogue.database.writing() as connection:
                connection.execute(update(table).where(table.c.id == token.id).values(last_used_at=now))
        except StorageError:
            return  # a full disk must not keep anybody from looking, or from stopping an instrument
        with self._lock:
            kept = self._remembered.get(token.id)
            if kept is not None:
                self._remembered[token.id] = (kept[0], replace(token, last_used_at=now), kept[2])

    def _digest(self, token_id: str, random_part: str) -> str:
        return hmac.new(self._pepper, f"{token_id}:{random_part}".encode(), hashlib.sha256).hexdigest()


def _token(row: RowMapping) -> Token:
    names = ("id", "name", "created_at", "expires_at", "revoked_at", "last_used_at")
    return Token(**{name: row[name] for name in names}, scopes=tuple(row["scopes"]))
