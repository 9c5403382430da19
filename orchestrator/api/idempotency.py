"""One answer for one key: a write that is sent again with its Idempotency-Key is answered again, not done again.

A crash may come at any moment. What is written in our database alone keeps its answer in the same transaction
(`with_answer`); what repeats harmlessly keeps it right after; what does neither (`at_most_once`) is written down before
it is begun, and never begun again by itself. Neighbour: `route`, which brings every keyed write here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, delete, insert, select, update
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from instruments import InstrumentError
from orchestrator.api.problems import Problem
from orchestrator.catalogue import Catalogue, schema
from orchestrator.errors import OrchestratorError, StorageError

_log = logging.getLogger(__name__)
T = TypeVar("T")
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
KEY_PATTERN: Final = r"^[A-Za-z0-9._~:/+=-]{1,200}$"
KEPT_FOR: Final = timedelta(days=7)
FORGOTTEN_EVERY: Final = 100  # kept answers; each time at most twice as many old ones go, so that they cannot pile up
_KEPT_HEADERS: Final = ("location", "etag", "content-type")
_TABLE: Final = schema.idempotency
_OURS: Final = _TABLE.c.path.startswith("/")  # what schedules keep here, of the moments they obeyed, is no answer
_INSERT: Final = insert(_TABLE)
_FIND: Final = select(_TABLE).where(_TABLE.c.token_id == bindparam("token_id"), _TABLE.c.key == bindparam("key"))


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
        connection.execute(_INSERT, {**self._row(catalogue), **_answer(response)})
        self.is_written = True

    def begin(self, connection: Connection, catalogue: Catalogue) -> None:
        """Write down that it is begun; `end` or `drop` follows, unless this process dies."""
        connection.execute(_INSERT, self._row(catalogue))

    def end(self, connection: Connection, response: Response) -> None:
        """Keep the answer of what was begun."""
        connection.execute(update(_TABLE).where(self.same()).values(**_answer(response)))
        self.is_written = True

    def drop(self, connection: Connection) -> None:
        """Forget that it was begun: it failed, and may be tried again."""
        connection.execute(delete(_TABLE).where(self.same()))

    def same(self) -> ColumnElement[bool]:
        """What finds its row."""
        return (_TABLE.c.token_id == self.token_id) & (_TABLE.c.key == self.key)

    def _row(self, catalogue: Catalogue) -> dict[str, Any]:
        return {
            "token_id": self.token_id, "key": self.key, "method": self.method, "path": self.path,
            "body_sha256": self.body_sha256, "created_at": catalogue.now(),
        }  # fmt: skip


def with_answer(request: Request, answer: Callable[[T], Response]) -> Callable[[Connection, T], None]:
    """Keeps the answer to this request in the transaction of its effect; does nothing where no key was sent."""
    receipt: Receipt | None = request.state.receipt
    catalogue: Catalogue = request.app.state.services.catalogue

    def keep(connection: Connection, outcome: T) -> None:
        if receipt is not None:
            receipt.write(connection, answer(outcome), catalogue)

    return keep


class Replies:
    """The answers that were given to keyed writes, and those being worked out at the moment."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._in_flight: set[tuple[str, str]] = set()
        self._kept_count = 0

    async def once(
        self,
        request: Request,
        body_sha256: str,
        answer: Callable[[], Awaitable[Response]],
        *,
        at_most_once: bool = False,
    ) -> Response:
        """The answer, worked out once a key. Raises Problem `in-flight`, `key-reused` or `cut-off`.

        Only success is kept: what was refused may be tried again with the same key. `at_most_once` is for what must
        not be done a second time where nobody knows whether it was done.
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
            body_sha256,
        )
        running = (receipt.token_id, key)
        if running in self._in_flight:
            raise Problem("in-flight", f"a request with {HEADER} {key!r} is being answered; ask again in a second")
        self._in_flight.add(running)
        try:
            if (kept := await run_in_threadpool(self._kept, receipt)) is not None:
                return kept
            request.state.receipt = receipt
            response = await (self._begun(receipt, answer) if at_most_once else answer())
            if not receipt.is_written and response.status_code < 300:
                await run_in_threadpool(self._keep, receipt, response)
            await self._note_kept()
            return response
        finally:
            self._in_flight.discard(running)

    def forget_old(self, most: int | None = None) -> int:
        """Remove answers nobody will ask for again, the oldest `most` where that is given; how many."""
        limit = self._catalogue.now() - KEPT_FOR
        old = select(_TABLE.c.created_at).where(_TABLE.c.created_at < limit, _OURS)
        with self._catalogue.database.writing() as connection:
            if most is not None:
                later = connection.execute(old.order_by(_TABLE.c.created_at).offset(most).limit(1)).scalar()
                limit = later or limit
            return connection.execute(delete(_TABLE).where(_TABLE.c.created_at < limit, _OURS)).rowcount

    async def _begun(self, receipt: Receipt, answer: Callable[[], Awaitable[Response]]) -> Response:
        """The answer to what is written down before it is done, so that a second try knows of the first."""
        await run_in_threadpool(self._write, lambda connection: receipt.begin(connection, self._catalogue))
        try:
            response = await answer()
        except (Problem, OrchestratorError, InstrumentError):
            await run_in_threadpool(self._write, receipt.drop)
            raise
        await run_in_threadpool(self._write, lambda connection: receipt.end(connection, response))
        return response

    async def _note_kept(self) -> None:
        """Count what was kept; now and then some old answers go."""
        self._kept_count += 1
        if self._kept_count % FORGOTTEN_EVERY:
            return
        try:
            await run_in_threadpool(self.forget_old, 2 * FORGOTTEN_EVERY)
        except StorageError as error:
            _log.warning("answers that nobody will ask for again stay for now: %s", error)

    def _kept(self, receipt: Receipt) -> Response | None:
        with self._catalogue.database.reading() as connection:
            row = connection.execute(_FIND, {"token_id": receipt.token_id, "key": receipt.key}).mappings().first()
        return None if row is None else _again(row, receipt)

    def _keep(self, receipt: Receipt, response: Response) -> None:
        self._write(lambda connection: receipt.write(connection, response, self._catalogue))

    def _write(self, change: Callable[[Connection], None]) -> None:
        with self._catalogue.database.writing() as connection:
            change(connection)


def _answer(response: Response) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "headers": {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS},
        "body": bytes(response.body),
    }


def _again(row: RowMapping, receipt: Receipt) -> Response:
    asked = (receipt.method, receipt.path, receipt.body_sha256)
    if asked != (row["method"], row["path"], row["body_sha256"]):
        raise Problem(
            "key-reused", f"{HEADER} {receipt.key!r} was used for {row['method']} {row['path']} with its own body"
        )
    if row["status"] is None:
        raise Problem(
            "cut-off",
            f"it was begun at {row['created_at']:%Y-%m-%d %H:%M:%S} UTC with this {HEADER} and its end is not known; "
            f"look how things are, then, if it is still wanted, send it with a new {HEADER}",
        )
    headers: dict[str, Any] = dict(row["headers"])
    return Response(bytes(row["body"]), row["status"], {**headers, REPLAYED: "true"})
