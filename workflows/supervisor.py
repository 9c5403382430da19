"""The processes of a served installation: started, adopted where they live, started again when they die, stopped.

Each excludes a second of its kind by its role's lock (`roles`), has a session of its own, and outlives whoever started
it; so a new `serve` finds what a killed one left. Neighbour: `serve`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from orchestrator.settings import Settings
from workflows.roles import holder

LOG_FOLDER: Final = "logs"
COMMAND = ("-m", "workflows.cli")  # what Python runs to be `stempilot`
_LIVED_LONG_S, _LONGEST_WAIT_S = 10.0, 30.0
_LOG_BYTES: Final = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One process: its role, the arguments of `stempilot` that make it, what it is for, and in which turn it ends."""

    name: str
    arguments: tuple[str, ...]
    purpose: str
    ends: int


def roles_of(settings: Settings, instruments: Sequence[str], *, with_prefect: bool, with_workers: bool) -> list[Role]:
    """Everything that belongs to an installation which serves these instruments, in the order of starting."""
    watchdog = Role(name="watchdog", arguments=("watchdog",), purpose="blanks a beam whose worker is lost", ends=1)
    hosts = [
        Role(
            name=f"instrument-{name}",
            arguments=("instrument-host", name),
            purpose=f"the instrument {name} ({settings.instrument(name).adapter})",
            ends=1,
        )
        for name in instruments
    ]
    prefect = Role(name="prefect", arguments=("prefect-server",), purpose="Prefect's server, shows runs", ends=2)
    scheduler = Role(name="scheduler", arguments=("scheduler",), purpose="submits what schedules make due", ends=0)
    workers = [
        Role(
            name=f"worker-{name}",
            arguments=("worker", "--instrument", name, *([] if settings.serve.prefect else ["--no-prefect"])),
            purpose=f"runs what waits for {name}",
            ends=0,
        )
        for name in instruments
    ]
    telling = [*([prefect] if with_prefect else []), *([scheduler] if settings.serve.prefect else [])]
    return [watchdog, *hosts, *telling, *(workers if with_workers else [])]


@dataclass
class Child:
    """A role and the process that has it now, ours or adopted; `pid` None while there is none."""

    role: Role
    pid: int | None = None
    process: subprocess.Popen[bytes] | None = None
    adopted: psutil.Process | None = None
    started_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0


@dataclass
class Supervisor:
    """Keeps every role filled while `look` is called now and then; `say` hears of every change."""

    settings: Settings
    roles: list[Role]
    say: Callable[[str], None]
    settings_file: Path | None = None
    children: list[Child] = field(default_factory=list[Child])

    def __post_init__(self) -> None:
        self.children = [Child(role) for role in self.roles]

    def look(self) -> None:
        """Once: notice who died or appeared, start who is missing."""
        for child in self.children:
            self._notice_end(child)
            if child.pid is None and not self._adopt(child) and time.monotonic() >= child.not_before_s:
                self._start(child)

    def _notice_end(self, child: Child) -> None:
        if child.pid is None:
            return
        status = child.process.poll() if child.process is not None else None
        is_gone = status is not None if child.process is not None else holder(self._folder, child.role.name) is None
        if not is_gone:
            return
        lived_s = time.monotonic() - child.started_s
        child.failures = 0 if lived_s > _LIVED_LONG_S else child.failures + 1
        wait_s = min(2.0 ** (child.failures - 1), _LONGEST_WAIT_S) if child.failures > 1 else 0.0
        child.not_before_s = time.monotonic() + wait_s
        how = "is gone" if status is None else f"ended with status {status}"
        log = self._log_path(child.role)
        self.say(f"{child.role.name} (process {child.pid}) {how}; starting it again{_after(wait_s)}; see {log}")
        child.pid, child.process = None, None

    def _adopt(self, child: Child) -> bool:
        pid = holder(self._folder, child.role.name)
        if pid is None:
            return False
        try:
            child.adopted = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return False
        child.pid, child.process, child.started_s = pid, None, time.monotonic()
        self.say(f"{child.role.name}: process {pid} was running already and is kept")
        return True

    def _start(self, child: Child) -> None:
        command = [sys.executable, *COMMAND, *child.role.arguments, "--data", str(self._folder)]
        if self.settings_file is not None:
            command += ["--settings", str(self.settings_file)]
        with self._log_path(child.role).open("ab") as log:
            child.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        child.pid, child.started_s = child.process.pid, time.monotonic()

    def _log_path(self, role: Role) -> Path:
        """Where a process writes what it says; a long one is put aside, one generation."""
        folder = self._folder / LOG_FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"{role.name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path

    @property
    def _folder(self) -> Path:
        return self.settings.data_folder

    def stop(self, hurry: Callable[[], bool], patience_s: float) -> None:
        """End every process in turn: workers finish their frame, then instruments blank, then the rest.

        Whoever does not end within `patience_s`, or when `hurry` says so, is killed.
        """
        for child in self.children:
            if child.pid is None:
                self._adopt(child)
        for turn in sorted({role.ends for role in self.roles}):
            living = [child for child in self.children if child.role.ends == turn and child.pid is not None]
            for child in living:
                _signal(child, signal.SIGTERM)
            self._wait(living, hurry, patience_s)
            for child in living:
                if self._is_alive(child):
                    self.say(f"{child.role.name} (process {child.pid}) does not end: killed")
                    _signal(child, signal.SIGKILL)
            self._wait(living, lambda: False, patience_s)

    def _wait(self, living: list[Child], hurry: Callable[[], bool], patience_s: float) -> None:
        until_s, told = time.monotonic() + patience_s, time.monotonic() + 2.0
        while (left := [child for child in living if self._is_alive(child)]) and time.monotonic() < until_s:
            if hurry():
                return
            if time.monotonic() > told:
                names = ", ".join(child.role.name for child in left)
                self.say(f"waiting for {names} to end (Ctrl-C again does not wait)")
                told = until_s
            time.sleep(0.05)

    def _is_alive(self, child: Child) -> bool:
        if child.process is not None:
            return child.process.poll() is None
        return child.adopted is not None and _runs(child.adopted)  # its lock goes a moment before it does


def _runs(process: psutil.Process) -> bool:
    """Whether it is still that process, and more than a name that nobody has struck off yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(child: Child, number: signal.Signals) -> None:
    if child.pid is not None:
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            return


def _after(wait_s: float) -> str:
    return f" in {wait_s:.0f} s" if wait_s else ""
