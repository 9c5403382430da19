"""The processes of compose.yaml, run by hand with PostgreSQL, from the API to a report; and no connection leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.smoke_deploy import Place, drive, installed
from tests.integration import harness
from tests.integration.network_trace import Reached, abroad, reached, tracer
from tests.ports import unused_port
from tests.postgresql import new_database

pytestmark = pytest.mark.slow

ELSEWHERE = "192.0.2.7"  # addresses that belong to nobody (RFC 5737, RFC 3849)
ELSEWHERE_6 = "2001:db8::7"
PLANTED = f"""
import socket, threading
def leave():
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, ("{ELSEWHERE}", 443)),
        (socket.AF_INET6, socket.SOCK_STREAM, ("{ELSEWHERE_6}", 443)),
    ):
        with socket.socket(family, kind) as own:
            own.settimeout(0.1)
            try: own.connect(address)
            except OSError: pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        try: own.sendto(b"x", ("{ELSEWHERE}", 53))
        except OSError: pass
thread = threading.Thread(target=leave); thread.start(); thread.join()
"""


@pytest.fixture(scope="module")
def smoke(
    postgresql_server: str, forward_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path | None]:
    """The document of the experiment that was driven, and the folder of traces, None where nothing can be traced."""
    folder = tmp_path_factory.mktemp("smoke")
    traces: Path | None = folder / "trace"
    try:
        wrap = tracer(folder / "trace")
    except pytest.skip.Exception:
        wrap, traces = [], None
    with new_database(postgresql_server) as database_url:
        place = Place(
            data=harness.data_folder(folder, forward_model), prefect_home=folder / "prefect", database_url=database_url,
            api_port=unused_port(), prefect_port=unused_port(),
        )  # fmt: skip
        with installed(place, wrap) as installation:
            document = drive(installation, print)
    return document, traces


def test_an_experiment_goes_from_the_api_to_its_report(smoke: tuple[dict[str, Any], Path | None]) -> None:
    document, _ = smoke
    assert document["status"] == "completed"
    assert [decision["status"] for decision in document["decisions"]] == ["done"] * 3
    assert document["electrons"] > 0


def test_a_served_installation_speaks_to_this_machine_alone(smoke: tuple[dict[str, Any], Path | None]) -> None:
    _, traces = smoke
    if traces is None:
        tracer(Path("unused"))  # skips, saying why
        return
    files = sorted(traces.parent.glob("trace.*"))
    assert len(files) == 6
    for file in files:
        assert abroad(file) == set(), file.name
    assert any(each.family == "AF_INET" and each.port for file in files for each in reached(file))


def test_a_planted_connection_is_seen(tmp_path: Path) -> None:
    """By a thread of a child of a child, to addresses that belong to nobody; refused or not, the attempt shows."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PLANTED!r}], check=True)"
    subprocess.run([*tracer(tmp_path / "trace"), sys.executable, "-c", child], check=True)
    assert abroad(tmp_path / "trace") == {
        Reached("AF_INET", ELSEWHERE, 443), Reached("AF_INET", ELSEWHERE, 53), Reached("AF_INET6", ELSEWHERE_6, 443),
    }  # fmt: skip
