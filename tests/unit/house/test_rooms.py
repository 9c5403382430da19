"""What the folder names promise, and what no module may contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("instruments", "simulation", "policies", "orchestrator", "workflows")
HOMELESS = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def complaints(source: str) -> Iterator[str]:
    """Calls and errors that hide a missing protocol or a missing implementation."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="hasattr")):
                yield f"line {node.lineno}: hasattr; a small protocol says it"
            case ast.Raise(exc=ast.expr() as raised) if "NotImplementedError" in ast.unparse(raised):
                yield f"line {node.lineno}: NotImplementedError; write it or leave it out"
            case ast.ExceptHandler(type=None | ast.Name(id="Exception" | "BaseException"), body=body):
                if not (isinstance(body[-1], ast.Raise) and body[-1].exc is None):
                    yield f"line {node.lineno}: catches everything and goes on; name the class you can act on"


def test_every_module_has_a_home() -> None:
    parts = {part for path in MODULES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not parts & HOMELESS


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_hides_what_is_missing(package: str) -> None:
    paths = [path for path in MODULES if path.relative_to(ROOT).parts[0] == package]
    assert paths
    found = [f"{path.relative_to(ROOT)}: {what}" for path in paths for what in complaints(path.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "if hasattr(microscope, 'stop'): ...",
        "def later(): raise NotImplementedError",
        "try: ...\nexcept Exception as error: ...",
        "try: ...\nexcept: ...",
    ],
)
def test_a_planted_one_is_found(source: str) -> None:
    assert list(complaints(source))


def test_tidying_up_and_raising_again_is_fine() -> None:
    assert not list(complaints("try: ...\nexcept BaseException:\n    path.unlink()\n    raise"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_public_names(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text("utf-8")).body
    assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in body)
