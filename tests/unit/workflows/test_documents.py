"""The answer in a few lines, made from documents alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.journal import Journal
from orchestrator.plain_json import plain
from tests.unit.orchestrator import microscope_frames as microscope
from workflows.documents import experiment_document, headline, listing
from workflows.roles import RoleLock

DOCUMENT: dict[str, Any] = {
    "id": "01ab", "name": "A census", "status": "completed", "reason": "budget spent: 3 of 3 frames",
    "electrons": 1.234e8,
    "dose_max_e_per_a2": 4321.4, "instrument_time_s": 59.96, "frames": [{}, {}, {}], "summary": None,
}  # fmt: skip
SPECIES = {
    "V_Se": {"confirmed": 7, "whole_per_nm2": 0.004, "whole_low_per_nm2": 0.002, "whole_high_per_nm2": 0.007},
    "Mo_W": {"confirmed": 0, "whole_per_nm2": 0.0, "whole_low_per_nm2": 0.0, "whole_high_per_nm2": float("inf")},
    "O_Se": {"confirmed": 0, "whole_per_nm2": 0.0, "whole_low_per_nm2": 0.0, "whole_high_per_nm2": None},
}


def test_without_truth_only_what_was_found_and_spent() -> None:
    lines = headline({**DOCUMENT, "summary": {"species": SPECIES}})
    assert lines[0] == "A census  [01ab]"
    assert lines[1] == "completed: budget spent: 3 of 3 frames"
    assert lines[2] == ("spent 1.23e+08 electrons, at most 4321 e/A2 in any 1 nm2, 60.0 s of microscope time, 3 frames")
    assert "7 confirmed" in lines[3]
    assert "0.00400 per nm2" in lines[3]
    assert "0.00200 to 0.00700" in lines[3]
    assert all("not determined" in line for line in lines[4:])
    assert len(lines) == 6


def test_with_truth_ours_stands_beside_the_baselines() -> None:
    verdict = {"recall": 0.5, "false_discovery_rate": 0.04, "electrons": 2e8, "instrument_time_s": 600.0}
    document = {
        **DOCUMENT,
        "truth": {"recall": 0.75, "false_discovery_rate": 0.0, "ledger_error_fraction": -0.0049},
        "baselines": {"full_raster": verdict, "random": {**verdict, "recall": None}},
    }
    ours, raster, random, ledger = headline(document)[4:]
    assert " ".join(ours.split()) == "this run recall 0.750 false discovery rate 0.000 1.23e+08 e 60.0 s"
    assert "recall 0.500" in raster
    assert "2e+08 e  600.0 s" in raster
    assert "recall" not in random
    assert ledger == "dose ledger minus world: -0.49% of the electrons"


def test_an_element_map_is_judged_by_its_held_out_half() -> None:
    lines = headline({**DOCUMENT, "truth": {"explained_Fe_Ka": 0.31, "Fe_Ka": {"explained": 0.31}}, "baselines": {}})
    assert lines[3] == "against the held-out half of the counts:"
    assert "Fe_Ka 0.310" in lines[4]


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Any:
    with Catalogue.open(catalogue_folder) as opened:
        yield opened


def created(catalogue: Catalogue, name: str, parent_id: str | None = None) -> str:
    return catalogue.create_experiment(
        name=name, spec={"name": name}, seed=4, engine="local", options={}, parent_id=parent_id
    )


def test_what_went_on_since_it_was_interrupted_costs_what_it_costs_now(catalogue: Catalogue) -> None:
    """The ending of the first session is not that of the second; and nothing that was known then is forgotten."""
    own = created(catalogue, "resumed")
    journal, stored, then = Journal(catalogue, own), 0.0, dict[str, Any]()
    for ordinal in range(2):
        intent, command = journal.intend(microscope.suggestion(ordinal), microscope.command)
        stored += journal.keep(intent, microscope.frame(command, ordinal)).electrons
        if ordinal == 0:
            then = {"status": "interrupted", "electrons": stored, "dose_max_e_per_a2": 1e9, "instrument_time_s": 0.0}
            catalogue.append(own, "closed", then)
            catalogue.set_status(own, "interrupted", "by a person")
            assert experiment_document(catalogue, own)["electrons"] == stored
            catalogue.set_status(own, "running", None)
    document = experiment_document(catalogue, own)
    assert document["electrons"] == pytest.approx(stored)
    assert (document["dose_max_e_per_a2"], document["instrument_time_s"] > 0.0) == (1e9, True)
    catalogue.append(own, "closed", {**then, "status": "completed", "electrons": 3 * stored})
    catalogue.set_status(own, "completed", "done")
    assert experiment_document(catalogue, own)["electrons"] == 3 * stored


def test_a_run_that_goes_on_while_it_is_read_is_no_error(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is taken and stored before each of the reads."""
    own = created(catalogue, "running")
    catalogue.set_status(own, "running", None)
    journal, taken = Journal(catalogue, own), iter(range(100))

    def goes_on(name: str) -> None:
        read = getattr(catalogue, name)

        def after_another(experiment_id: str) -> Any:
            ordinal = next(taken)
            intent, command = journal.intend(microscope.suggestion(ordinal), microscope.command)
            journal.keep(intent, microscope.frame(command, ordinal))
            return read(experiment_id)

        monkeypatch.setattr(catalogue, name, after_another)

    for name in ("decisions", "frames", "intents"):
        goes_on(name)
    document = experiment_document(catalogue, own)
    listed = [frame["id"] for frame in document["frames"]]
    assert len(listed) == 2
    assert [entry["frame_id"] for entry in document["decisions"]] == listed[:1]
    assert document["electrons"] > 0


