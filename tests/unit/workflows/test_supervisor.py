"""Which processes belong to an installation; what becomes of one that dies, and of one that was there before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.settings import Settings
from tests.waiting import until
from workflows import supervisor
from workflows.roles import holder
from workflows.supervisor import Role, Supervisor, roles_of

PROGRAM = """
import signal, sys, time
from pathlib import Path
from workflows.roles import RoleLock
with RoleLock(Path(sys.argv[sys.argv.index("--data") + 1]), sys.argv[1]):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(300)
"""


def settings_of(data: Path) -> Settings:
    return Settings.model_validate(
        {"data_folder": data, "instruments": {"left": {"adapter": "simulated"}, "right": {"adapter": "simulated"}}}
    )


def test_every_instrument_has_a_process_and_a_worker_and_ends_after_it(tmp_path: Path) -> None:
    roles = roles_of(settings_of(tmp_path), ["left", "right"], with_prefect=True, with_workers=True)
    ends = {role.name: role.ends for role in roles}
    assert set(ends) >= {
        "watchdog", "instrument-left", "instrument-right", "prefect", "worker-left", "worker-right",
    }  # fmt: skip
    assert ends["worker-left"] < ends["instrument-left"] == ends["watchdog"] < ends["prefect"]
    bare = roles_of(settings_of(tmp_path), ["left"], with_prefect=False, with_workers=False)
    assert not {"prefect", "worker-left"} & {role.name for role in bare}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Role:
    """A role filled by a small program instead of a command."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(supervisor, "COMMAND", (str(path),))
    return Role(name="watchdog", arguments=("watchdog",), purpose="sleeps", ends=0)


def test_started_adopted_started_again_and_stopped(tmp_path: Path, program: Role) -> None:
    data, said = tmp_path / "data", list[str]()
    data.mkdir()
    first = Supervisor(settings_of(data), [program], said.append)
    first.look()
    until(lambda: holder(data, "watchdog") is not None, "a watchdog")
    pid = holder(data, "watchdog")
    assert pid is not None
    second = Supervisor(settings_of(data), [program], said.append)
    try:
        second.look()
        assert said == [f"watchdog: process {pid} was running already and is kept"]
        os.kill(pid, signal.SIGKILL)
        assert first.children[0].process is not None
        first.children[0].process.wait()
        second.look()
        until(lambda: holder(data, "watchdog") not in (None, pid), "another watchdog")
        assert f"watchdog (process {pid}) is gone; starting it again" in said[-1]
    finally:
        second.stop(lambda: False, 120)
    assert holder(data, "watchdog") is None
    assert (data / "logs" / "watchdog.log").read_bytes() == b""
