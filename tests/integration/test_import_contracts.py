"""Each import contract catches a planted violation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("instruments", "simulation", "policies", "orchestrator", "workflows")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
NAMES = {contract["id"]: contract["name"] for contract in CONTRACTS}

# contract: (where the violation is planted, what is written there)
VIOLATIONS = {
    "layers": ("simulation/planted.py", "import policies\n"),
    "policies-alone": ("policies/planted.py", "from instruments import Optics\n"),
    "orchestrator-any-microscope": ("orchestrator/planted.py", "def late():\n    import simulation\n"),
    "prefect-in-workflows": ("orchestrator/planted.py", "from prefect import flow\n"),
    "fastapi-in-api": ("workflows/planted.py", "from fastapi import FastAPI\n"),
    "cupy-in-backend": ("simulation/planted.py", "import cupy\n"),
    "light-words": ("instruments/planted.py", "def late():\n    import torch\n"),
    "vendors-in-adapters": ("workflows/planted.py", "import temscript\n"),
    "other-pythons": ("instruments/adapters/planted.py", "def late():\n    import nion\n"),
}


def copy_of_packages(folder: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=lambda _, names: {n for n in names if n == "__pycache__"}
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken_contracts(folder: Path, *only: str) -> set[str]:
    """Names of the contracts that lint-imports calls broken for the packages in `folder`."""
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    for contract in only:
        lint += ["--contract", contract]
    done = subprocess.run(lint, cwd=folder, capture_output=True, text=True, check=False)
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    broken = set(re.findall(r"^(.+?) BROKEN\b", done.stdout, flags=re.MULTILINE))
    assert done.returncode == bool(broken)
    return broken


def test_every_contract_has_a_violation() -> None:
    assert set(NAMES) == set(VIOLATIONS)


def test_the_packages_keep_every_contract(tmp_path: Path) -> None:
    assert broken_contracts(copy_of_packages(tmp_path)) == set()


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_contract_catches_a_planted_violation(contract: str, tmp_path: Path) -> None:
    place, text = VIOLATIONS[contract]
    (copy_of_packages(tmp_path) / place).write_text(text)
    assert broken_contracts(tmp_path, contract) == {NAMES[contract]}


def test_the_one_allowed_place_stays_allowed(tmp_path: Path) -> None:
    folder = copy_of_packages(tmp_path)
    (folder / "orchestrator" / "api").mkdir(exist_ok=True)
    (folder / "orchestrator" / "api" / "__init__.py").write_text("import fastapi\n")
    (folder / "orchestrator" / "api" / "planted.py").write_text("import starlette.responses\n")
    (folder / "simulation" / "backend.py").write_text("import cupy\n")
    (folder / "workflows" / "planted.py").write_text("import prefect\nimport orchestrator.api\n")
    (folder / "instruments" / "plotting.py").write_text("def late():\n    import matplotlib\n")
    kept = ("fastapi-in-api", "cupy-in-backend", "prefect-in-workflows", "light-words")
    assert broken_contracts(folder, *kept) == set()
