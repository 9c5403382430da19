"""The facility's signature of its instruments: limits, adapters and calibrations as the facility wrote them.

An Ed25519 signature lies beside the settings file. The private key stays with whoever may change limits, not on this
computer; the public key stands where users cannot write. What it holds against: a changed or foreign settings file.
What not: whoever may write the public key, the program itself, or talk to the microscope past it. Neighbours:
`settings` asks, `signature_age` says whether a good signature is the newest and still valid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import AwareDatetime, Field

from instruments.models import Record
from orchestrator.errors import NotFound, Refused, SpecError

PUBLIC_KEY_PATH: Final = Path("/etc/stempilot/facility.pub")
PUBLIC_KEY_VARIABLE: Final = "STEMPILOT_FACILITY_KEY"
SIGNED_SECTION: Final = "instruments"
SIGNED_BESIDES: Final = ("lease_s",)  # how long a beam may be on that nobody watches
WhenExpired = Literal["warn", "refuse"]


class Signature(Record):
    """What `stempilot safety sign` writes beside the settings file."""

    format: Literal[1] = 1
    signed_by: str = Field(min_length=1)
    signed_at: AwareDatetime
    serial: int | None = Field(default=None, ge=1, description="grows with each file signed; None: never counted")
    valid_until: AwareDatetime | None = None
    when_expired: WhenExpired = "refuse"
    signature: str = Field(min_length=128, max_length=128, description="Ed25519, hexadecimal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is signed besides the instruments: by whom, which in the order of files, and for how long."""

    by: str
    serial: int | None = None
    valid_until: datetime | None = None
    when_expired: WhenExpired = "refuse"


def signature_path(settings_path: Path) -> Path:
    """Where the signature of a settings file lies."""
    return settings_path.with_name(f"{settings_path.name}.signature")


def public_key_path(environment: Mapping[str, str]) -> Path | None:
    """The facility's public key: the one of this computer, else the one the environment names; None: there is none."""
    if PUBLIC_KEY_PATH.exists():
        return PUBLIC_KEY_PATH
    named = environment.get(PUBLIC_KEY_VARIABLE)
    return Path(named).expanduser() if named else None


def make_keys(folder: Path) -> tuple[Path, Path]:
    """A new pair: `facility.key` (mode 0600, for the facility alone) and `facility.pub`. Refused where one is there."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = folder / "facility.key", folder / "facility.pub"
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, mode, data in ((private, 0o600, secret), (public, 0o644, shown)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
    except FileExistsError as error:
        raise Refused(
            f"{error.filename} is there already: a key is never overwritten; choose another folder"
        ) from error
    except OSError as error:
        raise SpecError(f"{folder}: the keys cannot be written: {error}") from error
    return private, public


def sign(settings_path: Path, document: Mapping[str, Any], key_path: Path, terms: Terms) -> Signature:
    """Sign the instruments of a settings document, and write it beside the file. Raises NotFound, SpecError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(key_path.read_bytes(), None)
    except FileNotFoundError as error:
        raise NotFound(f"{key_path}: there is no key; `stempilot safety keygen` makes a pair") from error
    except (OSError, ValueError, TypeError) as error:
        because = f": {error}" if isinstance(error, OSError) else ""
        raise SpecError(
            f"{key_path} is no private key in PEM{because}; give facility.key of `stempilot safety keygen`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SpecError(f"{key_path} is no Ed25519 key; `stempilot safety keygen` makes one")
    unsigned = Signature(
        signed_by=terms.by,
        signed_at=datetime.now(UTC),
        serial=terms.serial,
        valid_until=terms.valid_until,
        when_expired=terms.when_expired,
        signature="0" * 128,
    )
    signature = unsigned.model_copy(update={"signature": key.sign(_signed_bytes(document, unsigned)).hex()})
    path = signature_path(settings_path)
    try:
        path.write_text(signature.model_dump_json(indent=1) + "\n", "utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be written: {error}") from error
    return signature


def read_signature(settings_path: Path) -> Signature | None:
    """The signature beside a settings file, whosever it is; None: there is none. Raises Refused for what is none."""
    path = signature_path(settings_path)
    try:
        return Signature.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # no text, or no signature
        because = str(error) if isinstance(error, OSError) else "not as `stempilot safety sign` wrote it"
        raise Refused(f"{path} is no signature: {because}; remove it, and have {settings_path} signed again") from error


def check_signature(settings_path: Path, document: Mapping[str, Any], key_path: Path) -> Signature | None:
    """Who signed the instruments of this document; None where it has none.

    Raises Refused for instruments that are not signed, or not as they are now; SpecError for a key that is none.
    """
    if not document.get(SIGNED_SECTION):
        return None
    from cryptography.exceptions import InvalidSignature

    signature = read_signature(settings_path)
    if signature is None:
        raise Refused(
            f"{settings_path} is not signed, and this facility's key {key_path} asks for it; have it signed: "
            f"stempilot safety sign {settings_path} --key ..."
        )
    try:
        _public_key(key_path).verify(bytes.fromhex(signature.signature), _signed_bytes(document, signature))
    except (InvalidSignature, ValueError) as error:
        raise Refused(
            f"the instruments in {settings_path} are not as the facility signed them ({signature.signed_by}, "
            f"{signature.signed_at:%Y-%m-%d %H:%M} UTC), or not with the key of {key_path}; put the signed file back, "
            "or have the change looked at and signed"
        ) from error
    return signature


def _public_key(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        because = error if isinstance(error, OSError) else "it is no public key in PEM"
        raise SpecError(
            f"the facility's public key {path} cannot be read: {because}; put the facility.pub that `stempilot safety "
            "keygen` made there"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SpecError(
            f"the facility's public key {path} is not of Ed25519; `stempilot safety keygen` makes one that is"
        )
    return key


def _signed_bytes(document: Mapping[str, Any], terms: Signature) -> bytes:
    """What is signed: the values of all instruments, not the spelling of the file, who signed when, and the terms.

    The lease as well. What is not given is not in it, so what was signed before there was any of it is good as it is.
    """
    signed: dict[str, Any] = {
        "instruments": document.get(SIGNED_SECTION, {}),
        "signed_by": terms.signed_by,
        "signed_at": terms.signed_at.isoformat(),
    }
    signed |= {name: document[name] for name in SIGNED_BESIDES if name in document}
    if terms.serial is not None:
        signed["serial"] = terms.serial
    if terms.valid_until is not None:
        signed |= {"valid_until": terms.valid_until.isoformat(), "when_expired": terms.when_expired}
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> str:
    """Dates and times of TOML."""
    return value.isoformat()
