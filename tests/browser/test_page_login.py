"""Logging in, with tokens on: by the link that `serve` prints, and out again when the token is revoked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from orchestrator.api import Token, Tokens
from tests.unit.orchestrator.api.serving import accept, serve

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser
WAIT_MS = 120_000


@dataclass
class Guarded:
    """A service that asks for tokens, and one of them."""

    url: str
    tokens: Tokens
    token: Token


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    service = serve(tmp_path / "data", with_tokens=True, check=accept)
    assert service.tokens is not None
    token = service.tokens.create("anna", ("read",), service.catalogue.now() + timedelta(days=1))
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        server = uvicorn.Server(uvicorn.Config(service.app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            yield Guarded(f"http://127.0.0.1:{sock.getsockname()[1]}", service.tokens, token)
        finally:
            server.should_exit = True
            thread.join()
            service.catalogue.close()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--renderer-process-limit=1"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """In a context of its own, so without the cookies of another test."""
    shown = browser.new_page()
    shown.set_default_timeout(WAIT_MS)
    yield shown
    shown.close()


def test_by_the_link_that_serve_prints(page, guarded: Guarded) -> None:
    page.goto(f"{guarded.url}/login#token={guarded.token.secret}")
    page.wait_for_url(f"{guarded.url}/")
    assert page.get_by_role("button", name="Log out anna").is_visible()
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.go_back()
    assert guarded.token.secret not in page.url


def test_a_revoked_token_ends_at_the_login(page, guarded: Guarded) -> None:
    page.goto(guarded.url)
    assert page.url.startswith(f"{guarded.url}/login")
    page.get_by_label("API token").fill(str(guarded.token.secret))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{guarded.url}/")
    guarded.tokens.revoke(guarded.token.id)
    page.wait_for_url(f"{guarded.url}/login?back=%2F")
