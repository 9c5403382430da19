"""The Python shown on the pages runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
EXAMPLES = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{index}")
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    for index, block in enumerate(FENCE.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})


def test_there_are_examples() -> None:
    assert EXAMPLES


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if f" {page}\n" not in navigation]
