"""`stempilot safety keygen`, `sign` and `check`: the facility's signature of its limits."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import NotFound
from orchestrator.settings import FILE_NAME, Settings, read_document
from orchestrator.signature import (
    Terms,
    WhenExpired,
    check_signature,
    make_keys,
    public_key_path,
    read_signature,
    sign,
    signature_path,
)
from orchestrator.signature_age import check_age, count_serial, next_serial
from workflows.cli.app import app
from workflows.cli.fail import explained
from workflows.cli.options import DataOption, SettingsOption

safety = typer.Typer(help="the facility's signature of its instruments and their limits", no_args_is_help=True)
app.add_typer(safety, name="safety")


@safety.command()
@explained
def keygen(
    to: Annotated[Path, typer.Option("--to", help="folder for facility.key and facility.pub")] = Path(),
) -> None:
    """Make the facility's pair of keys. The private one signs: keep it away from this computer."""
    private, public = make_keys(to)
    print(f"wrote {private} (keep it where only the facility can read it) and {public}")
    print(f"next: sudo install -m 0644 {public} /etc/stempilot/facility.pub")


@safety.command(name="sign")
@explained
def sign_(
    settings_file: Annotated[Path, typer.Argument(metavar=FILE_NAME)],
    key: Annotated[Path, typer.Option("--key", help="the facility's private key")],
    by: Annotated[str | None, typer.Option("--by", help="who answers for it; else the user's name")] = None,
    serial: Annotated[
        int | None, typer.Option("--serial", min=1, help="else one more than the last; a lower one is refused in use")
    ] = None,
    valid_days: Annotated[float | None, typer.Option("--valid-days", min=0.01, max=36500, help="else for ever")] = None,
    expired: Annotated[WhenExpired, typer.Option("--expired", help="what happens after that")] = "refuse",
) -> None:
    """Sign the instruments of a settings file, with their limits and calibrations, as they are now."""
    document = read_document(settings_file, must_exist=True)
    Settings.checked(settings_file, document)
    given = serial or next_serial(key, read_signature(settings_file))
    until = None if valid_days is None else datetime.now(UTC) + timedelta(days=valid_days)
    terms = Terms(by=by or getpass.getuser(), serial=given, valid_until=until, when_expired=expired)
    if serial is None:
        count_serial(key, given)  # before it is used: no serial is given twice
    sign(settings_file, document, key, terms)
    print(f"signed {len(document.get('instruments', {}))} instrument(s): {signature_path(settings_file)}")
    print(f"serial {given}, {_validity(until, expired)}")


@safety.command()
@explained
def check(data: DataOption = None, settings: SettingsOption = None) -> None:
    """Say who signed the settings in use, and when; refused if they were changed since, are older, or expired."""
    path = Settings.path_of(data, settings)
    key = public_key_path(os.environ)
    if key is None:
        raise NotFound(
            "this computer has no facility key, so no settings are checked; put facility.pub to /etc/stempilot"
        )
    signature = check_signature(path, read_document(path, must_exist=settings is not None), key)
    if signature is None and not path.exists():
        print(f"there is no {path}, so nothing to sign; for settings elsewhere give --settings")
        return
    if signature is None:
        print(f"{path} configures no instrument: nothing to sign")
        return
    check_age(signature, key, Settings.folder_of(data))
    print(f"{path}: signed by {signature.signed_by} at {signature.signed_at:%Y-%m-%d %H:%M} UTC, unchanged")
    counted = "no serial: older files are as good" if signature.serial is None else f"serial {signature.serial}"
    print(f"{counted}, {_validity(signature.valid_until, signature.when_expired)}")


def _validity(until: datetime | None, expired: WhenExpired) -> str:
    if until is None:
        return "valid for ever"
    return f"valid until {until:%Y-%m-%d %H:%M} UTC, {'refused' if expired == 'refuse' else 'warned of'} after that"
