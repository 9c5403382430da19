"""The laboratory on a small synthetic record: no physics to compute, the whole line otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from instruments import CommandRefused
from orchestrator import signature
from orchestrator.errors import Refused, SpecError
from orchestrator.settings import read_document
from orchestrator.signature import Terms, make_keys, sign, signature_path
from policies import Observation, SearchSpace, Seen, Suggestion, create, rule
from policies.baselines.raster import Raster
from policies.conformance import LawBroken
from tests.unit.instruments.replay_files import write_record
from tests.unit.instruments.test_cards import tags
from workflows.notebook import Candidate, Laboratory, Table
from workflows.notebook.drawing import UNKNOWN, median_of
from workflows.notebook.trial import Trial

SPEC = Path(__file__).parent / "specs" / "small_map.yaml"
SURVEY = {"purpose": "survey", "mode": "survey", "x_nm": 0, "y_nm": 0, "field_of_view_nm": 640, "dwell_time_us": 1}
CELL = {"purpose": "field", "mode": "eds", "field_of_view_nm": 40, "dwell_time_us": 1000, "prelude": [SURVEY]}


@rule
def farthest(seen: Seen):
    """The place farthest from every field so far."""
    places = seen.places_nm()
    apart = np.linalg.norm(places[:, None] - seen.fields_nm[None], axis=2).min(axis=1, initial=1e9)
    apart[seen.taken(places)] = -1
    x_nm, y_nm = places[apart.argmax()]
    return {"x_nm": x_nm, "y_nm": y_nm}, {"why": f"{apart.max():.0f} nm from the nearest"}


class Forgetful(Raster):
    """Breaks a law: it forgets what a snapshot held."""

    def restore(self, state: dict) -> None:
        """Forget."""
        del state


@pytest.fixture(autouse=True)
def quiet_figures() -> Iterator[None]:
    mpl.use("Agg")
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    folder = tmp_path_factory.mktemp("laboratory")
    record = write_record(folder / "record.npz", 64)
    changed = {"instrument.config.file": str(record), "budget.frames": 14, "name": "<script>map</script>"}
    return Laboratory(SPEC, changed, data=folder / "data")


@pytest.fixture(scope="module")
def trial(laboratory: Laboratory) -> Trial:
    return laboratory.run(farthest, seed=1, options=CELL)


def test_a_run_keeps_everything(laboratory: Laboratory, trial: Trial) -> None:
    assert trial.ending.status == "completed"
    assert (len(trial.steps), len(trial.frames)) == (14, 14)
    assert [step.purpose for step in trial.steps] == ["survey"] + ["field"] * 13
    assert trial.measure == "explained"
    assert trial.value() == pytest.approx(np.mean([trial.verdict[f"explained_{n}_Ka"] for n in ("Fe", "Mg")]))
    assert trial.electrons == pytest.approx(sum(frame.electrons for frame in trial.frames))
    assert trial.steps[-1].electrons == pytest.approx(trial.electrons)
    assert "nm from the nearest" in trial.steps[3].why
    assert trial.steps[3].score is not None
    assert set(trial.steps[3].score.outcomes) == {"counts_Fe_Ka", "counts_Mg_Ka"}
    assert trial.curve["electrons"][-1] == pytest.approx(trial.electrons)
    assert laboratory.space.names[0] == "purpose"


def test_the_same_seed_is_the_same_run(laboratory: Laboratory, trial: Trial) -> None:
    again = laboratory.run(Candidate(farthest, lambda seed: CELL), seed=1, keep_frames=False)
    assert again.points == trial.points
    assert again.verdict == trial.verdict
    assert again.frames == []
    assert again.steps[3].features is None


def test_say_hears_of_every_decision(laboratory: Laboratory) -> None:
    lines: list[str] = []
    laboratory.run("raster", options={**CELL, "step_nm": 160}, say=lines.append)
    assert len(lines) == 14
    assert "survey image of the whole field" in lines[0]
    assert "position 2 of 16 of the raster" in lines[2]


def test_policies_by_name_class_rule_and_object_are_one(laboratory: Laboratory) -> None:
    options = {**CELL, "step_nm": 160}
    made = create("raster", laboratory.space, seed=0, context=laboratory.context, **options)
    runs = [
        laboratory.run("raster", options=options),
        laboratory.run(Raster, options=options),
        laboratory.run(made),
    ]
    assert runs[0].points == runs[1].points == runs[2].points
    assert [run.policy for run in runs] == ["raster", "Raster", "Raster"]
    with pytest.raises(Refused, match="hand in its class"):
        laboratory.compare({"object": made})
    with pytest.raises(SpecError, match="has its options already"):
        laboratory.run(made, options=options)
    with pytest.raises(SpecError, match="no policy is called 'nobody'"):
        laboratory.run("nobody")
    with pytest.raises(SpecError, match="lenght_nm"):
        laboratory.run(farthest, options={**CELL, "lenght_nm": 3})


def test_a_comparison_counts_and_draws(laboratory: Laboratory) -> None:
    said: list[str] = []
    policies = {
        "farthest": Candidate(farthest, CELL),
        "raster": Candidate("raster", lambda seed: {**CELL, "step_nm": 160 + seed}),
    }
    two = laboratory.compare(policies, seeds=(0, 1), processes=1, say=said.append)
    assert len(said) == 4
    assert two.medians()["raster"] == pytest.approx(np.median(two.values("raster")))
    assert two.won("farthest", "raster") == int((two.values("farthest") > two.values("raster")).sum())
    assert two.trial("raster", 1).seed == 1
    table = two.table()
    assert table["policy"].tolist() == ["farthest", "raster"]
    assert table["decisions"].tolist() == [14, 14]
    three = two | laboratory.compare({"own": None}, seeds=(0, 1), processes=1)
    assert list(three.trials) == ["farthest", "raster", "own"]
    axes = three.plot(against="instrument_time_s")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["farthest", "raster", "own"]
    assert axes.get_xlabel() == "microscope time (s)"
    tags(three._repr_html_())
    with pytest.raises(ValueError, match="differ"):
        two | laboratory.compare({"own": None}, seeds=(1,), processes=1)


def test_check_holds_the_laws_against_frames_of_the_experiment(laboratory: Laboratory) -> None:
    suggestions = laboratory.check(farthest, options=CELL, step_count=9)
    assert len(suggestions) == 9
    assert len({(s.point["x_nm"], s.point["y_nm"]) for s in suggestions[1:]}) == 8
    with pytest.raises(LawBroken, match="restored"):
        laboratory.check(Forgetful, options={**CELL, "step_nm": 160}, step_count=4)


def test_a_frame_by_hand_stays_within_the_limits(laboratory: Laboratory) -> None:
    assert laboratory.frame_at({**SURVEY}).mode.name == "survey"
    with pytest.raises(CommandRefused, match="leaves the recorded field"):
        laboratory.frame_at({**SURVEY, "x_nm": 100.0})
    with pytest.raises(SpecError, match="lacks dwell_time_us"):
        laboratory.frame_at({name: value for name, value in SURVEY.items() if name != "dwell_time_us"})


def test_a_recorded_run_is_the_same_run(laboratory: Laboratory, trial: Trial) -> None:
    said: list[str] = []
    recorded = laboratory.record(farthest, seed=1, options=CELL, say=said.append)
    document = recorded.document()
    assert [decision["point"] for decision in document["decisions"]] == trial.points
    assert document["spec"]["policy"]["name"] == "farthest"
    frames = recorded.frames()
    np.testing.assert_array_equal(recorded.load(frames[3]).counts["Fe_Ka"], trial.frames[3].counts["Fe_Ka"])
    assert recorded.path(frames[3]).is_file()
    assert recorded.report().read_text(encoding="utf-8").startswith("<!")
    assert len(recorded.decisions()) == 14
    assert "completed" in str(recorded)
    assert document["name"] in tags(recorded._repr_html_()).text
    assert any("nm from the nearest" in line for line in said)


def test_a_real_instrument_is_not_for_a_laboratory(tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text('[instruments.replay]\nadapter = "titan"\n')
    with pytest.raises(Refused, match=r"'replay' \(adapter 'titan'\) is real"):
        Laboratory(SPEC, data=tmp_path)


def test_everything_shows_itself_escaped(laboratory: Laboratory, trial: Trial) -> None:
    assert "<script>map</script>" in tags(laboratory._repr_html_()).text
    for shown in (trial, trial.steps[3], trial.table(), trial.curve):
        tags(shown._repr_html_())
    assert "explained" in str(trial)
    assert repr(laboratory).startswith("Laboratory(")


def test_pictures_have_units_and_places(trial: Trial) -> None:
    axes = trial.plot()
    assert axes.get_xlabel() == "electrons on the specimen"
    axes = trial.plot_points()
    assert len(axes.patches) == 14
    assert len(axes.images) == 1
    axes = trial.plot_map("rate_Fe_Ka")
    assert axes.images[0].get_extent() == pytest.approx([-320, 320, -320, 320])
    assert "100 nm" in [text.get_text() for text in axes.findobj(mpl.text.Text)]
    with pytest.raises(KeyError, match="no map"):
        trial.plot_map("rate_Xx")
    with pytest.raises(SpecError, match="explained_Fe_Ka"):
        trial.plot("recall")


@pytest.mark.parametrize(("method", "name"), [("plot_points", "survey"), ("plot_map", "rate_Fe_Ka")])
def test_where_nothing_is_known_is_grey_and_said_so(trial: Trial, method: str, name: str) -> None:
    values = np.array(trial.maps[name], dtype=float)
    rows, columns = values.shape
    values[: rows // 2] = np.nan
    half = replace(trial, maps={**trial.maps, name: values}, steps=())
    axes = half.plot_points() if method == "plot_points" else half.plot_map(name)
    legend = axes.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-1] == ("not surveyed" if method == "plot_points" else "nothing known")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    grey = np.round(255 * np.array(to_rgb(UNKNOWN)))
    x_nm, y_nm = (float(trial.maps[axis][number]) for axis, number in (("x_nm", columns // 2), ("y_nm", rows // 4)))
    for y_there_nm, is_grey in ((y_nm, True), (-y_nm, False)):
        column, row = axes.transData.transform((x_nm, y_there_nm)).astype(int)
        assert np.array_equal(drawn[row, column], grey) == is_grey
    whole = trial.plot_points().get_legend()
    assert whole is not None
    assert "not surveyed" not in [text.get_text() for text in whole.get_texts()]


def test_the_median_staircase_covers_what_all_runs_cover() -> None:
    one = (np.array([0.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    two = (np.array([1.0, 3.0]), np.array([4.0, 6.0]))
    grid, median = median_of([one, two])
    assert grid.tolist() == [1, 2, 3, 4]
    assert median.tolist() == [2, 2.5, 3.5, 4]


def test_a_table_keeps_missing_numbers_apart() -> None:
    table = Table("t", ({"a": 1, "b": "x"}, {"b": "y"}))
    assert np.isnan(table["a"][1])
    assert table["b"].tolist() == ["x", "y"]
    assert str(table).splitlines()[1].split() == ["a", "b"]
    with pytest.raises(KeyError, match="there are a, b"):
        table["c"]


def test_a_policy_object_sees_what_the_loop_sees(laboratory: Laboratory) -> None:
    """An object with the five methods and nothing else is enough."""

    class Plain:
        def __init__(self, space: SearchSpace) -> None:
            self.space = space
            self.seen: list[Observation] = []

        def suggest(self, count: int = 1) -> list[Suggestion]:
            points = [SURVEY, *({**CELL, "x_nm": x, "y_nm": 0} for x in (-100.0, 0.0, 100.0))]
            point = {name: value for name, value in points[len(self.seen)].items() if name != "prelude"}
            return [Suggestion(id=f"plain-{len(self.seen)}", point=point, reason={"why": "as listed"})]

        def ingest(self, observations: list[Observation]) -> None:
            self.seen += observations

        def should_stop(self) -> str | None:
            return "the list is done" if len(self.seen) == 4 else None

        def snapshot(self) -> dict:
            return {}

        def restore(self, state: dict) -> None: ...

    plain = Plain(laboratory.space)
    trial = laboratory.run(plain)
    assert trial.ending.reason == "the list is done"
    assert [seen.status for seen in plain.seen] == ["done"] * 4
    assert trial.measure == "score"
    assert trial.value() == 1.0


def test_an_older_signed_file_is_refused_in_a_notebook_too(
    laboratory: Laboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was put back, or replaced, while the notebook was open."""
    monkeypatch.setattr(signature, "PUBLIC_KEY_PATH", tmp_path / "no.pub")
    private, public = make_keys(tmp_path / "keys")
    monkeypatch.setenv("STEMPILOT_FACILITY_KEY", str(public))
    file, older, opened = tmp_path / "stempilot.toml", list[bytes](), list[Laboratory]()
    for serial, shift_nm in ((7, 500), (8, 300)):
        file.write_text(f"[instruments.replay.safety]\nmax_beam_shift_nm = {shift_nm}\n")
        sign(file, read_document(file, must_exist=True), private, Terms(by="anna", serial=serial))
        older = older or [path.read_bytes() for path in (file, signature_path(file))]
        opened.append(Laboratory(laboratory.spec, data=tmp_path))
    far = SURVEY | {"x_nm": 310, "pixel_size_nm": 10, "probe_current_pa": 1000, "defocus_nm": 0}
    with pytest.raises(CommandRefused, match="above the limit 300 nm"):
        opened[0].frame_at(far)
    for path, content in zip((file, signature_path(file)), older, strict=True):
        path.write_bytes(content)
    for again in (lambda: Laboratory(laboratory.spec, data=tmp_path), lambda: opened[1].run(farthest, options=CELL)):
        with pytest.raises(Refused, match="have serial 7, and serial 8 was in use here"):
            again()
