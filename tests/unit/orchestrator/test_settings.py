"""Settings: which folder, which instruments, every fault with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import NotFound, SpecError
from orchestrator.settings import FILE_NAME, InstrumentSettings, Settings

TOML = """
database_url = "postgresql://server/base"

[instruments.titan]
adapter = "temscript"
config = { host = "scope.local", port = 8080 }
[instruments.titan.safety]
max_dose_e_per_a2 = 2.0e5
max_current_pa = 200.0

[instruments.simulated]
config = { drift_nm_per_s = 0.02 }
"""


def test_without_a_file_there_are_the_built_in_instruments(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, environment={})
    assert settings.data_folder == tmp_path.resolve()
    assert settings.database_url is None
    assert settings.instruments == {
        "simulated": InstrumentSettings(adapter="simulated"),
        "replay": InstrumentSettings(adapter="replay"),
    }


def test_the_folder_comes_from_the_option_then_the_environment_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"STEMPILOT_DATA": str(tmp_path / "environment")}
    assert Settings.load(tmp_path / "option", environment=environment).data_folder == tmp_path / "option"
    assert Settings.load(environment=environment).data_folder == tmp_path / "environment"
    assert Settings.load(environment={}).data_folder == tmp_path / "stempilot-data"
    assert Settings.load(environment={"STEMPILOT_DATA": ""}).data_folder == tmp_path / "stempilot-data"


def test_the_file_of_the_data_folder_or_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text(TOML)
    for settings in (
        Settings.load(tmp_path, environment={}),
        Settings.load(tmp_path / "other", tmp_path / "stempilot.toml", {}),
    ):
        titan = settings.instrument("titan")
        assert (titan.adapter, titan.config) == ("temscript", {"host": "scope.local", "port": 8080})
        assert titan.safety.max_dose_e_per_a2 == 2.0e5
        assert settings.instrument("simulated").adapter == "simulated"
        assert settings.instrument("simulated").config == {"drift_nm_per_s": 0.02}
        assert settings.instrument("replay").adapter == "replay"
        assert settings.database_url == "postgresql://server/base"
    changed = Settings.load(tmp_path, environment={"STEMPILOT_DATABASE_URL": "postgresql://other/base"})
    assert changed.database_url == "postgresql://other/base"


SAFETY = "[instruments.replay.safety]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color = 1", r"color: unknown key"),
        ("[instruments.titan]\nconfig = {}", r"instruments\.titan\.adapter: missing"),
        ("[instruments.titan]\nadapter = 'x'\nsaftey = {}", r"instruments\.titan\.saftey: unknown key"),
        (
            "[instruments.titan]\nadapter = 'x'\n[instruments.titan.safety]\nmax_current_pa = -3.0",
            r"instruments\.titan\.safety\.max_current_pa: .*-3\.0 pA.*> 0",
        ),
        (
            "[instruments.titan]\nadapter = 'x'\n[instruments.titan.safety]\nmax_dose = 3",
            r"safety\.max_dose: unknown key",
        ),
        (f"{SAFETY}max_curent_pa = 100", r"safety\.max_curent_pa: unknown key; did you mean 'max_current_pa'\?"),
        (f"{SAFETY}max_stage_x_um = 10", r"safety\.max_stage_x_um: unknown key; did you mean 'max_stage_x_nm'\?"),
        (f"{SAFETY}axes.x_nm = {{ max = 3 }}", r"axes\.x_nm\.max: unknown key; did you mean 'maximum'\?"),
        (
            f"{SAFETY}pole_piece = [{{ max_alfa_deg = 3 }}]",
            r"max_alfa_deg: unknown key; did you mean 'max_alpha_d",
        ),
        (
            "[instruments.replay]\nmax_current_pa = 3",
            r"max_current_pa: unknown key here; it is a key of safety",
        ),
        (f"{SAFETY}max_current_pa = '100 pA'", r"must be a number of pA, without its unit \(got '100 pA'\)"),
        (f"{SAFETY}max_exposure_s = nan", r"max_exposure_s: must be a finite number of s \(got nan\)"),
        (f"{SAFETY}permissions = 'valves'", r"permissions: must be a list, such as \[\.\.\.\] \(got 'valves'\)"),
        ("[instruments]\nreplay = 3", r"instruments\.replay: must be a section of keys \(got 3\)"),
        ("instruments = 3", r"instruments: must be a section of keys"),
        ("data_folder = 'x'", r"data_folder: not a setting of the file; give --data"),
        ("[instruments", r"not valid TOML"),
    ],
)
def test_a_fault_is_named_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "stempilot.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as error:
        Settings.load(tmp_path, environment={})
    assert str(path) in str(error.value)
    assert error.value.exit_status == 2


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("lease_s = 7.0\n", encoding="utf-8-sig")
    assert (tmp_path / FILE_NAME).read_bytes().startswith(b"\xef\xbb\xbf")
    assert Settings.load(tmp_path, environment={}).lease_s == 7.0


def test_tickets_and_records_lie_beside_the_file_wherever_a_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, site, elsewhere = (tmp_path / name for name in ("home", "site", "elsewhere"))
    for folder in (home, site, elsewhere):
        folder.mkdir()
    (site / "lab.toml").write_text(
        """[instruments.near]
adapter = "gateway"
config = { ticket = "tickets/near.ticket" }
[instruments.mine]
adapter = "gateway"
config = { ticket = "~/mine.ticket" }
[instruments.far]
adapter = "pyjem"
config = { device_server = { host = "127.0.0.1", port = 7110, ticket = "far.ticket" } }
[instruments.there]
adapter = "replay"
config = { file = "map.dm4" }
[instruments.where]
adapter = "replay"
config = { file = "elsewhere.dm4" }
""",
        encoding="utf-8",
    )
    (site / "map.dm4").touch()
    monkeypatch.setenv("HOME", str(home))
    for folder, named in ((elsewhere, site / "lab.toml"), (site, Path("lab.toml"))):
        monkeypatch.chdir(folder)
        configs = {name: one.config for name, one in Settings.load(tmp_path, named, {}).instruments.items()}
        assert configs["near"] == {"ticket": str(site / "tickets" / "near.ticket")}
        assert configs["mine"] == {"ticket": str(home / "mine.ticket")}
        assert configs["far"]["device_server"]["ticket"] == str(site / "far.ticket")
        assert configs["far"]["device_server"]["port"] == 7110
        assert configs["there"] == {"file": str(site / "map.dm4")}
        assert configs["where"] == {"file": "elsewhere.dm4"}, "not there: as it was written"


def test_every_fault_at_once(tmp_path: Path) -> None:
    (tmp_path / "stempilot.toml").write_text("color = 1\n[instruments.a]\n[instruments.b]\nadapter = ''")
    with pytest.raises(SpecError, match=r"3 fault\(s\)"):
        Settings.load(tmp_path, environment={})


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        Settings.load(tmp_path, tmp_path / "missing.toml", {})


def test_an_instrument_nobody_configured(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there are replay, simulated; add \[instruments\.krios\]"):
        Settings.load(tmp_path, environment={}).instrument("krios")
