"""One process for each role: locks that die with their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import DataFolderBusy
from workflows.roles import RoleLock, holder, run_folder

HOLD = (
    "import sys; from pathlib import Path; from workflows.roles import RoleLock\n"
    "lock = RoleLock(Path(sys.argv[1]), 'watchdog'); print('has it', flush=True); sys.stdin.read()"
)


def test_the_holder_is_known_while_it_lives(tmp_path: Path) -> None:
    assert holder(tmp_path, "watchdog") is None
    with RoleLock(tmp_path, "watchdog") as lock:
        lock.tell({"port": 7})
        assert holder(tmp_path, "watchdog") == os.getpid()
        assert json.loads((run_folder(tmp_path) / "watchdog.lock").read_text()) == {"pid": os.getpid(), "port": 7}
        assert holder(tmp_path, "worker-left") is None
    assert holder(tmp_path, "watchdog") is None


def test_a_second_one_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        assert holder(tmp_path, "watchdog") == other.pid
        with pytest.raises(DataFolderBusy, match=f"process {other.pid} is the watchdog"):
            RoleLock(tmp_path, "watchdog")
        other.kill()
        other.wait()
    RoleLock(tmp_path, "watchdog").release()


def test_the_run_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_role_that_was_let_go_is_free_while_a_child_that_just_begins_has_a_copy(tmp_path: Path) -> None:
    """A child has all descriptors of its parent from its birth until its program is loaded, which may take long."""
    lock = RoleLock(tmp_path, "watchdog")
    copy = os.dup(lock._descriptor)
    try:
        lock.release()
        RoleLock(tmp_path, "watchdog").release()
    finally:
        os.close(copy)
