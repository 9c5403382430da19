"""The processes of compose.yaml started by hand on loopback, and one experiment from the API to its report.

`python -m deploy.smoke_deploy` (`make smoke-deploy`) does it with a throw-away PostgreSQL and ends everything. Commands
and variables are read from compose.yaml; only addresses, ports and folders are replaced by those of this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.client import Client
from orchestrator.errors import OrchestratorError, Unreachable
from orchestrator.spec import ExperimentSpec
from workflows.prefect_server import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent
SPEC = ROOT / "tests" / "integration" / "specs" / "small_raster.yaml"
NOT_OURS = ("pod", "postgres")
DEADLINE_S = 600.0


class SmokeFault(Exception):
    """Something of the deployment did not do what it should; the message says what, and what the process said."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What stands on this machine for the names, ports and folders that compose.yaml gives."""

    data: Path
    prefect_home: Path
    database_url: str
    api_port: int
    prefect_port: int

    def argument(self, text: str) -> str:
        """One word of a command."""
        return {
            "0.0.0.0": "127.0.0.1",
            "8765": str(self.api_port),
            "4200": str(self.prefect_port),
            "/etc/stempilot/stempilot.toml": str(HERE / "settings.example.toml"),
        }.get(text, text)

    def variable(self, name: str, text: str) -> str:
        """The value of one variable."""
        return {
            "STEMPILOT_DATA": str(self.data),
            "STEMPILOT_DATABASE_URL": self.database_url,
            "STEMPILOT_PREFECT_URL": f"http://127.0.0.1:{self.prefect_port}/api",
            "PREFECT_HOME": str(self.prefect_home),
        }.get(name, text)


@dataclass(frozen=True)
class Service:
    """One service of compose.yaml that is a process of ours: its words, its variables, what it waits for."""

    name: str
    words: tuple[str, ...]
    variables: Mapping[str, str]
    after: tuple[str, ...]


def compose() -> dict[str, Any]:
    """compose.yaml as a document, merged."""
    return yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8"))


def services() -> list[Service]:
    """Every process of ours, each behind those it depends on."""
    found = [
        Service(
            name,
            (*section.get("entrypoint", ["stempilot"]), *section["command"]),
            section.get("environment", {}),
            tuple(other for other in section.get("depends_on", {}) if other not in NOT_OURS),
        )
        for name, section in compose()["services"].items()
        if name not in NOT_OURS
    ]
    ordered: list[Service] = []
    while found:
        ready = [service for service in found if set(service.after) <= {other.name for other in ordered}]
        ordered += ready
        found = [service for service in found if service not in ready]
    return ordered


@dataclass
class Installation:
    """The processes, started. `wrap` goes before every command (a tracer, say); its last word gets the name behind."""

    place: Place
    wrap: Sequence[str] = ()
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])

    def environment(self, service: Service) -> dict[str, str]:
        """What a container would see, and of this machine only what a program cannot do without."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("STEMPILOT_", "PREFECT_"))}
        return {**ours, **{name: self.place.variable(name, text) for name, text in service.variables.items()}}

    def start(self, service: Service) -> None:
        """Start one; what it says goes to a log beside the data."""
        program, *rest = [self.place.argument(word) for word in service.words]
        wrap = [*self.wrap[:-1], f"{self.wrap[-1]}.{service.name}"] if self.wrap else []
        command = [*wrap, str(Path(sys.executable).parent / program), *rest]
        with self.log(service.name).open("ab") as log:
            self.processes[service.name] = subprocess.Popen(
                command, env=self.environment(service), cwd=self.place.data, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        """Where a process writes what it says."""
        return self.place.data / f"{name}.log"

    def stop(self) -> dict[str, int]:
        """SIGTERM to each, those that depend on others first; exit status by name. Kills what does not end."""
        statuses: dict[str, int] = {}
        for name, process in reversed(self.processes.items()):
            _signal(process, signal.SIGTERM)
            try:
                statuses[name] = process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                statuses[name] = process.wait()
        return statuses

    def dead(self) -> str:
        """Words about the first process that ended by itself, or nothing."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                said = self.log(name).read_text(errors="replace")[-3000:]
                return f"{name} ended with status {process.returncode}:\n{said}"
        return ""

    def faults(self, statuses: Mapping[str, int]) -> dict[str, int]:
        """Those that did not end in order; of a program that is not ours, to die of SIGTERM is in order too."""
        ours = {service.name for service in services() if service.words[0] == "stempilot"}
        allowed = {True: (0,), False: (0, -signal.SIGTERM, 128 + signal.SIGTERM)}
        return {name: status for name, status in statuses.items() if status not in allowed[name in ours]}

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """What `condition` gives once it is true. Raises SmokeFault when a process ends, or after ten minutes."""
        end_s, trouble = time.monotonic() + DEADLINE_S, ""
        while time.monotonic() < end_s:
            try:
                if found := condition():
                    return found
            except OrchestratorError as error:
                trouble = f"; {error}"
            if dead := self.dead():
                raise SmokeFault(f"while waiting for {what}: {dead}")
            time.sleep(0.1)
        raise SmokeFault(f"waited {DEADLINE_S:.0f} s in vain for {what}{trouble}")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole session, for a tracer passes nothing on."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@contextmanager
