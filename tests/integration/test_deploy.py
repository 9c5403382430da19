"""What stands in deploy/ and its page: checked by its own tools, and against the code that it starts."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_settings_fields
from typer.core import TyperGroup

from deploy.smoke_deploy import compose, services
from orchestrator.api.route import PREFIX
from orchestrator.api.service_routes import router as service_routes
from orchestrator.settings import BUILT_IN, ServeSettings, Settings
from workflows.cli.commands import app
from workflows.roles import RUN_FOLDER
from workflows.supervisor import roles_of

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.gpu"]
UNITS = sorted((DEPLOY / "systemd").glob("*.*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
PAGE = ROOT / "docs" / "deployment.md"
TOOLS = Path(sys.executable).parent
# Variables of compose.yaml itself, which it takes from .env: no program of ours reads them.
OF_COMPOSE = {"STEMPILOT_TORCH", "STEMPILOT_SETTINGS"}
OF_BACKUP = {"STEMPILOT_PYTHON"}
UsageError = typer.BadParameter.__bases__[0]  # typer carries its own click, and names only this one of its errors


def ran(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)


def texts() -> dict[str, str]:
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".py")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in [*files, PAGE]}


# --- their own checkers


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    found = ran(TOOLS / "hadolint", "--no-color", path)
    assert (found.returncode, found.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /x\n")
    assert "DL3007" in ran(TOOLS / "hadolint", "--no-color", tmp_path / "Dockerfile").stdout


def test_compose_file_follows_the_specification(tmp_path: Path) -> None:
    check = (TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    found = ran(*check, DEPLOY / "compose.yaml")
    assert found.returncode == 0, found.stdout
    planted = compose()
    planted["services"]["worker"]["comand"] = ["worker"]
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(planted), encoding="utf-8")
    assert ran(*check, tmp_path / "compose.yaml").returncode != 0


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with programs that exist here, templates with an instance beside them."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/stempilot/bin", str(TOOLS))
        text = text.replace("/opt/stempilot/deploy", str(DEPLOY))
        (folder / unit.name.replace("@.", "@simulated.")).write_text(text, encoding="utf-8")
        (folder / unit.name).write_text(text, encoding="utf-8")
    return folder


def verified(folder: Path) -> subprocess.CompletedProcess[str]:
    files = [path for path in folder.iterdir() if path.suffix in (".service", ".target", ".timer")]
    return ran("systemd-analyze", "verify", "--man=no", *sorted(files))


def test_systemd_understands_every_unit(units: Path, tmp_path: Path) -> None:
    found = verified(units)
    assert (found.returncode, found.stderr) == (0, "")
    shutil.copytree(units, tmp_path / "units")
    unit = tmp_path / "units" / "stempilot-watchdog.service"
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=allways"), encoding="utf-8")
    assert "allways" in verified(tmp_path / "units").stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_units_may_do_little(units: Path, unit: Path) -> None:
    """2.0 of 10 at most, where a bare unit has 9.4."""
    found = ran("systemd-analyze", "security", "--offline=true", "--threshold=20", units / unit.name)
    assert found.returncode == 0, found.stdout[-400:]


# --- commands


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(where, words behind `stempilot`) of every command of ours, in files and page."""
    for service in services():
        if service.words[0] == "stempilot":
            yield f"compose.yaml, {service.name}", list(service.words[1:])
    for path in DOCKERFILES:
        (words,) = re.findall(r"^CMD (\[.*\])$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        yield path.name, json.loads(words)
    for unit in SERVICES:
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
        program, *words = shlex.split(line.replace("%i", "simulated"))
        if Path(program).name == "stempilot":
            yield unit.name, words
    yield from ((f"deployment.md: {words}", shlex.split(words)) for words in page_commands())


def page_commands() -> list[str]:
    """What stands behind `stempilot` in the page's lines of shell, where the line runs the program itself."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.search(r"(?:^|/bin/|exec api )stempilot (.*?)(?:\s+#.*)?$", line) for line in lines]
    return [match[1] for match in found if match]


def parsed(words: list[str]) -> str | None:
    """None where the program would take these words, else what it would complain of."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="stempilot")
    try:
        while isinstance(command, TyperGroup):
            name, command, words = command.resolve_command(context, list(words))
            context = command.make_context(name, list(words), parent=context)
            words = [*context.protected_args, *context.args] if isinstance(command, TyperGroup) else []
    except UsageError as error:
        return error.format_message()
    return None


def test_every_command_is_one_the_program_takes() -> None:
    lines = list(command_lines())
    assert len(lines) >= 15
    assert {where.split(":")[0] for where, _ in lines} >= {"Dockerfile", "deployment.md", "stempilot-api.service"}
    assert {where: complaint for where, words in lines if (complaint := parsed(words))} == {}


@pytest.mark.parametrize(
    "words",
    [["serv"], ["serve", "--hosts", "x"], ["serve", "--port", "many"], ["worker"], ["watchdog", "--instrument", "x"]],
)
def test_a_wrong_command_would_be_noticed(words: list[str]) -> None:
    assert parsed(words)


def test_every_role_of_an_installation_is_started() -> None:
    """Whatever `serve` would start, compose and systemd start too, `serve` itself without them."""
    settings = Settings.load(Path("nowhere"), DEPLOY / "settings.example.toml", environment={})
    needed = {role.arguments for role in roles_of(settings, ["simulated"], with_prefect=True, with_workers=True)}
    by_systemd = {tuple(words[: words.index("--settings")]) for where, words in command_lines() if "service" in where}
    assert needed | {("serve", "--alone")} == by_systemd
    by_compose = {
        service.words[1 : service.words.index("--settings")]
        for service in services()
        if service.words[0] == "stempilot"
    }
    here = {words for words in by_compose if words[0] != "serve"}
    assert here == needed - {("prefect-server",)}
    assert [words[:2] for words in by_compose - here] == [("serve", "--alone")]


# --- variables, ports, paths, files


def known_variables() -> set[str]:
    """The variables that some module of ours names in a constant."""
    modules = [import_module(name) for name in ("orchestrator.settings", "orchestrator.client", "workflows.desk")]
    return {value for module in modules for name, value in vars(module).items() if name.endswith("_VARIABLE")}


def test_every_variable_is_read_by_something() -> None:
    named = {name for text in texts().values() for name in re.findall(r"\bSTEMPILOT_[A-Z_]+\b", text)}
    assert named >= {"STEMPILOT_DATA", "STEMPILOT_DATABASE_URL", "STEMPILOT_PREFECT_URL"}
    assert named - known_variables() == OF_COMPOSE | OF_BACKUP
    of_prefect = set(_get_settings_fields(PrefectSettings))
    used = {name for text in texts().values() for name in re.findall(r"\bPREFECT_[A-Z_]+\b", text)}
    assert used
    assert used <= of_prefect
    given = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    offered = set(
        re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert given == offered == OF_COMPOSE | {"POSTGRES_PASSWORD"}


def test_ports_agree() -> None:
    port = str(ServeSettings().port)
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^EXPOSE (\d+)$", text, flags=re.MULTILINE) == [port]
        assert f"http://127.0.0.1:{port}{PREFIX}/health" in text
    parts = compose()["services"]
    assert parts["pod"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert parts["api"]["command"][parts["api"]["command"].index("--port") + 1] == port
    prefect = parts["prefect"]["command"]
    prefect_port = prefect[prefect.index("--port") + 1]
    assert parts["worker"]["environment"]["STEMPILOT_PREFECT_URL"] == f"http://prefect:{prefect_port}/api"
    assert f"http://127.0.0.1:{prefect_port}/api/health" in parts["prefect"]["healthcheck"]["test"][-1]


def test_health_path_is_served() -> None:
    assert f"{PREFIX}/health" in {route.path for route in service_routes.routes}


def test_health_checks_look_at_locks_that_are_held() -> None:
    found = {
        name: Path(match[1])
        for name, section in compose()["services"].items()
        if (match := re.search(r"--shared (\S+) ", " ".join(map(str, section.get("healthcheck", {}).get("test", [])))))
    }
    assert {name: path.stem for name, path in found.items()} == {
        "instrument": "instrument-simulated", "watchdog": "watchdog", "worker": "worker-simulated",
        "scheduler": "scheduler",
    }  # fmt: skip
    assert {str(path.parent) for path in found.values()} == {f"/data/{RUN_FOLDER}"}


def test_only_the_api_is_published_and_nobody_is_root() -> None:
    parts = compose()["services"]
    assert [name for name, section in parts.items() if "ports" in section] == ["pod"]
    assert compose()["networks"]["inside"] == {"internal": True}
    for name in set(parts) - {"pod", "postgres", "prefect"}:
        assert parts[name]["network_mode"] == parts[name]["pid"] == "service:pod"
    for name in set(parts) - {"postgres"}:
        assert parts[name]["read_only"]
        assert parts[name]["cap_drop"] == ["ALL"]
    for path in DOCKERFILES:
        users = re.findall(r"^USER (\S+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert users == ["10001:10001"]
    for unit in SERVICES:
        assert "\nUser=stempilot\n" in unit.read_text(encoding="utf-8")


def test_files_that_are_named_exist() -> None:
    for path in DOCKERFILES:
        ignored = (path.parent / f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            for name in line.split():
                assert (ROOT / name).exists(), f"{path.name} copies {name}"
                assert f"!{name}" in ignored
    member = compose()["services"]["api"]
    assert (DEPLOY / member["build"]["context"] / member["build"]["dockerfile"]).is_file()
    (settings,) = [volume for volume in member["volumes"] if "SETTINGS" in volume]
    assert (DEPLOY / re.findall(r":-([^}]+)\}", settings)[0]).is_file()
    for name in re.findall(r"\bdeploy/[\w./@-]*\w", PAGE.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"deployment.md names {name}"


def test_folders_of_volumes_belong_to_the_user_of_the_image() -> None:
    """A volume takes owner and mode from the folder in the image; without one it would be root's."""
    ours = {name: part for name, part in compose()["services"].items() if part["image"].startswith("stempilot")}
    places = {volume.split(":")[1] for part in ours.values() for volume in part.get("volumes", []) if "$" not in volume}
    for path in DOCKERFILES:
        (made,) = re.findall(
            r"install -d -o stempilot -g stempilot -m 0700 (.*)$", path.read_text(), flags=re.MULTILINE
        )
        assert set(made.split()) == places == {"/data", "/prefect"}


def test_base_images_are_pinned_by_a_full_version() -> None:
    for path in DOCKERFILES:
        for image in re.findall(r"^FROM (\S+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert re.search(r":\d+\.\d+\.\d+-", image), image
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", compose()["services"]["postgres"]["image"])


# --- settings


def test_the_settings_to_start_from_load(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, DEPLOY / "settings.example.toml", environment={})
    assert settings.served == ["simulated"]
    assert set(settings.instruments) == {*BUILT_IN, "rehearsal"}
    assert settings.instrument("simulated").safety.max_dose_e_per_a2 == 2e4
    assert settings.serve.port == ServeSettings().port


def test_every_key_is_in_the_settings_to_start_from(tmp_path: Path) -> None:
    """And the ones that are commented out load too."""
    text = (DEPLOY / "settings.example.toml").read_text(encoding="utf-8")
    opened = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(opened, encoding="utf-8")
    settings = Settings.load(tmp_path, tmp_path / "all.toml", environment={})
    assert settings.database_url is not None
    keys = set(re.findall(r"^(\w+) = ", opened, flags=re.MULTILINE))
    assert set(ServeSettings.model_fields) <= keys
    assert set(Settings.model_fields) - {"data_folder", "instruments", "serve"} <= keys


# --- the copy


def test_a_copy_holds_the_catalogue_and_every_frame(tmp_path: Path) -> None:
    from orchestrator.catalogue import Catalogue

    data, copy = tmp_path / "data", tmp_path / "copy"
    with Catalogue.open(data) as catalogue:
        own = catalogue.create_experiment(name="copied", spec={}, seed=0, options={}, engine="local")
        (data / "experiments" / own / "frames" / "one.nxs").write_bytes(b"frame")
        made = subprocess.run(
            [DEPLOY / "backup.sh", data, copy], env={"PATH": "/usr/bin:/bin", "STEMPILOT_PYTHON": sys.executable},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (made.returncode, made.stderr) == (0, "")
    with Catalogue.open(copy) as catalogue:
        assert [found.name for found in catalogue.experiments()] == ["copied"]
    assert (copy / "experiments" / own / "frames" / "one.nxs").read_bytes() == b"frame"
