"""The page of a census whose frames were drawn and counted for real: whole, safe, self-contained, the same twice."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest

from orchestrator.report import Evaluation, Spending, render_report
from orchestrator.report.census_view import CensusView
from orchestrator.report.headline import cards
from tests.unit.orchestrator.census_report import SPECIES, census_data
from workflows.questions.measured import HOW, measured_images

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "img", "br", "col", "hr", "input"}


@cache
def page() -> str:
    return render_report(census_data(measured=measured_images(None, None)))


class Tree(HTMLParser):
    """Open tags, ids, links and everything a page could fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.append(found["id"])
        if tag == "a":
            self.targets.append(found["href"] or "")
        if tag == "img":
            self.alts.append(found.get("alt"))
        self.sources += [found[name] or "" for name in ("src", "xlink:href", "srcset") if name in found]
        if tag == "link":
            self.sources.append(found["href"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


def tree(text: str) -> Tree:
    parser = Tree()
    parser.feed(text)
    return parser


def words(text: str) -> str:
    return html.unescape(
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)))
    )


def test_well_formed_and_every_link_inside_arrives() -> None:
    found = tree(page())
    assert not found.faults
    assert not found.open
    assert found.targets
    assert {target.removeprefix("#") for target in found.targets} <= set(found.ids)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    found = tree(page())
    assert found.sources
    assert all(source.startswith(("data:", "#")) for source in found.sources)
    assert "<script" not in page()
    assert "@import" not in page()
    assert not re.search(r"url\((?!#)", page())


def test_every_figure_says_what_is_seen() -> None:
    found = tree(page())
    assert len(found.alts) >= 6
    assert all(found.alts)
    labels = re.findall(r'<svg[^>]*aria-label="([^"]+)"', page())
    assert len(labels) == page().count("<svg")
    assert page().count("<figure>") == page().count("<figcaption>") == len(labels) + len(found.alts)


def test_the_same_data_give_the_same_bytes() -> None:
    assert render_report(census_data(measured=measured_images(None, None))) == page()


def test_size_stays_small() -> None:
    assert len(page().encode()) < 8e6


def test_text_of_users_is_escaped_and_without_a_truth_there_is_no_recall() -> None:
    data = census_data(evaluation=None)
    evil = '<script>alert("1")</script>'
    decision = replace(data.decisions[0], reason={"why": evil, evil: evil}, point={evil: evil}, status_reason=evil)
    facts = replace(data.experiment, name=evil, reason=evil, instrument=evil, policy=evil, versions={evil: evil})
    text = render_report(
        replace(data, experiment=facts, decisions=(decision, *data.decisions[1:]), spec_text=evil)
    )  # fmt: skip
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 10
    said = words(text)
    assert "There is no hidden truth to judge against" in said
    assert "recall of" not in said
    assert "Ledger against the world" not in said


def test_headline_states_what_the_objective_and_the_judge_say() -> None:
    data, text = census_data(), words(page())
    summary = data.summary
    assert f"{summary['confirmed']} defects confirmed" in text
    assert "50.0% recall of 40 determinable natives" in text
    assert "2.0% false discovery rate asked for: at most 5%; 1 of 20 wrong" in text
    assert "Why it stopped. budget spent: 5 of 5 frames" in text
    for name in SPECIES:
        entry = summary["species"][name]
        assert f"{name} {entry['confirmed']} " in text.replace("listed, not counted ", "")
        assert f"{entry['whole_per_nm2'] * 100:.3g}" in text
    assert "ledger minus truth, all electrons +0.21%" in text


def test_a_false_discovery_rate_above_the_limit_is_marked() -> None:
    assert "amiss" not in page().split("</style>")[1]
    data = census_data()
    assert data.evaluation is not None
    worse = replace(data.evaluation, verdict={**data.evaluation.verdict, "false_discovery_rate": 0.2})
    assert [card.name for card in cards(replace(data, evaluation=worse)) if card.is_amiss] == ["false discovery rate"]


def test_every_decision_is_there_with_its_reason_and_its_end() -> None:
    data, text = census_data(), words(page())
    for decision in data.decisions:
        assert str(decision.reason["why"]) in text
        assert f'id="d{decision.seq}"' in page()
    assert "refused: dose of a 1 nm2 cell after this frame 12000 e/A2" in text
    assert "The same in all of them: probe current 30 pA." in text


def test_every_frame_is_listed_with_its_checksum() -> None:
    for frame in census_data().frames:
        assert frame.sha256 in page()
        assert frame.path in page()


def test_what_cannot_be_determined_is_boxed_with_reasons() -> None:
    text = words(page())
    assert "V_Se: which of the 2 Se atoms, top or bottom" in text
    assert "O_Se: which of the 2 Se atoms, top or bottom" in text
    assert "V_Se2: which" not in text
    assert "V_Se from O_Se in one frame of mode haadf d' = " in text
    assert "A recall for O_Se" in text


def test_requested_stands_beside_read_back() -> None:
    text = words(page())
    assert "decision 1, survey stage x, nm 0.00 0.00 +0.00" in text
    assert "probe current, pA 30.00 not known" in text


def test_without_a_measured_image_one_line_says_how_to_have_one() -> None:
    text = words(page())
    assert HOW in text
    assert "Refused, and why" not in text


def test_an_experiment_that_took_no_frame_has_a_page() -> None:
    empty = {
        key: np.zeros((0, *value.shape[1:]), value.dtype)
        for key, value in census_data().maps.items()
        if key.startswith("call_")
    }
    maps = {
        **empty,
        "x_nm": np.arange(10.0),
        "y_nm": np.arange(10.0),
        "clean": np.full((10, 10), np.nan),
        "visited_dose_e_per_a2": np.zeros((10, 10)),
    }
    summary = {**census_data().summary, "confirmed": 0, "undecided": 0, "drift_nm": []}
    nothing = Spending(electrons=0.0, instrument_time_s=0.0, dose_max_e_per_a2=0.0)
    text = render_report(
        census_data(decisions=(), frames=(), ledger=(), maps=maps, summary=summary, spending=nothing, evaluation=None)
    )
    assert not tree(text).faults
    assert 'id="measured"' not in text
    assert "There is no frame that resolves the specimen" in text
    assert "no limit" in text


def test_classes_are_the_census_s() -> None:
    data = census_data()
    view = CensusView.of(data)
    assert view is not None
    assert int(view.native.sum()) == data.summary["confirmed"]
    assert int(view.beam_made.sum()) == data.summary["beam_made"]
    assert not (view.native & view.undetermined).any()
    assert int(view.undetermined.sum()) >= data.summary["undecided"]
    for number, name in enumerate(SPECIES):
        assert int(view.of_species(number).sum()) == data.summary["species"][name]["confirmed"]


def test_wrong_calls_come_from_the_judge() -> None:
    data = census_data()
    assert data.evaluation is not None
    row = int(np.flatnonzero(data.maps["call_confirmed"])[0])
    judged = Evaluation(verdict={**data.evaluation.verdict, "wrong_rows": [row]})
    view = CensusView.of(replace(data, evaluation=judged))
    assert view is not None
    assert np.flatnonzero(view.wrong).tolist() == [row]
