"""The facility's signature: what was changed is refused, what is as signed is taken, and nobody signs by accident."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import signature
from orchestrator.errors import NotFound, Refused, SpecError
from orchestrator.settings import Settings, read_document
from orchestrator.signature import Terms, make_keys, public_key_path, sign, signature_path

TEXT = """
lease_s = 5.0

[serve]
port = 9000

[instruments.titan]
adapter = "simulated"

[instruments.titan.safety]
max_current_pa = 100.0
permissions = ["vacuum"]

[[instruments.titan.safety.pole_piece]]
max_alpha_deg = 30.0
min_x_nm = -1000.0

[[instruments.titan.calibrations]]
id = "c1"
quantity = "probe_current_pa"
values = { gain = 1.0 }
uncertainties = { gain = 0.02 }
standard = "Faraday cup"
measured_at = 2026-03-01T12:00:00Z
"""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(signature, "PUBLIC_KEY_PATH", tmp_path / "etc" / "facility.pub")
    return make_keys(tmp_path / "keys")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stempilot.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def signed(file: Path, keys: tuple[Path, Path]) -> Path:
    sign(file, read_document(file, must_exist=True), keys[0], Terms(by="anna"))
    return signature_path(file)


def load(file: Path, public: Path) -> Settings:
    return Settings.load(file.parent, file, {"STEMPILOT_FACILITY_KEY": str(public)})


def test_what_is_as_it_was_signed_is_taken(file: Path, keys: tuple[Path, Path]) -> None:
    signed(file, keys)
    titan = load(file, keys[1]).instrument("titan")
    assert titan.safety.max_current_pa == 100
    assert [one.id for one in titan.calibrations] == ["c1"]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(file, keys[1]).instrument("titan") == titan, "a mark at the beginning of the file changes nothing"


@pytest.mark.parametrize(
    "change",
    [
        ("max_current_pa = 100.0", "max_current_pa = 100.1"),
        ('permissions = ["vacuum"]', 'permissions = ["vacuum", "valves"]'),
        ("min_x_nm = -1000.0", ""),
        ('adapter = "simulated"', 'adapter = "replay"'),
        ("gain = 1.0", "gain = 1.1"),
        ("[instruments.titan]", "[instruments.other]\nadapter = 'simulated'\n[instruments.titan]"),
        ("2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z"),
        ("lease_s = 5.0\n", "lease_s = 600.0\n"),
        ("lease_s = 5.0\n", ""),
    ],
)
def test_any_change_of_an_instrument_is_refused(file: Path, keys: tuple[Path, Path], change: tuple[str, str]) -> None:
    signed(file, keys)
    changed = TEXT.replace(*change)
    assert changed != TEXT
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(Refused, match=r"not as the facility signed them \(anna, "):
        load(file, keys[1])


def test_spelling_and_what_is_no_instrument_may_change(file: Path, keys: tuple[Path, Path]) -> None:
    signed(file, keys)
    file.write_text("# a comment\n" + TEXT.replace("port = 9000", "port = 9001").replace("100.0", "1e2"), "utf-8")
    assert load(file, keys[1]).serve.port == 9001


def test_an_unsigned_file_another_key_and_a_forged_name_are_refused(
    file: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="is not signed"):
        load(file, keys[1])
    path = signed(file, keys)
    _, other = make_keys(tmp_path / "other")
    with pytest.raises(Refused, match="not with the key of"):
        load(file, other)
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"signed_by": "the director"}), encoding="utf-8")
    with pytest.raises(Refused, match="not as the facility signed"):
        load(file, keys[1])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="is no signature"):
        load(file, keys[1])
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(Refused, match="is no signature"):
        load(file, keys[1])


def test_without_instruments_there_is_nothing_to_sign(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    settings = Settings.load(tmp_path, None, {"STEMPILOT_FACILITY_KEY": str(keys[1])})
    assert set(settings.instruments) == {"simulated", "replay"}


def test_the_computers_key_goes_before_that_of_the_environment(file: Path, keys: tuple[Path, Path]) -> None:
    assert public_key_path({}) is None
    assert Settings.load(file.parent, file, {}).instrument("titan").adapter == "simulated"
    signature.PUBLIC_KEY_PATH.parent.mkdir()
    signature.PUBLIC_KEY_PATH.write_bytes(keys[1].read_bytes())
    with pytest.raises(Refused, match="is not signed"):
        Settings.load(file.parent, file, {"STEMPILOT_FACILITY_KEY": "/nowhere"})


def test_keys_are_private_and_never_overwritten(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    assert keys[0].stat().st_mode & 0o077 == 0
    before = keys[0].read_bytes()
    with pytest.raises(Refused, match="there already"):
        make_keys(tmp_path / "keys")
    assert keys[0].read_bytes() == before


def test_what_is_no_key_is_said(file: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    document = read_document(file, must_exist=True)
    with pytest.raises(NotFound, match="there is no key"):
        sign(file, document, tmp_path / "none", Terms(by="anna"))
    with pytest.raises(SpecError, match="no private key in PEM"):
        sign(file, document, keys[1], Terms(by="anna"))
    signed(file, keys)
    for wrong in (tmp_path / "none", keys[0]):
        with pytest.raises(SpecError, match="public key"):
            load(file, wrong)


def test_calibration_ids_are_used_once(file: Path) -> None:
    again = TEXT[TEXT.index("[[instruments.titan.calibrations]]") :]
    file.write_text(TEXT + again, encoding="utf-8")
    with pytest.raises(SpecError, match="calibration ids used twice: c1"):
        Settings.load(file.parent, file, {})


def test_the_command_line_makes_signs_and_checks(
    file: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workflows.cli.app import app
    from workflows.cli.safety_commands import safety

    assert safety.info.help
    run = CliRunner().invoke
    made = tmp_path / "made"
    assert "facility.pub" in run(app, ["safety", "keygen", "--to", str(made)]).output
    done = run(app, ["safety", "sign", str(file), "--key", str(made / "facility.key"), "--by", "anna"])
    assert (done.exit_code, "signed 1 instrument(s)" in done.output) == (0, True)
    monkeypatch.setenv("STEMPILOT_FACILITY_KEY", str(made / "facility.pub"))
    checked = run(app, ["safety", "check", "--settings", str(file)])
    assert re.search(r"signed by anna at 20\d\d-.* unchanged", checked.output)
    signature_path(file).unlink()
    assert run(app, ["safety", "check", "--settings", str(file)]).exit_code == 3
