"""Pages and forms through the whole application, over a real catalogue and queue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Response
from starlette.testclient import TestClient

from orchestrator.dashboard import ASSETS, asset_url
from tests.unit.orchestrator.api.serving import Service, accept, serve
from tests.unit.orchestrator.dashboard.journals import intend, measured, started, submitted

HTML = {"Accept": "text/html"}


@pytest.fixture
def service(catalogue_folder: Path) -> Iterator[Service]:
    made = serve(catalogue_folder, check=accept)
    yield made
    made.catalogue.close()


@pytest.fixture
def browser(service: Service) -> TestClient:
    return browser_of(service)


def browser_of(service: Service) -> TestClient:
    client = service.client()
    client.headers.update(HTML)
    return client


def csrf(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def send(browser: TestClient, path: str, look_at: str = "/", **fields: str) -> Response:
    """A form sent as the page that shows it would."""
    return browser.post(path, data={"csrf": csrf(browser.get(look_at).text), **fields})


def test_an_empty_queue_teaches_the_first_command(browser: TestClient) -> None:
    page = browser.get("/").text
    assert "Nothing has been asked yet" in page
    assert "stempilot submit examples/native_defects.yaml" in page


def test_pages_need_nothing_from_elsewhere_and_hold_no_inline_code(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    measured(service.catalogue, own, 1)
    for path in ("/", f"/experiments/{own}", "/login", "/nowhere"):
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)|javascript:|https?://", answer.text), path
    for name in ASSETS:
        assert "immutable" in browser.get(asset_url(name)).headers["cache-control"]


def test_names_and_reasons_are_text(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue, name="<script>alert(1)</script>").experiment_id
    service.catalogue.mark(intend(service.catalogue, own, 1), "failed", "<img src=x onerror=alert(2)>")
    for path in ("/", f"/experiments/{own}", f"/live/experiments/{own}"):
        text = browser.get(path).text
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def test_the_queue_says_who_runs_and_why_others_wait(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue, name="First").experiment_id
    measured(service.catalogue, own, 1)
    submitted(service.queue, "Second", submitted_by="anna")
    submitted(service.queue, "Third", hold=True, submitted_by="ben")
    page = browser.get("/").text
    assert "next in the raster" in page
    assert "waits for simulated, which runs First" in page
    assert "held at submission by ben" in page
    assert '<progress max="1"' in page


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            "refused",
            "dose of a 1 nm2 cell 2e+04 e/A2 is above the limit",
            "refused, nothing was exposed: dose of a 1 nm2",
        ),
        ("unknown", "no answer in 30 s", "no answer, the dose counts as spent: no answer in 30 s"),
        ("failed", "detector saturated", "failed, the dose is spent: detector saturated"),
    ],
)
def test_a_decision_without_a_frame_says_what_became_of_it(
    service: Service, browser: TestClient, status: str, reason: str, words: str
) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    service.catalogue.mark(intend(service.catalogue, own, 1), status, reason)
    page = browser.get(f"/experiments/{own}").text
    assert words in page
    assert "No frame yet." in page
    assert ("1 exposure without an answer" in page) == (status == "unknown")


def test_an_experiment_that_has_not_started(service: Service, browser: TestClient) -> None:
    own = submitted(service.queue).id
    page = browser.get(f"/experiments/{own}").text
    assert "It has not started." in page
    assert "no worker has asked for instrument simulated yet" in page
    report = browser.get(f"/experiments/{own}/report")
    assert report.status_code == 404
    assert "No report yet" in report.text


def test_an_experiment_with_frames(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    for seq in range(1, 24):
        last = measured(service.catalogue, own, seq, purpose="survey" if seq == 1 else "field")
    page = browser.get(f"/experiments/{own}").text
    assert "Decision 23: field, 6.4 nm" in page
    assert "23 sites seen" in page
    assert "page 1 of 2" in page
    assert "rotate(-12.00" in page
    pictures = re.findall(r'(?:href|src)="(/experiments/[^"]+\.png[^"]*)"', page)
    assert {path.rsplit("/", 1)[1] for path in pictures} == {"maadf.png", "bf.png", "ground.png?surveys=1"}
    for path in pictures:
        answer = browser.get(path.replace("&amp;", "&"))
        assert answer.status_code == 200
        assert answer.content.startswith(b"\x89PNG")
    assert f"/api/v1/experiments/{own}/frames/{last.frame_id}/file" in page
    older = browser.get(f"/experiments/{own}?page=2").text
    assert "page 2 of 2" in older
    assert "1 sites seen" in older
    missing = browser.get(f"/experiments/{own}/frames/{last.frame_id}/eels.png")
    assert (missing.status_code, "it has maadf, bf" in missing.text) == (404, True)


def test_what_did_not_change_is_not_sent_again(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    for path in ("/live/queue", f"/live/experiments/{own}"):
        first = browser.get(path)
        tag = {"If-None-Match": first.headers["etag"]}
        assert browser.get(path, headers=tag).status_code == 304
        measured(service.catalogue, own, 1 + len(service.catalogue.decisions(own)))
        second = browser.get(path, headers=tag)
        assert (second.status_code, second.headers["etag"] != first.headers["etag"]) == (200, True)


def test_the_page_and_its_live_part_are_the_same(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    measured(service.catalogue, own, 1)
    for path, live in (("/", "/live/queue"), (f"/experiments/{own}", f"/live/experiments/{own}")):
        tag = re.search(r'data-etag="(\w+)"', browser.get(path).text)
        assert tag is not None
        assert browser.get(live).headers["etag"] == f'"{tag[1]}"'


def test_buttons_do_what_they_say(service: Service, browser: TestClient) -> None:
    own = submitted(service.queue).id
    for action, status in (("hold", "held"), ("release", "queued"), ("cancel", "cancelled")):
        answer = send(browser, f"/experiments/{own}", action=action, back="/")
        assert answer.status_code == 200
        assert service.queue.entry(own).status == status
        assert "Small raster is" in answer.text
    answer = send(browser, f"/experiments/{own}", action="pause")
    assert "is cancelled; pause is possible while running" in answer.text


def test_a_running_one_obeys_after_its_frame(service: Service, browser: TestClient) -> None:
    own = started(service.catalogue, service.queue).experiment_id
    assert "pauses after the frame" in send(browser, f"/experiments/{own}", action="pause").text
    assert service.queue.entry(own).wanted == "pause"
    assert "will pause after this frame for local" in browser.get(f"/experiments/{own}").text


def test_another_priority(service: Service, browser: TestClient) -> None:
    own = submitted(service.queue).id
    assert "has priority 7 now" in send(browser, f"/experiments/{own}", action="priority", priority="7").text
    assert service.queue.entry(own).priority == 7
    assert send(browser, f"/experiments/{own}", action="priority", priority="many").status_code == 400
    assert send(browser, f"/experiments/{own}", action="explode").status_code == 400


def test_a_stop_acts_at_once_and_says_what_came_of_it(service: Service, browser: TestClient) -> None:
    answer = send(browser, "/instruments/simulated/stop", back="/")
    assert "Stopped: simulated. The beam is blanked" in answer.text
    assert service.desk.locks == {"simulated": "local: stopped on the page"}
    assert "Unlock simulated" in answer.text
    assert send(browser, "/instruments/simulated/clear").status_code == 400
    answer = send(browser, "/instruments/simulated/clear", looked="yes")
    assert "simulated is unlocked" in answer.text
    assert service.desk.locks == {}


def test_a_stop_that_is_not_confirmed_says_so(service: Service, browser: TestClient) -> None:
    service.desk.lost.add("replay")
    answer = send(browser, "/stop")
    assert set(service.desk.locks) == {"replay", "simulated"}
    assert "Stopped: simulated." in answer.text
    assert "Not confirmed: replay: no answer. If a beam may be on there, go and look" in answer.text
    assert "state not known" in answer.text


@pytest.mark.parametrize(
    "path", ["/stop", "/instruments/simulated/stop", "/experiments/{own}", "/experiments/{own}/report"]
)
def test_forms_of_others_are_refused(service: Service, browser: TestClient, path: str) -> None:
    own = submitted(service.queue).id
    path = path.format(own=own)
    good = csrf(browser.get("/").text)
    assert browser.post(path, data={"action": "cancel"}).status_code == 403
    assert browser.post(path, data={"action": "cancel", "csrf": "0" * 64}).status_code == 403
    elsewhere = {"Origin": "http://elsewhere.example"}
    assert browser.post(path, data={"action": "cancel", "csrf": good}, headers=elsewhere).status_code == 403
    assert service.queue.entry(own).status == "queued"
    assert service.desk.locks == {}


def test_a_page_of_before_a_restart_can_still_stop(service: Service, browser: TestClient) -> None:
    old = csrf(browser.get("/").text)
    service.catalogue.close()
    again = serve(service.catalogue.data_folder, check=accept)
    assert browser_of(again).post("/stop", data={"csrf": old}).status_code == 200
    assert set(again.desk.locks) == {"replay", "simulated"}
    again.catalogue.close()


def test_what_is_not_there_is_a_page_for_people_and_a_problem_for_programs(browser: TestClient) -> None:
    for path in ("/nowhere", "/experiments/" + "0" * 32, "/experiments/short", "/?before=x"):
        answer = browser.get(path)
        assert answer.status_code in (404, 422)
        assert answer.headers["content-type"].startswith("text/html")
        assert "To the queue" in answer.text
        program = browser.get(path, headers={"Accept": "application/json"})
        assert program.headers["content-type"] == "application/problem+json"


def test_the_beginning_of_an_id_leads_to_the_experiment(service: Service, browser: TestClient) -> None:
    own = submitted(service.queue).id
    assert browser.get(f"/experiments/{own[:12]}").url.path == f"/experiments/{own}"


def test_where_to_go_back_is_ours(browser: TestClient) -> None:
    field = {"back": "//elsewhere.example/"}
    answer = browser.post("/stop", data={"csrf": csrf(browser.get("/").text), **field}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/?told=")


def test_a_thousand_experiments_in_pages(service: Service, browser: TestClient) -> None:
    for number in range(45):
        service.queue.cancel(submitted(service.queue, f"Number {number}").id, by="ben", reason="wrong specimen")
    page = browser.get("/").text
    shown = re.findall(r">Number (\d+)<", page)
    seen = list(shown)
    while (older := re.search(r'href="(/\?before=[0-9a-f]{32})', page)) is not None:
        page = browser.get(older[1]).text
        seen += re.findall(r">Number (\d+)<", page)
    assert len(shown) == 20
    assert seen == [str(number) for number in range(44, -1, -1)]


class TestWithTokens:
    @pytest.fixture
    def guarded(self, catalogue_folder: Path) -> Iterator[Service]:
        made = serve(catalogue_folder, with_tokens=True, check=accept)
        yield made
        made.catalogue.close()

    def token(self, service: Service, *scopes: str) -> str:
        from datetime import timedelta

        assert service.tokens is not None
        made = service.tokens.create("anna", scopes, service.catalogue.now() + timedelta(days=1))
        assert made.secret is not None
        return made.secret

    def log_in(self, service: Service, token: str) -> TestClient:
        browser = browser_of(service)
        answer = send(browser, "/login", "/login", token=token, back="/")
        assert answer.status_code == 200
        return browser

    def test_strangers_are_sent_to_the_login(self, guarded: Service) -> None:
        own = submitted(guarded.queue).id
        browser = browser_of(guarded)
        answer = browser.get(f"/experiments/{own}", follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?back=%2Fexperiments%2F{own}"
        live = browser.get("/live/queue", headers={"Accept": "*/*"})
        assert live.status_code == 401
        wrong = send(browser, "/login", "/login", token="stempilot_wrong")
        assert (wrong.status_code, "not known, expired or revoked" in wrong.text) == (401, True)

    def test_the_cookie_is_for_this_service_alone(self, guarded: Service) -> None:
        browser = browser_of(guarded)
        form = {"csrf": csrf(browser.get("/login").text), "token": self.token(guarded, "read"), "back": "/"}
        cookie = browser.post("/login", data=form, follow_redirects=False).headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "Log out anna" in browser.get("/").text
        assert send(browser, "/logout").url.path == "/login"
        assert browser.get("/", follow_redirects=False).status_code == 303

    def test_a_token_may_do_what_its_scopes_allow(self, guarded: Service) -> None:
        own = submitted(guarded.queue, submitted_by="ben").id
        looking = self.log_in(guarded, self.token(guarded, "read"))
        assert send(looking, "/stop").status_code == 403
        assert send(looking, f"/experiments/{own}", action="cancel").status_code == 403
        operating = self.log_in(guarded, self.token(guarded, "read", "queue:operate", "instruments:control"))
        assert send(operating, f"/experiments/{own}", action="cancel").status_code == 200
        assert guarded.queue.entry(own).status == "cancelled"
        assert send(operating, "/stop").status_code == 200
        assert guarded.desk.locks["simulated"] == "anna: stopped on the page"

    def test_a_form_of_another_person_is_refused(self, guarded: Service) -> None:
        ben = self.log_in(guarded, self.token(guarded, "read", "instruments:control"))
        anna = self.log_in(guarded, self.token(guarded, "read", "instruments:control"))
        assert anna.post("/stop", data={"csrf": csrf(ben.get("/").text)}).status_code == 403
