"""Every cell of the notebooks runs in Jupyter, the longer one on less; what they design is a plug-in."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.integration.harness import MAP, ROOT, console, environment, stempilot
from tests.unit.instruments.replay_files import write_record
from workflows.notebook import Candidate, Laboratory

pytestmark = pytest.mark.slow

NOTEBOOKS = ROOT / "notebooks"
PLUG_IN = ROOT / "examples" / "plugin_policy"
FIRST, DESIGN = NOTEBOOKS / "01_first_experiment.py", NOTEBOOKS / "02_design_a_policy.py"
STRICT = "import warnings; warnings.simplefilter('error'); warnings.filterwarnings('ignore', message='`torch.jit')"
QUIET = "warnings.resetwarnings()"  # Jupyter's own farewell warns
SURVEY = {"purpose": "survey", "mode": "survey", "x_nm": 0, "y_nm": 0, "field_of_view_nm": 640, "dwell_time_us": 1}
OPTIONS = {
    "purpose": "field", "mode": "eds", "field_of_view_nm": 40, "dwell_time_us": 1000, "prelude": [SURVEY],
    "reach_nm": 100, "greed": 0, "weigh_by_survey": False,
}  # fmt: skip


def executed(path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, **smaller: str) -> nbformat.NotebookNode:
    """The notebook with its outputs; a warning is an error in it, as in every test. `smaller`: name -> other value."""
    monkeypatch.setenv("STEMPILOT_DATA", str(data))
    # No processes of its own, which cost more than the trials: what they give is compared below.
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    text = path.read_text(encoding="utf-8")
    for given, value in smaller.items():
        text, count = re.subn(rf'^(    "{given}": |{given} = ).*$', rf"\g<1>{value}", text, flags=re.MULTILINE)
        assert count == 1, f"{given} is set {count} times in {path.name}"
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    notebook.cells.append(nbformat.v4.new_code_cell(QUIET))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def said(notebook: nbformat.NotebookNode) -> str:
    """Everything printed; nothing may go to the error stream."""
    streams = [output for output in outputs(notebook) if output.output_type == "stream"]
    assert [stream.text for stream in streams if stream.name == "stderr"] == []
    return "".join(stream.text for stream in streams)


def shown(notebook: nbformat.NotebookNode, kind: str) -> int:
    return sum(kind in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.parametrize("path", [FIRST, DESIGN], ids=lambda path: path.stem)
def test_notebooks_are_kept_as_text_without_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "format_name: percent" in text
    notebook = jupytext.reads(text, fmt="py:percent")
    assert {cell.cell_type for cell in notebook.cells} == {"markdown", "code"}
    assert outputs(notebook) == []
    assert not list(NOTEBOOKS.glob("*.ipynb"))


def test_first_experiment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed(FIRST, data, monkeypatch)
    text = said(notebook)
    assert "the same as recorded: True" in text
    assert "dose of a 1 nm2 cell after this frame" in text
    assert re.search(r"NXem from \S+ to \S+\nimage_bf \(\d+, 200, 200\) uint16", text)
    (report,) = re.findall(r"^.*report\.html$", text, flags=re.MULTILINE)
    assert Path(report).is_relative_to(data)
    assert Path(report).is_file()
    assert shown(notebook, "image/png") == 5
    assert shown(notebook, "text/html") >= 9


def measured_files_at_hand(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell the notebook of the measured files, as a user would; whether the one it wants is among them."""
    named = os.environ.get("STEMPILOT_TESTS_REAL_DATA")
    if named is None:
        return False
    monkeypatch.setenv("STEMPILOT_REAL_DATA", named)
    return (Path(named) / "replay" / "idp_tilt0_maps.npz").is_file()


def test_design_a_policy(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the measured record is at hand it is used; otherwise the notebook says so and goes on."""
    has_record = measured_files_at_hand(monkeypatch)
    less = {"budget": '{"electrons": 3e7, "instrument_time_s": 600},', "SEEDS": "(1,)", "SPECTRA": "9"}
    notebook = executed(DESIGN, data, monkeypatch, **less)
    text = said(notebook)
    assert "12 suggestions, every law holds" in text
    runs = re.findall(r"^seed (\d+)  (.+?) +(recall|explained) (-?[\d.]+|nan)", text, flags=re.MULTILINE)
    assert [(seed, name) for seed, name, measure, _ in runs if measure == "recall"] == [
        ("1", name) for name in ("census (built in)", "belief map", "raster")
    ]
    conclusions = re.findall(r"^belief map: median (\w+) .* ahead on \d of (\d) seeds$", text, flags=re.MULTILINE)
    assert ("going on with the simulated part only" in text) != has_record
    if not has_record:
        assert conclusions == [("recall", "1")] * 2
        assert shown(notebook, "image/png") == 2
    else:
        assert len([run for run in runs if run[2] == "explained"]) == 6
        assert conclusions == [("recall", "1")] * 2 + [("explained", "2")] * 2
        assert shown(notebook, "image/png") == 4


def function_in(path: Path, name: str) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(ast.dump(node) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def test_the_plug_in_is_the_policy_of_the_notebook() -> None:
    assert function_in(PLUG_IN / "belief_map_policy.py", "belief_map") == function_in(DESIGN, "belief_map")


def test_an_installed_plug_in_is_found_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built and installed into a folder of its own, without a network; then it is a policy like any other."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for path in PLUG_IN.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", target, source]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *install],
        capture_output=True,
        text=True,
        check=False,
    )
    assert pip.returncode == 0, pip.stderr
    record = write_record(tmp_path / "record.npz", 64)
    run = (
        "run", MAP, "--data", tmp_path / "data", "--set", f"instrument.config.file={record}",
        "--set", "budget.frames=9", "--set", f"policy.options={json.dumps(OPTIONS)}",
        "--policy", "belief_map", "--engine", "local", "--no-baselines", "--no-report", "--json",
    )  # fmt: skip
    document = console(*run, env=environment(PYTHONPATH=str(target))).expect(0).document
    assert document["spec"]["policy"] == {"name": "belief_map", "options": OPTIONS}
    assert [decision["status"] for decision in document["decisions"]] == ["done"] * 9
    assert "highest worth of 256 places" in document["decisions"][-1]["reason"]["why"]
    stempilot(*run).complains(2, "belief_map", "known:")
    monkeypatch.syspath_prepend(target)
    try:
        replayed = stempilot("replay", document["id"], "--data", tmp_path / "data", "--json").expect(0).document
    finally:
        sys.modules.pop("belief_map_policy", None)
    assert (replayed["decisions"], replayed["differences"]) == (9, [])


def test_comparisons_do_not_depend_on_processes(tmp_path: Path) -> None:
    record = write_record(tmp_path / "record.npz", 64)
    laboratory = Laboratory(MAP, {"instrument.config.file": str(record), "budget.frames": 10}, data=tmp_path / "data")
    cell = {name: OPTIONS[name] for name in ("purpose", "mode", "field_of_view_nm", "dwell_time_us", "prelude")}
    policies = {"raster": Candidate("raster", {**cell, "step_nm": 160}), "own": None}
    alone = laboratory.compare(policies, seeds=(0, 1), processes=1)
    together = laboratory.compare(policies, seeds=(0, 1), processes=2)
    for name in policies:
        assert [trial.points for trial in alone.trials[name]] == [trial.points for trial in together.trials[name]]
        np.testing.assert_array_equal(alone.values(name), together.values(name))
