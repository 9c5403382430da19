"""An older signed file is refused once a newer one was in use, and one that expired as the facility set."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import signature
from orchestrator.errors import Refused, SpecError
from orchestrator.settings import Settings, read_document
from orchestrator.signature import Signature, Terms, WhenExpired, make_keys, sign, signature_path
from orchestrator.signature_age import SEEN_NAME, check_age, highest_seen
from workflows.cli.app import app
from workflows.cli.safety_commands import safety

NOW = datetime.now(UTC)


class Facility:
    """Signs the settings file of one data folder; loads it as every program does."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "stempilot.toml"
        self.private, self.public = make_keys(folder / "keys")

    def signs(self, current_pa: float, serial: int | None, valid_until: datetime | None = None) -> tuple[str, str]:
        """Settings and signature as they lie there then: a person may keep copies."""
        text = f"[instruments.titan]\nadapter = 'simulated'\nsafety.max_current_pa = {current_pa}\n"
        self.file.write_text(text, "utf-8")
        document = read_document(self.file, must_exist=True)
        sign(self.file, document, self.private, Terms(by="anna", serial=serial, valid_until=valid_until))
        return text, signature_path(self.file).read_text("utf-8")

    def puts_back(self, copies: tuple[str, str]) -> None:
        self.file.write_text(copies[0], "utf-8")
        signature_path(self.file).write_text(copies[1], "utf-8")

    def loaded_pa(self) -> float | None:
        settings = Settings.load(self.file.parent, None, {"STEMPILOT_FACILITY_KEY": str(self.public)})
        return settings.instrument("titan").safety.max_current_pa


@pytest.fixture
def facility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facility:
    monkeypatch.setattr(signature, "PUBLIC_KEY_PATH", tmp_path / "etc" / "facility.pub")
    return Facility(tmp_path)


def test_an_older_file_is_refused_once_a_newer_one_was_in_use(facility: Facility) -> None:
    uncounted, first = facility.signs(500, None), facility.signs(300, 3)
    facility.puts_back(uncounted)
    assert facility.loaded_pa() == 500, "the facility has never used a serial"
    facility.puts_back(first)
    assert facility.loaded_pa() == 300
    second = facility.signs(100, 7)
    assert facility.loaded_pa() == 100
    facility.puts_back(first)
    with pytest.raises(Refused, match=r"have serial 3, and serial 7 was in use here.*newest signed file back"):
        facility.loaded_pa()
    facility.puts_back(uncounted)
    with pytest.raises(Refused, match=r"have no serial, and serial 7"):
        facility.loaded_pa()
    facility.puts_back(second)
    assert facility.loaded_pa() == 100


def test_a_serial_cannot_be_written_in_by_hand(facility: Facility) -> None:
    old = facility.signs(500, 1)
    facility.signs(100, 2)
    assert facility.loaded_pa() == 100
    forged = Signature.model_validate(json.loads(old[1]) | {"serial": 3})
    facility.puts_back((old[0], forged.model_dump_json()))
    with pytest.raises(Refused, match="not as the facility signed them"):
        facility.loaded_pa()


def test_what_was_seen_is_kept_per_key_and_outlives_a_torn_line(facility: Facility, tmp_path: Path) -> None:
    facility.signs(100, 12)
    facility.loaded_pa()
    seen = tmp_path / SEEN_NAME
    with seen.open("a") as file:
        file.write(f"{seen.read_text().split()[0]} 99")  # cut off: its number may be half of one
    assert highest_seen(tmp_path, facility.public) == 12
    renewed = Facility(tmp_path / "renewed")
    assert highest_seen(tmp_path, renewed.public) == 0
    seen.write_bytes(b"\xff\n")
    with pytest.raises(SpecError, match="nobody knows which settings are the newest"):
        facility.loaded_pa()


def test_the_facility_may_set_the_lowest_serial_where_users_cannot_write(facility: Facility) -> None:
    facility.signs(100, 4)
    lowest = facility.public.with_name("facility.serial")
    lowest.write_text("5\n")
    with pytest.raises(Refused, match="have serial 4, and serial 5"):
        facility.loaded_pa()
    lowest.write_text("4\n")
    assert facility.loaded_pa() == 100
    lowest.write_text("four\n")
    with pytest.raises(SpecError, match="'four' is no serial"):
        facility.loaded_pa()


def aged(when_expired: WhenExpired, valid_until: datetime) -> Signature:
    return Signature(
        signed_by="anna", signed_at=NOW, valid_until=valid_until, when_expired=when_expired, signature="0" * 128
    )


@pytest.mark.parametrize(("days", "said"), [(1, ""), (25, "is valid until"), (31, "was valid until")])
def test_what_expires_is_said_before_and_refused_or_warned_of_after(
    facility: Facility, tmp_path: Path, caplog: pytest.LogCaptureFixture, days: int, said: str
) -> None:
    until, then = NOW + timedelta(days=30), NOW + timedelta(days=days)
    with caplog.at_level(logging.WARNING):
        check_age(aged("warn", until), facility.public, tmp_path, then)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
    if then < until:
        check_age(aged("refuse", until), facility.public, tmp_path, then)
        return
    with pytest.raises(Refused, match="were valid until"):
        check_age(aged("refuse", until), facility.public, tmp_path, then)


def test_a_clock_that_was_put_back_does_not_make_a_file_valid(facility: Facility, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="clock says"):
        check_age(aged("warn", NOW + timedelta(days=3)), facility.public, tmp_path, NOW - timedelta(days=2))


def test_the_terms_are_signed_too(facility: Facility) -> None:
    text, signed = facility.signs(100, None, NOW + timedelta(days=3))
    assert facility.loaded_pa() == 100
    for change in ({"when_expired": "warn"}, {"valid_until": None}, {"valid_until": "2099-01-01T00:00:00Z"}):
        facility.puts_back((text, json.dumps(json.loads(signed) | change)))
        with pytest.raises(Refused, match="not as the facility signed them"):
            facility.loaded_pa()


def test_the_command_line_counts_serials(facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facility.signs(100, None)
    monkeypatch.setenv("STEMPILOT_FACILITY_KEY", str(facility.public))
    assert safety.info.help
    signing = ["safety", "sign", str(facility.file), "--key", str(facility.private), "--by", "anna"]

    def said(arguments: list[str]) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    assert "serial 1, valid for ever" in said(signing)
    first = signature_path(facility.file).read_text("utf-8")
    assert "serial 2, valid until" in said([*signing, "--valid-days", "2", "--expired", "warn"])
    checking = ["safety", "check", "--data", str(tmp_path)]
    assert "warned of after that" in said(checking)
    signature_path(facility.file).write_text(first, "utf-8")
    assert CliRunner().invoke(app, checking).exit_code == 3
    assert "serial 20, valid" in said([*signing, "--serial", "20"])
