"""Prefect as the engine, the baselines, and the other question: the same line, the same decisions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import Catalogue
from tests.integration.harness import (
    CENSUS,
    MAP,
    RASTER,
    ROOT,
    Outcome,
    console,
    data_folder,
    environment,
    stempilot,
    without_ids,
)
from tests.integration.network_trace import abroad, reached, tracer, why_not_traced
from tests.unit.instruments.replay_files import write_record

pytestmark = pytest.mark.slow


RUN = ("run", RASTER, "--no-baselines", "--no-report", "--seed", 2, "--set", "budget.frames=4")


@dataclass(frozen=True)
class ByPrefect:
    """A run with Prefect: its data folder, how it ended, the trace of whom it spoke to (None: nothing is traced)."""

    data: Path
    outcome: Outcome
    trace: Path | None


@pytest.fixture(scope="module")
def by_prefect(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> ByPrefect:
    """A process of its own, no network but loopback: proxies lead nowhere, so anything else would fail and be said."""
    folder = tmp_path_factory.mktemp("prefect")
    for attempt in ("once", "again", "for the last time"):  # where a server starts too slowly, a run goes on without it
        run = _by_prefect(folder / attempt, forward_model)
        with Catalogue.open(run.data, read_only=True) as catalogue:
            own = catalogue.experiment("latest").id
            changes = list(catalogue.events(own, kinds=("engine_changed",)))
        if not any(" within " in change.payload["because"] for change in changes):
            break
    return run


def _by_prefect(folder: Path, forward_model: Path) -> ByPrefect:
    folder.mkdir()
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    offline = environment(**nowhere, NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost")
    data, trace = data_folder(folder, forward_model), folder / "trace"
    wrap = [] if why_not_traced() else tracer(trace)
    outcome = console(*RUN, "--data", data, "--engine", "prefect", wrap=wrap, env=offline)
    return ByPrefect(data, outcome.expect(0), trace if wrap else None)


def test_prefect_makes_the_same_decisions(by_prefect: ByPrefect, data: Path) -> None:
    by_hand = stempilot(*RUN, "--data", data, "--engine", "local").expect(0)
    documents: dict[str, dict[str, Any]] = {}
    for engine, said, folder in (("prefect", by_prefect.outcome, by_prefect.data), ("local", by_hand, data)):
        assert said.stderr == ""
        ours = ("preparing", "frame ", "Small raster", "completed", "spent", "  ", "against", "dose ledger")
        assert [line for line in said.stdout.splitlines() if not line.startswith(ours)] == []
        documents[engine] = stempilot("show", "latest", "--data", folder, "--json").expect(0).document
        assert documents[engine]["engine"] == engine
        with Catalogue.open(folder, read_only=True) as catalogue:
            assert list(catalogue.events(documents[engine]["id"], kinds=("engine_changed",))) == []
    assert without_ids(documents["prefect"]) == without_ids(documents["local"])
    assert documents["prefect"]["truth"] == documents["local"]["truth"]


def test_an_embedded_run_speaks_to_this_machine_alone(by_prefect: ByPrefect) -> None:
    if by_prefect.trace is None:
        pytest.skip(why_not_traced())
    assert abroad(by_prefect.trace) == set()
    assert any(each.family == "AF_INET" and each.port for each in reached(by_prefect.trace))


def test_an_error_before_the_start_is_quiet_with_prefect(forward_model: Path, tmp_path: Path) -> None:
    data = data_folder(tmp_path, forward_model)
    said = console("run", RASTER, "--data", data, "--engine", "prefect", "--set", "budget.electrons=1000")
    said.complains(3, "1000 electrons")
    assert said.stdout == ""
    assert len(said.stderr.splitlines()) == 1


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines get one process, not one for each core: it starts for longer than these have to do."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.mark.usefixtures("one_core")
def test_baselines_run_on_the_same_world_and_budget(data: Path) -> None:
    document = (
        stempilot(
            "run", CENSUS, "--data", data, "--seed", 3, "--engine", "local", "--json",
            "--set", "budget.frames=6", "--set", "budget.electrons=2.4e8",
        ).expect(0).document
    )  # fmt: skip
    assert list(document["baselines"]) == ["thin_raster", "full_raster", "random", "survey_rank", "oracle"]
    for name, verdict in document["baselines"].items():
        assert set(verdict) >= {"recall", "false_discovery_rate", "electrons", "instrument_time_s"}, name
        assert 0 < verdict["electrons"] <= 2.4e8
        assert 0 <= verdict["recall"] <= 1
        assert verdict["determinable"] == document["truth"]["determinable"]
        assert verdict["frames"] <= 6
    listed = stempilot("list", "--data", data, "--json").document["experiments"]
    everything = stempilot("list", "--data", data, "--children", "--json").document["experiments"]
    assert [line["id"] for line in listed] == [document["id"]]
    assert [line["parent_id"] for line in everything].count(document["id"]) == 5
    assert Path(document["report"]).is_file()


@pytest.mark.usefixtures("one_core")
def test_element_map_of_a_replayed_record(tmp_path: Path) -> None:
    record = write_record(tmp_path / "record.npz", 64)
    documents = []
    for name, options in (("one", ()), ("two", ("--no-baselines", "--no-report"))):
        outcome = stempilot(
            "run", MAP, "--data", tmp_path / name, "--engine", "local", "--seed", 1, "--json", *options,
            "--set", f"instrument.config.file={record}", "--set", "budget.frames=14",
        )  # fmt: skip
        documents.append(outcome.expect(0).document)
    document = documents[0]
    assert document["status"] == "completed"
    assert document["decisions"][0]["point"]["mode"] == "survey"
    assert {decision["point"]["mode"] for decision in document["decisions"][1:]} == {"eds"}
    assert all(decision["reason"]["why"] for decision in document["decisions"])
    assert set(document["truth"]) >= {"explained_Fe_Ka", "explained_Mg_Ka"}
    assert list(document["baselines"]) == ["raster", "random"]
    for verdict in document["baselines"].values():
        assert verdict["frames"] == len(document["frames"])
    assert without_ids(document) == without_ids(documents[1])
    assert document["truth"] == documents[1]["truth"]
    assert stempilot("replay", "latest", "--data", tmp_path / "one", "--json").expect(0).document["differences"] == []
    assert Path(document["report"]).is_file()


def test_element_map_of_a_damaged_record(tmp_path: Path) -> None:
    record = write_record(tmp_path / "record.npz", 64)
    record.write_bytes(record.read_bytes()[:2000])
    arguments = ("run", MAP, "--data", tmp_path / "data", "--engine", "local")
    stempilot(*arguments, "--set", f"instrument.config.file={record}").complains(2, "record.npz")
    stempilot(*arguments, "--set", "instrument.config.file=absent.npz").complains(2, "absent.npz")


@pytest.mark.real_data
def test_element_map_of_the_measured_file(real_data: Path, tmp_path: Path) -> None:
    document = (
        stempilot(
            "run", ROOT / "examples" / "fe_map_replay.yaml", "--data", tmp_path / "data", "--engine", "local", "--json",
            "--no-baselines", "--no-report", "--set", "budget.frames=25",
            "--set", f"instrument.config.file={real_data / 'replay' / 'idp_tilt0_maps.npz'}",
        ).expect(0).document
    )  # fmt: skip
    assert len(document["frames"]) == 25
    assert set(document["truth"]) >= {"explained_Fe_Ka", "explained_Mg_Ka", "explained_O_Ka"}
    assert document["truth"]["explained_O_Ka"] > 0
