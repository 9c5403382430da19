"""The report as Chromium shows it: nothing fetched, nothing to complain of, every picture drawn, nothing cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report import render_report
from tests.unit.orchestrator.census_report import census_data
from workflows.questions.measured import measured_images

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, image_cache: Path) -> Path:
    """With the box on measured images where there are some, else with its one line."""
    named = os.environ.get("STEMPILOT_TESTS_REAL_DATA")
    measured = measured_images(Path(named) if named else None, image_cache)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(census_data(measured=measured)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--renderer-process-limit=1"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def opened(browser, report: Path) -> Iterator[object]:
    shown = browser.new_page()
    shown.requests, shown.complaints = [], []
    shown.on("request", lambda request: shown.requests.append(request.url))
    shown.on("console", lambda message: shown.complaints.append(message.text))
    shown.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.goto(report.as_uri())
    yield shown
    shown.close()


@pytest.fixture
def page(opened):
    """The page that all tests share, as wide as at first."""
    opened.set_viewport_size({"width": 1280, "height": 900})
    return opened


def test_opens_alone_and_without_complaint(page, report: Path) -> None:
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [report.as_uri()]
    assert page.complaints == []
    assert page.title() == "Native defects – stempilot report"


def test_every_picture_is_drawn_and_fits(page) -> None:
    boxes = page.eval_on_selector_all(
        "figure img, figure svg",
        """all => all.map(one => ({width: one.getBoundingClientRect().width, height: one.getBoundingClientRect().height,
            drawn: one.tagName !== 'IMG' || (one.complete && one.naturalWidth > 0)}))""",
    )
    assert len(boxes) >= 8
    for box in boxes:
        assert box["drawn"]
        assert 150 < box["width"] <= 1056
        assert box["height"] > 80


@pytest.mark.parametrize("width_px", [1280, 900])
def test_nothing_is_wider_than_the_window(page, width_px: int) -> None:
    page.set_viewport_size({"width": width_px, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_contents_lead_to_their_sections(page) -> None:
    links = page.locator("nav a")
    assert links.count() >= 8
    for number in range(links.count()):
        links.nth(number).click()
        target = page.url.split("#")[1]
        assert page.locator(f"section#{target} h2").first.is_visible()


def test_the_box_on_measured_images_is_there(page) -> None:
    box = page.locator("section#measured")
    assert box.is_visible()
    has_some = "STEMPILOT_TESTS_REAL_DATA" in os.environ
    assert box.locator("img").count() == (2 if has_some else 0)
    assert ("Refused, and why" if has_some else "set STEMPILOT_REAL_DATA") in box.inner_text()


def test_prints(page) -> None:
    pages = page.pdf(format="A4", print_background=True)
    assert pages.startswith(b"%PDF")
    assert len(pages) > 100_000
