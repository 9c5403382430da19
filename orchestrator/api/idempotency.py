"""One answer for one key: a write that is sent again with its Idempotency-Key is answered again, not done again.

Neighbour: `route`, which brings every keyed write here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, delete, insert, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.problems import Problem
from orchestrator.catalogue import Catalogue, schema

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
KEY_PATTERN: Final = r"^[A-Za-z0-9._~:/+=-]{1,200}$"
KEPT_FOR: Final = timedelta(days=7)
_KEPT_HEADERS: Final = ("location", "etag", "content-type")


@dataclass(slots=True)
class Receipt:
    """One keyed request on its way; a handler that writes it with its own transaction makes effect and answer one."""

    token_id: str
    key: str
    method: str
    path: str
    body_sha256: str
    is_written: bool = False

    def write(self, connection: Connection, response: Response, catalogue: Catalogue) -> None:
        """Keep the answer; it lasts if and only if the transaction does."""
        values = {
            "token_id": self.token_id, "key": self.key, "method": self.method, "path": self.path,
            "body_sha256": self.body_sha256, "status": response.status_code,
            "headers": {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS},
            "body": bytes(response.body), "created_at": catalogue.now(),
        }  # fmt: skip
        connection.execute(insert(schema.idempotency).values(**values))
        self.is_written = True


class Replies:
    """The answers that were given to keyed writes, and those being worked out at the moment."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._in_flight: set[tuple[str, str]] = set()

    async def once(self, request: Request, body: bytes, answer: Callable[[], Awaitable[Response]]) -> Response:
        """The answer, worked out once a key. Raises Problem `in-flight` or `key-reused`.

        Only success is kept: what was refused may be tried again with the same key.
        """
        request.state.receipt = None
        key = request.headers.get(HEADER)
        if key is None:
            return await answer()
        if re.fullmatch(KEY_PATTERN, key) is None:
            fault = {"parameter": HEADER, "in": "header", "detail": "1 to 200 letters, digits or ._~:/+=-"}
            raise Problem("invalid", f"{HEADER} is not acceptable", errors=[fault])
        receipt = Receipt(
            request.state.identity.token_id,
            key,
            request.method,
            request.url.path,
            hashlib.sha256(body).hexdigest(),
        )
        running = (receipt.token_id, key)
        if running in self._in_flight:
            raise Problem("in-flight", f"a request with {HEADER} {key!r} is being answered; ask again in a second")
        self._in_flight.add(running)
        try:
            if (kept := await run_in_threadpool(self._kept, receipt)) is not None:
                return kept
            request.state.receipt = receipt
            response = await answer()
            if not receipt.is_written and response.status_code < 300:
                await run_in_threadpool(self._keep, receipt, response)
            return response
        finally:
            self._in_flight.discard(running)

    def forget_old(self) -> int:
        """Remove answers nobody will ask for again; how many."""
        table, limit = schema.idempotency, self._catalogue.now() - KEPT_FOR
        with self._catalogue.database.writing() as connection:
            return connection.execute(delete(table).where(table.c.created_at < limit)).rowcount

    def _kept(self, receipt: Receipt) -> Response | None:
        table = schema.idempotency
        same = (table.c.token_id == receipt.token_id) & (table.c.key == receipt.key)
        with self._catalogue.database.reading() as connection:
            row = connection.execute(select(table).where(same)).mappings().first()
        return None if row is None else _again(row, receipt)

    def _keep(self, receipt: Receipt, response: Response) -> None:
        with self._catalogue.database.writing() as connection:
            receipt.write(connection, response, self._catalogue)


def _again(row: RowMapping, receipt: Receipt) -> Response:
    asked = (receipt.method, receipt.path, receipt.body_sha256)
    if asked != (row["method"], row["path"], row["body_sha256"]):
        raise Problem(
            "key-reused", f"{HEADER} {receipt.key!r} was used for {row['method']} {row['path']} with its own body"
        )
    headers: dict[str, Any] = dict(row["headers"])
    return Response(bytes(row["body"]), row["status"], {**headers, REPLAYED: "true"})
