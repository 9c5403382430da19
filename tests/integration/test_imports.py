"""The lower packages stand alone, stay light, and are ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("instruments", "simulation", "policies", "orchestrator", "workflows")
LOWER = {"instruments": 5, "simulation": 10, "policies": 20}
ABOVE = ("prefect", "fastapi", "starlette", "cupy")

REPORT = """
import importlib, json, sys, time

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked here")

BLOCKED = set(sys.argv[2].split(",")) - {""}
sys.meta_path.insert(0, Blocked())
before_s = time.process_time()
module = importlib.import_module(sys.argv[1])
cpu_s = time.process_time() - before_s
unknown = [name for name in getattr(module, "__all__", []) if getattr(module, name, None) is None]
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"cpu_s": cpu_s, "loaded": loaded, "file": module.__file__, "unknown": unknown}))
"""


@cache
def imported(package: str, *blocked: str) -> dict:
    """What importing `package` does in a fresh interpreter that was started in another folder."""
    folder = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", REPORT, package, ",".join(blocked)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("package", "budget_cpu_s"), LOWER.items())
def test_lower_packages_need_neither_prefect_nor_fastapi(package: str, budget_cpu_s: float) -> None:
    report = imported(package, *ABOVE)
    print(f"import {package}: {report['cpu_s']:.2f} s of processor time")
    assert report["cpu_s"] < budget_cpu_s
    assert not {"matplotlib", "pytest"} & set(report["loaded"])


def test_blocking_blocks() -> None:
    with pytest.raises(AssertionError, match="numpy is blocked here"):
        imported("numpy", "numpy")


def test_instruments_is_only_words() -> None:
    loaded = set(imported("instruments", *ABOVE)["loaded"])
    assert "numpy" in loaded
    assert not loaded & {"torch", "cupy", "ase", "h5py", "simulation", "policies", "orchestrator", "workflows"}


def test_a_run_begins_without_what_few_runs_need() -> None:
    """Each of these takes between some tenths of a second and two seconds in every process."""
    loaded = set(imported("workflows.session")["loaded"])
    assert "sqlalchemy" in loaded
    assert not loaded & {"torch", "xarray", "pandas", "prefect", "fastapi", "matplotlib", "simulation", "ase"}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_imported_are_ours(package: str) -> None:
    """Other distributions ship packages called `instruments` and `workflows`."""
    report = imported(package, *(ABOVE if package in LOWER else ()))
    assert Path(report["file"]).parent == ROOT / package
    assert not report["unknown"], "names in __all__ that the package does not have"