def test_an_experiment_that_has_nothing_yet(catalogue: Catalogue) -> None:
    experiment_id = created(catalogue, "young")
    document = experiment_document(catalogue, experiment_id)
    assert document["frames"] == document["decisions"] == []
    assert document["electrons"] == 0.0
    assert document["wall_time_s"] is None
    assert document["seed"] == 4
    assert "truth" not in document
    assert json.loads(json.dumps(document)) == document
    assert headline(document)[0] == f"young  [{experiment_id}]"


def test_the_last_closing_counts(catalogue: Catalogue) -> None:
    experiment_id = created(catalogue, "resumed")
    for electrons in (1.0, 2.0):
        catalogue.append(
            experiment_id,
            "closed",
            plain(
                {
                    "electrons": electrons,
                    "dose_max_e_per_a2": 3.0,
                    "instrument_time_s": 4.0,
                    "wall_time_s": 5.0,
                    "summary": {},
                }
            ),
        )
    curve = {"recall": 0.5, "curve": [1, 2], "found": [True], "decisions": [], "summary": {}}
    catalogue.append(experiment_id, "evaluated", {"truth": {"recall": 0.7}, "baselines": {"random": curve}})
    document = experiment_document(catalogue, experiment_id)
    assert document["electrons"] == 2.0
    assert document["truth"] == {"recall": 0.7}
    assert document["baselines"] == {"random": {"recall": 0.5}}


def test_listing_is_newest_first_and_hides_children(catalogue: Catalogue) -> None:
    old, new = created(catalogue, "old"), created(catalogue, "new")
    child = created(catalogue, "child", parent_id=old)
    assert [line["id"] for line in listing(catalogue, include_children=False)] == [new, old]
    assert [line["id"] for line in listing(catalogue, include_children=True)] == [child, new, old]


def test_a_run_whose_process_is_gone_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    with Catalogue.open(tmp_path) as catalogue:
        own = catalogue.create_experiment(
            name="killed", spec={"instrument": {"name": "titan"}}, seed=1, engine="local", options={}
        )
        catalogue.set_status(own, "running", None)
        [beside] = listing(catalogue, include_children=False)
        with RoleLock(tmp_path, "instrument-titan"):
            [living] = listing(catalogue, include_children=False)
    with Catalogue.open(tmp_path, read_only=True) as catalogue:
        [killed] = listing(catalogue, include_children=False)
        shown = headline(experiment_document(catalogue, own))
    assert (living["status"], living["note"]) == ("running", None)
    for line in (beside, killed):
        assert (line["status"], line["note"]) == ("running", f"its process is gone; stempilot resume {own}")
    assert f"running: its process is gone; stempilot resume {own}" in shown
