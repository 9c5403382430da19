"""The page in Chromium against a running experiment: what a microscopist sees and does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.browser.served import Served, served
from tests.integration import harness
from tests.waiting import until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WAIT_MS = 180_000
VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (one) => window.violations.push(one.violatedDirective));
"""


@dataclass
class Watched:
    """What a page asked for and complained of."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = harness.build_forward_model(request.config.cache.mkdir("forward-model"))
    with served(harness.data_folder(tmp_path_factory.mktemp("page"), model)) as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--renderer-process-limit=1"])
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def emptied(site: Served) -> Iterator[None]:
    yield
    site.empty()


@pytest.fixture(scope="module")
def window(browser) -> Iterator[object]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(VIOLATIONS)
    context.set_default_timeout(WAIT_MS)
    shown = context.new_page()
    shown.watched = Watched()
    shown.on("request", lambda request: shown.watched.requests.append(request.url))
    shown.on("console", lambda message: shown.watched.complaints.append(message.text))
    shown.on("pageerror", lambda error: shown.watched.complaints.append(str(error)))
    yield shown
    context.close()


@pytest.fixture
def page(window) -> Iterator[object]:
    """The window that tests share, empty, with nothing noted yet."""
    window.watched = Watched()
    yield window
    window.context.set_offline(False)
    window.goto("about:blank")


def expect(locator):
    playwright.expect.set_options(timeout=WAIT_MS)
    return playwright.expect(locator)


def assert_clean(page, site: Served) -> None:
    assert [url for url in page.watched.requests if not url.startswith(site.url + "/")] == []
    assert page.watched.complaints == []
    assert page.evaluate("window.violations") == []


def decision_count(page) -> int:
    return int(page.locator("#decisions-heading .count").inner_text())


def running(page, site: Served, name: str, **more: object):
    """A new experiment, once it has frames to show."""
    entry = site.submit(name, **more)
    page.goto(f"{site.url}/experiments/{entry.id}")
    expect(page.locator("svg.frame")).not_to_have_count(0)
    return entry


def test_from_queue_to_report_without_loading_again(page, site: Served) -> None:
    held = site.submit("Must wait", hold=True)
    page.goto(site.url)
    page.evaluate("window.stayed = true")
    entry = site.submit_census("From queue to report", frames=8)
    card = page.locator("article.running")
    expect(card).to_contain_text("From queue to report")
    expect(card).to_contain_text("survey tile")
    expect(page.locator(".instrument.on")).to_contain_text("beam on")
    assert page.evaluate("window.stayed")

    card.get_by_role("link", name="From queue to report").click()
    page.evaluate("window.stayed = true")
    expect(page.locator("svg.map .survey rect")).not_to_have_count(0)
    first = decision_count(page)
    until(lambda: decision_count(page) > first or page.wait_for_timeout(100), "another decision")
    expect(page.locator(".status")).to_contain_text("completed")
    expect(page.locator("svg.map .fields rect")).not_to_have_count(0)
    bar = page.get_by_role("progressbar", name=re.compile("^frames: 8, of 8, 100 %"))
    expect(bar).to_have_attribute("value", "1.0000")
    assert page.evaluate("window.stayed")
    assert_clean(page, site)

    until(lambda: (site.data / "experiments" / entry.id / "report.html").exists(), "the report")
    page.get_by_role("link", name="Report").click()
    expect(page.locator("h1")).to_have_text("From queue to report")
    assert page.locator("figure img").count() > 0
    assert page.evaluate("window.violations") == []
    assert site.status_of(held) == "held"


def test_pause_resume_and_cancel_by_click(page, site: Served) -> None:
    entry = running(page, site, "Paused by hand")
    page.get_by_role("button", name="Pause Paused by hand").click()
    expect(page.locator(".message")).to_contain_text("pauses after the frame")
    expect(page.locator(".status")).to_contain_text("it can go on where it stopped")
    assert site.status_of(entry) == "paused"
    before = decision_count(page)
    page.goto(site.url)
    stopped = page.locator(".stopped li", has_text="Paused by hand")
    stopped.get_by_role("button", name="Resume").click()
    expect(page.locator("article.running")).to_contain_text("Paused by hand")
    page.goto(f"{site.url}/experiments/{entry.id}")
    until(lambda: decision_count(page) > before or page.wait_for_timeout(100), "a decision after the pause")
    page.get_by_role("button", name="Cancel Paused by hand").click()
    expect(page.locator(".message")).to_contain_text("cancelled")
    expect(page.locator(".status")).to_contain_text("cancelled")
    until(lambda: site.status_of(entry) == "cancelled", "the end")
    assert_clean(page, site)


def test_the_stop_button_reaches_the_instrument_at_once(page, site: Served) -> None:
    entry = running(page, site, "Stopped in an emergency")
    assert site.instrument().lock is None
    page.get_by_role("button", name="Stop simulated").click()
    expect(page.locator(".message.good")).to_contain_text("Stopped: simulated. The beam is blanked")
    told = site.instrument()
    assert told.beam_blanked is True
    assert told.lock is not None
    assert told.lock.reason == "stopped on the page"
    until(lambda: site.instrument().exposing is None, "the exposure to end")
    until(lambda: site.status_of(entry) != "running", "the experiment to end")
    page.goto(site.url)
    card = page.locator(".instrument.locked")
    expect(card).to_contain_text("locked")
    waiting = site.submit("Waits for a person")
    expect(page.locator("table.queue")).to_contain_text("is locked")
    card.locator("summary").click()
    card.get_by_role("checkbox").check()
    card.get_by_role("button", name="Unlock simulated").click()
    expect(page.locator(".message.good")).to_contain_text("simulated is unlocked")
    assert site.instrument().lock is None
    until(lambda: site.status_of(waiting) == "running", "the next experiment")
    assert_clean(page, site)


def test_everything_but_the_live_part_works_without_scripts(browser, site: Served) -> None:
    entry = site.submit("Without scripts", hold=True)
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(site.url)
    row = shown.locator("table.queue tr", has_text="Without scripts")
    expect(shown.locator("#freshness")).to_contain_text("Load the page again to see the newest")
    row.get_by_label("Priority of Without scripts").fill("3")
    row.get_by_role("button", name="Set").click()
    expect(shown.locator(".message")).to_contain_text("has priority 3 now")
    row.get_by_role("button", name="Release").click()
    expect(shown.locator(".message")).to_contain_text("is released")
    until(lambda: site.catalogue.frames(entry.id), "a frame")
    shown.goto(f"{site.url}/experiments/{entry.id}")
    assert shown.locator("svg.map").count() == 1
    assert shown.locator("svg.frame image").count() >= 1
    assert shown.locator("table.decisions tbody tr").count() >= 1
    shown.get_by_role("button", name="Stop simulated").click()
    expect(shown.locator(".message")).to_contain_text("Stopped: simulated")
    shown.goto(site.url)
    shown.locator(".instrument.locked summary").click()
    shown.get_by_role("checkbox").check()
    shown.get_by_role("button", name="Unlock simulated").click()
    expect(shown.locator(".message")).to_contain_text("is unlocked")
    context.close()


def test_lost_connection_is_said_and_found_again(page, site: Served) -> None:
    running(page, site, "Connection lost")
    expect(page.locator("#freshness")).to_contain_text("Live, as of")
    page.context.set_offline(True)
    expect(page.locator("body")).to_have_class("stale")
    expect(page.locator("#freshness")).to_contain_text("No connection: this is as of")
    expect(page.locator("#announcer")).to_contain_text("The connection is lost")
    page.context.set_offline(False)
    expect(page.locator("body")).to_have_class("live")
    expect(page.locator("#announcer")).to_contain_text("The connection is back")


def test_by_keyboard_alone(page, site: Served) -> None:
    held = site.submit("By keyboard", hold=True)
    page.goto(site.url)
    expect(page.locator("#freshness")).to_contain_text("Live")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    button = f"wait-release-{held.id[-12:]}"
    seen: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => { const one = document.activeElement, box = one.getBoundingClientRect();
                return {id: one.id, shows: box.width > 0 && box.height > 0,
                        outline: getComputedStyle(one).outlineStyle !== "none"}; }"""
        )
        assert focused["shows"]
        assert focused["outline"]
        seen.append(focused["id"])
        if focused["id"] == button:
            break
    assert button in seen, seen
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_contain_text("By keyboard is released")
    until(lambda: site.status_of(held) != "held", "the release")


