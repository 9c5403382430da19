"""The kit as a stranger uses it: the example's package, found by its entry point, its own tests run as it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from instruments.conformance import CHECKS, Finding
from instruments.conformance.pytest_plugin import ConformanceFinding

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "plugin_instrument"
NOT_TRIED = {
    "beam_shift_motion",
    "stage_tilt",
    "calibration",
    "concurrent_clients",
    "mute_server",
    "call_after_timeout",
    "lost_answer",
    "server_killed",
}  # fmt: skip  it shifts no beam, and no server is between it and its column


def installed(folder: Path) -> dict[str, str]:
    """The example's modules beside the words that its installation would leave; the environment that has them."""
    for module in EXAMPLE.glob("*.py"):
        shutil.copy(module, folder)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    words = folder / f"dotted_film-{project['version']}.dist-info"
    words.mkdir()
    (words / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n{name} = {value}"
        for group, points in project["entry-points"].items()
        for name, value in points.items()
    ]
    (words / "entry_points.txt").write_text("\n".join(lines))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**inherited, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def run_in(folder: Path, environment: dict[str, str]) -> str:
    """What a run of the example's own tests prints."""
    command = [sys.executable, "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider", "-p", "no:randomly", str(folder)]
    answer = subprocess.run(
        [*command, "-c", str(EXAMPLE / "pyproject.toml"), "--rootdir", str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return answer.stdout + answer.stderr


def test_the_example_conforms(tmp_path: Path) -> None:
    said = run_in(tmp_path, installed(tmp_path))
    verdicts = dict(re.findall(r"::test_conformance\[(\w+)\] (\w+)", said))
    assert verdicts == {one.name: "SKIPPED" if one.name in NOT_TRIED else "PASSED" for one in CHECKS}, said
    assert "calibration: this instrument declares no axis beam_shift_x_nm that moves" in said


def test_an_adapter_that_is_not_installed_is_said_in_one_line_a_check(tmp_path: Path) -> None:
    environment = installed(tmp_path)
    shutil.rmtree(next(tmp_path.glob("*.dist-info")))
    said = run_in(tmp_path, environment)
    assert "dotted_film cannot be opened: ConfigurationError: no instrument adapter is called 'dotted_film'" in said
    assert "Traceback" not in said
    assert f"{len(CHECKS)} errors" in said


def finding(verdict: str) -> ConformanceFinding:
    fields = {
        "check": "dwell",
        "verdict": verdict,
        "does": "looks",
        "exposes": True,
        "found": "too dark",
        "cure": "light",
    }
    return ConformanceFinding(Finding.model_validate(fields))


def test_a_finding_fails_skips_or_passes_the_test_it_is_in() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"dwell: too dark\s+-> light"):
        finding("failed").assert_conforms()
    with pytest.raises(pytest.skip.Exception, match="dwell: too dark"):
        finding("skipped").assert_conforms()
    for fine in ("passed", "declared quirk"):
        finding(fine).assert_conforms()
