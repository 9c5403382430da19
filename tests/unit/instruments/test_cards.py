"""Cards and pictures of instruments' objects: escaped, small, with units and scale."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import instruments
from instruments import Capabilities, DoseLedger, Frame, SafetyEnvelope, ScanPattern, Unsupported, cards
from instruments.footprints import footprint
from tests.unit.instruments.replay_files import PIXEL_NM, command, config, write_record

NASTY = "<script>alert('x')</script> & \"friends\""


class Tags(HTMLParser):
    """Collects what was opened, and complains of what was not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def tags(html: str) -> Tags:
    parsed = Tags()
    parsed.feed(html)
    assert parsed.open == []
    assert "script" not in parsed.seen
    assert "color:" not in html
    return parsed


@pytest.fixture(autouse=True)
def quiet_figures() -> Iterator[None]:
    mpl.use("Agg")
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> instruments.Microscope:
    return instruments.open("replay", **config(write_record(tmp_path_factory.mktemp("cards") / "r.npz", 32)))


@pytest.fixture(scope="module")
def frame(replay: instruments.Microscope) -> Frame:
    return replay.acquire(command(NASTY, x_nm=100, y_nm=-50, side_px=8))


def test_cards_escape_everything_they_are_given() -> None:
    html = cards.card(NASTY, NASTY, cards.facts({NASTY: NASTY}), cards.table((NASTY,), [(NASTY,)]), cards.note(NASTY))
    assert tags(html).text.count(NASTY) == 7
    assert tags(cards.picture(b"png", NASTY, 10)).seen == {"img"}


def test_a_long_text_is_cut() -> None:
    assert len(cards.words("x" * 1000)) == 160


def test_frame_shows_itself_small_and_escaped(frame: Frame) -> None:
    html = frame._repr_html_()
    assert NASTY in tags(html).text
    assert "100.0, -50.0 nm" in tags(html).text
    assert "8 x 8 px" in tags(html).text
    assert len(html) < 20_000
    assert repr(frame).startswith("Frame(action_id=")


def test_frame_is_drawn_in_place_with_a_scale_bar(frame: Frame) -> None:
    axes = frame.plot("Mg_Ka")
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), frame.total("Mg_Ka"))
    half = 4 * PIXEL_NM
    assert image.get_extent() == pytest.approx([100 - half, 100 + half, -50 - half, -50 + half])
    assert image.origin == "lower"
    assert axes.get_aspect() == 1.0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (nm)", "y (nm)")
    written = [text.get_text() for text in axes.findobj(mpl.text.Text)]
    assert "10 nm" in written
    assert any("Mg_Ka" in text and "e/Å²" in text for text in written)


def test_a_detector_that_is_not_there_is_named(frame: Frame) -> None:
    with pytest.raises(Unsupported, match=r"no detector 'haadf'; it has Fe_Ka, Mg_Ka"):
        frame.plot("haadf")


def test_a_turned_scan_is_drawn_along_its_own_lines(frame: Frame) -> None:
    scan = frame.requested.scan.model_copy(update={"rotation_deg": 30.0})
    turned = Frame(
        **{name: getattr(frame, name) for name in Frame.__dataclass_fields__ if name != "requested"},
        requested=frame.requested.model_copy(update={"scan": scan}),
    )
    assert "scan lines" in turned.plot().get_xlabel()


def test_frame_as_xarray_keeps_counts_and_places(frame: Frame) -> None:
    dataset = frame.to_xarray()
    np.testing.assert_array_equal(dataset["Fe_Ka"].to_numpy(), frame.counts["Fe_Ka"])
    assert float(dataset["x_nm"].mean()) == pytest.approx(100)
    assert float(dataset["y_nm"][1] - dataset["y_nm"][0]) == pytest.approx(PIXEL_NM)
    assert dataset.attrs["mode"] == "eds"


def test_capabilities_show_modes_and_what_is_fixed(replay: instruments.Microscope) -> None:
    text = tags(replay.capabilities()._repr_html_()).text
    assert "survey" in text
    assert "fixed: probe_current_pa 100" in text
    with pytest.raises(Unsupported, match="no collection angles"):
        replay.capabilities().plot()


def test_collection_angles_are_drawn() -> None:
    detectors = (
        instruments.Detector(name="bf", inner_mrad=0, outer_mrad=10),
        instruments.Detector(name="haadf", inner_mrad=80, outer_mrad=200),
    )
    mode = instruments.Mode(name="both", detectors=detectors)
    axes = Capabilities(name="two rings", simulated=True, axes=(), modes=(mode,)).plot()
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 10), (80, 120)]
    assert axes.get_xlabel() == "scattering angle (mrad)"


def test_dose_is_drawn_where_it_fell() -> None:
    ledger = DoseLedger()
    with pytest.raises(Unsupported, match="nothing has been exposed"):
        ledger.plot()
    scan = ScanPattern(field_of_view_nm=4, shape_px=(8, 8), dwell_time_us=1, beam_shift_x_nm=70, beam_shift_y_nm=-3)
    ledger.add(footprint(instruments.StagePosition(), scan), 1600.0)
    assert ledger.window_nm() == (68, -5, 4, 4)
    (image,) = ledger.plot().images
    assert image.get_extent() == [68, 72, -5, -1]
    np.testing.assert_allclose(image.get_array(), 1.0)
    assert "1600" in tags(ledger._repr_html_()).text


def test_an_envelope_shows_its_limits_alone() -> None:
    text = tags(SafetyEnvelope(max_current_pa=50)._repr_html_()).text
    assert "max_current_pa" in text
    assert "max_park_s" not in text
    assert "no limit" in tags(SafetyEnvelope()._repr_html_()).text


def test_nothing_is_drawn_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: Frame) -> None:
    monkeypatch.chdir(tmp_path)
    frame.plot()
    assert not list(tmp_path.iterdir())