def test_focus_and_what_is_typed_survive_updates(page, site: Served) -> None:
    site.submit("Runs meanwhile")
    waiting = site.submit("Gets another priority")
    page.goto(site.url)
    field = page.get_by_label("Priority of Gets another priority")
    field.fill("41")
    updates = "document.querySelector('[data-region=running]').innerHTML"
    before = page.evaluate(updates)
    until(lambda: page.evaluate(updates) != before or page.wait_for_timeout(100), "an update")
    assert field.input_value() == "41"
    expect(field).to_be_focused()
    button = page.locator("article.running").get_by_role("button", name="Pause")
    button.focus()
    before = page.evaluate(updates)
    until(lambda: page.evaluate(updates) != before or page.wait_for_timeout(100), "another update")
    expect(button).to_be_focused()
    assert site.queue.entry(waiting.id).priority == 0


CONTRAST = Path(__file__).with_name("readable.js").read_text(encoding="utf-8")


def test_what_a_reader_would_stumble_over_is_noticed(browser) -> None:
    shown = browser.new_page()
    shown.set_content(
        "<h1>a</h1><h3>b</h3><p style='color:#999;background:#fff'>pale</p><p style='font-size:9px'>tiny</p>"
        "<input id=x><img id=x src=y><button style='width:9px'></button>"
    )
    found = " ".join(shown.evaluate(CONTRAST))
    faults = ("contrast 2.8", "9 px text: tiny", "no name: <input", "no name: <img", "small: <button", "id twice: x")
    for fault in (*faults, "h3 after h1", "no language"):
        assert fault in found
    shown.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_named_and_never_wider_than_the_window(browser, site: Served, scheme: str) -> None:
    entry = site.submit("A long name " + "of_many_words_without_a_space_" * 5)
    site.submit("Held one", hold=True)
    until(lambda: len(site.catalogue.frames(entry.id)) > 4, "frames")
    context = browser.new_context(color_scheme=scheme)
    shown = context.new_page()
    for width, height in ((1440, 900), (390, 844)):
        shown.set_viewport_size({"width": width, "height": height})
        for path in ("/", f"/experiments/{entry.id}", "/login", "/nowhere"):
            shown.goto(site.url + path)
            assert shown.evaluate("document.documentElement.scrollWidth") <= width, path
            assert shown.evaluate(CONTRAST) == [], path
    context.close()
