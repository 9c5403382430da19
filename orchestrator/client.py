"""A stempilot service from afar: the same words and the same errors as beside the database. Neighbour: `api`.

Every write carries an Idempotency-Key, made once for each call, so that it can be sent again after a lost answer: the
service does it once. Documents come back as the service sends them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import httpx
import numpy as np

from orchestrator.catalogue.experiment_rows import LATEST
from orchestrator.catalogue.uploads import PLACES
from orchestrator.client_errors import error_of, fault_words, is_worth_waiting, wait_s
from orchestrator.client_stream import STREAM_HEADERS, events_of
from orchestrator.errors import DataFolderBusy, NotFound, SpecError, TooManyRequests, Unreachable
from orchestrator.plain_json import plain
from orchestrator.spec import ExperimentSpec

SERVER_VARIABLE: Final = "STEMPILOT_SERVER"
TOKEN_VARIABLE: Final = "STEMPILOT_TOKEN"
Document = dict[str, Any]
Action = Literal["hold", "release", "cancel", "pause", "resume"]

_PREFIX: Final = "/api/v1"
_TRIES: Final = 6
_PAGE: Final = 200
_STREAM_SILENCE_S: Final = 45.0  # three heartbeats


class Client:
    """One service, reached at `url` (http://host:port), with a token where it asks for one.

    Methods raise the errors of `orchestrator.errors`, InstrumentFault for an instrument that does not obey; Unreachable
    where nobody answers.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Accept": "application/json", "User-Agent": "stempilot-client"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        # Neither proxies nor certificates are taken from the environment: a microscope's network has none to offer.
        # Those that httpx brings are loaded, which takes 20 ms, only where there are some to verify.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout_s, transport=transport, trust_env=False,
            verify=self.url.startswith("https:"), follow_redirects=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the service

    def version(self) -> Document:
        """Versions of the service and of what its results depend on."""
        return self._json("GET", "/version")

    def whoami(self) -> Document:
        """The name and the scopes the service sees."""
        return self._json("GET", "/whoami")

    # --- experiments: submit, look, command

    def upload(self, name: str, data: bytes) -> str:
        """Send a file, unless the service has it; its sha256."""
        digest = sha256(data).hexdigest()
        path = f"/files/{digest}/{quote(name)}"
        if self._send("HEAD", path, accepted=(404,)).status_code == 404:
            self._send("PUT", path, content=data, headers={"Content-Type": "application/octet-stream"})
        return digest

    def with_uploads(self, spec: ExperimentSpec | Mapping[str, Any]) -> Document:
        """The spec as a document whose files were sent and are named by content. Raises SpecError."""
        document: Document = plain(spec)
        for place in PLACES:
            section: Any = document
            for key in place[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            value = section.get(place[-1]) if isinstance(section, dict) else None
            if isinstance(section, dict) and isinstance(value, str) and not value.startswith("sha256:"):
                section[place[-1]] = self._reference(Path(value), ".".join(place))
        return document

    def validate(self, spec: ExperimentSpec | Mapping[str, Any], **schedule: Any) -> list[str]:
        """Everything that would keep the service from taking the spec, one line a fault; empty where it is good."""
        body = {"spec": self.with_uploads(spec), **plain(schedule)}
        answer = self._json("POST", "/experiments:validate", json=body)
        return [fault_words(fault) for fault in answer["errors"]]

    def submit(
        self,
        spec: ExperimentSpec | Mapping[str, Any],
        *,
        seed: int = 0,
        priority: int = 0,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        hold: bool = False,
        baselines: bool = True,
        report: bool = True,
        key: str | None = None,
    ) -> Document:
        """Put an experiment into the queue, its files first; its entry. The same `key` again gives the same entry."""
        schedule = {
            "seed": seed, "priority": priority, "not_before": not_before, "not_after": not_after, "hold": hold,
            "baselines": baselines, "report": report,
        }  # fmt: skip
        body = {"spec": self.with_uploads(spec), **plain(schedule)}
        return self._json("POST", "/experiments", json=body, key=key)

    def experiments(
        self,
        *,
        status: str | None = None,
        instrument: str | None = None,
        name: str | None = None,
        children: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        """Experiments, newest first; all of them, or the newest `limit`."""
        wanted = {"status": status, "instrument": instrument, "name": name, "children": "true" if children else None}
        return self._pages("/experiments", "experiments", "next_cursor", "cursor", wanted, limit)

    def experiment(self, experiment_id: str) -> Document:
        """The whole of one experiment; `queue` says where it stands. An id may be abbreviated, or `latest`."""
        return self._json("GET", self._path(experiment_id))

    def status(self, experiment_id: str) -> Document:
        """Where one experiment stands, and why it waits."""
        return self._json("GET", self._path(experiment_id, "/status"))

    def act(
        self, action: Action, experiment_id: str, *, reason: str | None = None, if_version: int | None = None
    ) -> Document:
        """Hold, release, cancel, pause or resume; the entry afterwards. Raises Conflict, PreconditionFailed."""
        headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
        body = {} if reason is None else {"reason": reason}
        return self._json("POST", self._path(experiment_id, f"/{action}"), json=body, headers=headers)

    def hold(self, experiment_id: str, *, reason: str | None = None, if_version: int | None = None) -> Document:
        """Keep a queued one from starting."""
        return self.act("hold", experiment_id, reason=reason, if_version=if_version)

    def release(self, experiment_id: str, *, reason: str | None = None, if_version: int | None = None) -> Document:
        """Let a held one start in its turn."""
        return self.act("release", experiment_id, reason=reason, if_version=if_version)

    def cancel(self, experiment_id: str, *, reason: str | None = None, if_version: int | None = None) -> Document:
        """End it for good; a running one finishes its frame first."""
        return self.act("cancel", experiment_id, reason=reason, if_version=if_version)

    def pause(self, experiment_id: str, *, reason: str | None = None, if_version: int | None = None) -> Document:
        """Let a running one stop after its frame."""
        return self.act("pause", experiment_id, reason=reason, if_version=if_version)

    def resume(self, experiment_id: str, *, reason: str | None = None, if_version: int | None = None) -> Document:
        """Put a paused, interrupted or failed one back into the queue."""
        return self.act("resume", experiment_id, reason=reason, if_version=if_version)

    def change(self, experiment_id: str, *, if_version: int | None = None, **changes: Any) -> Document:
        """Other `priority`, `not_before`, `not_after` or `labels` while it waits."""
        match = "*" if if_version is None else f'"{if_version}"'
        return self._json("PATCH", self._path(experiment_id), json=plain(changes), headers={"If-Match": match})

    def remove(self, experiment_id: str, *, if_version: int | None = None) -> None:
        """Take one that exposed nothing out of every list."""
        match = "*" if if_version is None else f'"{if_version}"'
        self._send("DELETE", self._path(experiment_id), headers={"If-Match": match})

    # --- records

    def events(self, experiment_id: str, *, after: int = 0) -> list[Document]:
        """The journal so far, behind event number `after`."""
        path, found = self._path(experiment_id, "/events"), list[Document]()
        while True:
            page = self._json("GET", path, params={"after": after, "limit": _PAGE})
            found += page["events"]
            if len(page["events"]) < _PAGE:
                return found
            after = page["next_after"]

    def follow(self, experiment_id: str, *, after: int = 0) -> Iterator[Document]:
        """The journal as it grows, until the experiment is final; goes on after a lost connection."""
        path = self._path(experiment_id, "/events")
        failures = 0
        while failures < _TRIES:
            try:
                with self._stream(path, after) as answer:
                    failures = 0  # it was answered well: what ends now is one stream, not the service
                    for event in events_of(answer):
                        if event is None:
                            return
                        after = event["seq"]
                        yield event
            except (httpx.TransportError, DataFolderBusy, TooManyRequests):
                failures += 1
            time.sleep(wait_s(max(1, failures)))
        raise Unreachable(f"{self.url} does not answer any more; the last event seen was {after}")

    def decisions(self, experiment_id: str) -> list[Document]:
        """Decisions in order, each with its reason and what became of it."""
        return self._pages(self._path(experiment_id, "/decisions"), "decisions", "next_after", "after", {}, None)

    def frames(self, experiment_id: str) -> list[Document]:
        """Stored frames in order, without their images."""
        return self._pages(self._path(experiment_id, "/frames"), "frames", "next_after", "after", {}, None)

    def frame_image(self, experiment_id: str, frame_id: str, detector: str | None = None) -> bytes:
        """One detector's picture, a PNG."""
        return self._send("GET", self._frame(experiment_id, frame_id, "image.png"), params=_named(detector)).content

    def frame_array(self, experiment_id: str, frame_id: str, detector: str | None = None) -> np.ndarray:
        """One detector's raw counts, (sub-frames, rows, columns)."""
        answer = self._send("GET", self._frame(experiment_id, frame_id, "data"), params=_named(detector))
        shape = tuple(int(size) for size in answer.headers["X-Shape"].split(","))
        return np.frombuffer(answer.content, np.dtype(answer.headers["X-Dtype"])).reshape(shape)

    def frame_file(self, experiment_id: str, frame_id: str) -> bytes:
        """The frame's NeXus file."""
        return self._send("GET", self._frame(experiment_id, frame_id, "file")).content

    def report(self, experiment_id: str) -> str:
        """The report, one HTML page. Raises Conflict while there is none."""
        return self._send("GET", self._path(experiment_id, "/report")).text

    # --- queue, instruments, tokens

    def queue(
        self, *, status: str | None = None, instrument: str | None = None, limit: int | None = None
    ) -> list[Document]:
        """What runs and what waits, in the order of execution, each with the reason of its wait.

        `status` asks for others instead: one, or several with commas, all seen at one moment.
        """
        wanted = {"status": status, "instrument": instrument}
        return self._pages("/queue", "entries", "next_cursor", "cursor", wanted, limit)

    def instruments(self) -> list[Document]:
        """Every configured instrument and how it is now."""
        return self._json("GET", "/instruments")["instruments"]

    def instrument(self, name: str) -> Document:
        """What an instrument can do, and the facility's envelope for it."""
        return self._json("GET", f"/instruments/{quote(name, safe='')}")

    def instrument_status(self, name: str) -> Document:
        """How an instrument is now: beam, exposure, lock."""
        return self._json("GET", f"/instruments/{quote(name, safe='')}/status")

    def emergency_stop(self, name: str | None = None, *, reason: str | None = None) -> Document:
        """Blank and lock one instrument, or all; name -> what it answered. Raises InstrumentFault if one did not."""
        path = "/stop" if name is None else f"/instruments/{quote(name, safe='')}/stop"
        return self._json("POST", path, json={} if reason is None else {"reason": reason})["instruments"]

    def clear(self, name: str) -> Document:
        """Take an emergency stop back, after somebody has looked."""
        return self._json("POST", f"/instruments/{quote(name, safe='')}/clear")

    def create_token(self, name: str, scopes: list[str], expires_at: datetime) -> Document:
        """A new token; its `secret` is shown this once."""
        return self._json("POST", "/tokens", json=plain({"name": name, "scopes": scopes, "expires_at": expires_at}))

    def tokens(self) -> list[Document]:
        """Every token ever made, without what opens anything."""
        return self._json("GET", "/tokens")["tokens"]

    def revoke_token(self, token_id: str) -> None:
        """Make a token useless at once."""
        self._send("DELETE", f"/tokens/{token_id}")

    # --- inside

    def _reference(self, path: Path, place: str) -> str:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SpecError(f"{place}: {path} cannot be read: {error.strerror}") from error
        return f"sha256:{self.upload(path.name, data)}/{path.name}"

    def _path(self, experiment_id: str, rest: str = "") -> str:
        if experiment_id == LATEST:
            newest = self.experiments(limit=1)
            if not newest:
                raise NotFound(f"there is no experiment at {self.url} yet")
            experiment_id = newest[0]["id"]
        return f"/experiments/{quote(experiment_id.lower().replace('-', ''), safe='')}{rest}"

    def _frame(self, experiment_id: str, frame_id: str, rest: str) -> str:
        return self._path(experiment_id, f"/frames/{quote(frame_id, safe='')}/{rest}")

    def _pages(
        self, path: str, items: str, answered: str, asked: str, wanted: Mapping[str, Any], limit: int | None
    ) -> list[Document]:
        params = {name: value for name, value in wanted.items() if value is not None}
        found: list[Document] = []
        while limit is None or len(found) < limit:
            count = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._json("GET", path, params={**params, "limit": count})
            found += page[items]
            if page[answered] is None:
                break
            params[asked] = page[answered]
        return found

    @contextmanager
    def _stream(self, path: str, after: int) -> Iterator[httpx.Response]:
        """A good answer to one stream of events; it has none where all were seen. Raises as every other call."""
        headers = {**STREAM_HEADERS, "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._http.timeout.connect, read=_STREAM_SILENCE_S)
        with self._http.stream("GET", _PREFIX + path, headers=headers, timeout=timeout) as answer:
            if answer.status_code not in (200, 204):
                answer.read()
                raise error_of(answer)
            yield answer

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._send(method, path, **options).json()

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        accepted: tuple[int, ...] = (),
        **options: Any,
    ) -> httpx.Response:
        """The answer to a request, sent again while nobody answers or the service says `not now`."""
        sent = dict(headers or {})
        if method not in ("GET", "HEAD"):
            sent["Idempotency-Key"] = key or uuid.uuid4().hex
        for trial in range(1, _TRIES + 1):
            try:
                answer = self._http.request(method, _PREFIX + path, headers=sent, **options)
            except httpx.TransportError as error:
                if trial == _TRIES:
                    raise Unreachable(
                        f"{self.url} does not answer ({error}); is `stempilot serve` running there?"
                    ) from error
                time.sleep(wait_s(trial))
                continue
            if answer.is_success or answer.status_code in accepted:
                return answer
            if trial == _TRIES or not is_worth_waiting(answer):
                raise error_of(answer)
            time.sleep(wait_s(trial, answer))
        raise AssertionError("the last trial returns or raises")


def _named(detector: str | None) -> dict[str, str]:
    return {} if detector is None else {"detector": detector}
