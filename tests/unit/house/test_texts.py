"""Change fragments are well formed, pins are plain, and no text names the machine it was written on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (
    ".ci", "benchmarks", "changes", "deploy", "docs", "examples", "instruments", "notebooks", "orchestrator",
    "policies", "simulation", "tests", "workflows",
)  # fmt: skip
TEXT = {
    "", ".cff", ".css", ".html", ".ini", ".j2", ".js", ".json", ".mako", ".md", ".py", ".sh", ".sql", ".toml", ".txt",
    ".yaml", ".yml",
}  # fmt: skip
KINDS = "added|changed|deprecated|fixed|removed|security"
# Each begins with what is looked for, so that files are searched as quickly as for a plain text.
FORBIDDEN = {
    "a path of one machine": re.compile(
        r"/(?<![\w.<~}\-]/)(?:work|root|tmp|home/\w+|Users/\w+)(?=[/\s\"'`)]|$)", re.MULTILINE
    ),
    "a package registry": re.compile(r"pypi\.\w+"),
    "the files of a package registry": re.compile(r"files\.python\w+\.org"),
    "a registry of scripts": re.compile(r"registry\.npm\w+"),
    "an index of packages": re.compile(r"/simple/\b"),
}


def texts() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file()]
    nested = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in top + nested if path.suffix in TEXT and "__pycache__" not in path.parts)


def test_no_text_names_a_machine_or_a_registry() -> None:
    found = []
    for path in texts():
        content = path.read_text(encoding="utf-8")
        for what, pattern in FORBIDDEN.items():
            found += [f"{path.relative_to(ROOT)}: {what}: {match.group()}" for match in pattern.finditer(content)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ["work", "root", "tmp"])
def test_a_machine_path_would_be_found(name: str) -> None:
    pattern = FORBIDDEN["a path of one machine"]
    assert pattern.search(f"see /{name}/notes")
    assert pattern.search(f"'/{name}'")
    assert not pattern.search(f"</{name}> docs/{name}/x /{name}s")


def test_a_registry_would_be_found() -> None:
    assert FORBIDDEN["a package registry"].search("https://" + "pypi" + ".org/project")


@pytest.mark.parametrize(
    "path", sorted(p for p in (ROOT / "changes").iterdir() if p.name != "README.md"), ids=lambda p: p.name
)
def test_change_fragment_is_well_formed(path: Path) -> None:
    assert re.fullmatch(rf"[a-z0-9][a-z0-9-]*\.(?:{KINDS})\.md", path.name), f"name it <part>.<{KINDS}>.md"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line.strip() for line in lines), "say in a line or two what a user gets"
    assert len(lines) <= 8, "one or two lines; the rest belongs in docs/"
    assert not any(line.startswith("#") for line in lines), "no headings: the fragment becomes a list item"


def test_pins_are_plain_and_cover_the_dependencies() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values()), "no local versions, no markers, no paths"
    assert pins["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (
        project["dependencies"] + project["optional-dependencies"]["dev"] + project["optional-dependencies"]["docs"]
    )
    names = {re.split(r"[\[<>=!;\s]", requirement)[0] for requirement in wanted}
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    assert not {re.sub(r"[-_.]+", "-", name).lower() for name in names} - canonical


def test_readme_first_screen_names_the_two_commands() -> None:
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30])
    assert "make run" in screen
    assert "make test" in screen


def test_contributing_stays_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 60
