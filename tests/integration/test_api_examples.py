"""The commands of the API's page run as they stand there, one after another, against a service that asks for tokens."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.client import Client
from tests.integration.api_process import DEADLINE_S, served
from tests.integration.harness import ROOT

PAGE = ROOT / "docs" / "api.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 7
    here = tmp_path / "here"
    here.mkdir()
    (here / "examples").symlink_to(ROOT / "examples")
    with served(tmp_path / "data") as api:
        token = api.first_token()
        script = "set -euo pipefail\n" + "\n".join(blocks).replace("http://127.0.0.1:8765", api.url)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        outcome = subprocess.run(
            ["bash", "-c", script], cwd=here, env={**os.environ, "PATH": path, "STEMPILOT_TOKEN": token},
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        entry = json.loads((here / "entry.json").read_text())
        with Client(api.url, token) as client:
            assert client.status(entry["id"])["reason"] == "cancelled by first-admin: the wrong specimen"
            assert client.status(entry["id"])["priority"] == 9
        with Client(api.url, json.loads((here / "token.json").read_text())["secret"]) as night:
            assert night.whoami()["name"] == "night shift"
    assert 'event: end\ndata: {"status":"cancelled"}' in outcome.stdout


def test_the_page_tells_every_problem_and_every_scope() -> None:
    from orchestrator.api.access import WHAT_SCOPES_ALLOW
    from orchestrator.api.problems import KINDS

    page = PAGE.read_text(encoding="utf-8")
    assert not [kind for kind in KINDS if f"`{kind}`" not in page]
    assert not [scope for scope, words in WHAT_SCOPES_ALLOW.items() if f"| `{scope}` | {words} |" not in page]