def installed(place: Place, wrap: Sequence[str] = ()) -> Iterator[Installation]:
    """Every process started and, whatever happens, ended. Raises SmokeFault where one does not end with status 0."""
    installation = Installation(place, wrap)
    try:
        for service in services():
            installation.start(service)
        yield installation
        statuses = installation.stop()
    except BaseException:
        installation.stop()
        raise
    if faults := installation.faults(statuses):
        raise SmokeFault(f"processes ended with status {faults}")


def first_token(installation: Installation) -> str:
    """A token of an administrator, made as the documentation says."""
    api = next(service for service in services() if service.name == "api")
    made = subprocess.run(
        [Path(sys.executable).parent / "stempilot", "token", "smoke", "--scope", "admin"],
        env=installation.environment(api), capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    if made.returncode:
        raise SmokeFault(f"stempilot token: {made.stderr}")
    return made.stdout.strip()


def drive(installation: Installation, say: Callable[[str], None]) -> dict[str, Any]:
    """One small experiment through the API alone: submitted, followed, its frames and report fetched. Its document."""
    place = installation.place
    url = f"http://127.0.0.1:{place.api_port}"
    with Client(url) as nobody:
        installation.until(lambda: _answers(nobody), "the API")
    say(f"API answers at {url}")
    with Client(url, first_token(installation)) as client:
        installation.until(lambda: (place.data / "run" / "instrument-simulated.json").exists(), "the instrument")
        spec = ExperimentSpec.from_yaml(SPEC, {"budget.frames": 3})
        entry = client.submit(spec, seed=5, baselines=False)
        say(f"submitted {entry['id']}: {entry['status']}")
        installation.until(lambda: client.status(entry["id"])["status"] not in ("queued", "running"), "its end")
        document = client.experiment(entry["id"])
        say(f"{document['status']}: {document['reason']}")
        frames = client.frames(entry["id"])
        if document["status"] != "completed" or len(frames) != 3:
            raise SmokeFault(
                f"{document['status']} with {len(frames)} frames instead of completed with 3: {document['reason']}"
            )
        if client.frame_array(entry["id"], frames[0]["id"]).sum() <= 0:
            raise SmokeFault("the first frame holds no counts")
        page = installation.until(lambda: client.report(entry["id"]), "the report")
        if entry["id"] not in page or "<html" not in page:
            raise SmokeFault("the report is not the experiment's")
        say(f"report of {len(page) / 1e6:.1f} MB, {len(frames)} frames")
    if (place.data / "catalogue.sqlite").exists():
        raise SmokeFault("the catalogue is in SQLite, not in PostgreSQL")
    return document


def _answers(client: Client) -> bool:
    try:
        return bool(client.version())
    except Unreachable:
        return False


def main() -> None:
    """The whole of it, with a throw-away PostgreSQL."""
    from tests.postgresql import new_database, programs_folder, throw_away_server

    programs = programs_folder()
    if programs is None:
        sys.exit("smoke-deploy needs the programs of PostgreSQL (initdb, postgres); on Debian: apt install postgresql")
    started_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started_s:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="stempilot-smoke-") as name, throw_away_server(programs) as server:
        say("PostgreSQL runs")
        with new_database(server) as database_url:
            folder = Path(name)
            place = Place(
                data=folder / "data", prefect_home=folder / "prefect", database_url=database_url,
                api_port=free_port(), prefect_port=free_port(),
            )  # fmt: skip
            place.data.mkdir()
            with installed(place) as installation:
                say(f"started {', '.join(installation.processes)}")
                drive(installation, say)
            say("every process ended in order")


if __name__ == "__main__":
    try:
        main()
    except SmokeFault as fault:
        sys.exit(f"smoke-deploy: {fault}")
