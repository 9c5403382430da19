"""Where an instrument's process listens: a file for its user alone, with the secret that opens its lines."""

from __future__ import annotations

import os
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from ssl import SSLContext
from urllib.parse import quote

from pydantic import Field

from instruments.errors import InstrumentFault
from instruments.models import Record
from instruments.remote.encrypted import client_context, server_context


class Endpoint(Record):
    """Address of the two lines of one instrument's process."""

    protocol: int
    name: str
    host: str
    port: int = Field(ge=0, le=65535, description="the command line's; 0: a run in that process has it alone")
    stop_port: int = Field(gt=0, le=65535)
    pid: int = Field(gt=0)
    started_at: datetime
    secret: str = Field(min_length=32, repr=False)
    certificate: str | None = Field(default=None, repr=False, description="PEM, whose TLS it speaks; None: no TLS")

    def authkey(self) -> bytes:
        """The secret as the lines take it."""
        return self.secret.encode()

    def tls(self) -> SSLContext | None:
        """What a line to it is encrypted with; None: it is not. Raises ConfigurationError for no certificate."""
        return None if self.certificate is None else client_context(self.certificate)


class Listening(Record):
    """Where an instrument's process listens; by default for this machine alone, with a secret of its own."""

    host: str = Field(default="127.0.0.1", description="an address of this machine; 0.0.0.0: all")
    port: int = Field(default=0, ge=0, le=65535, description="the command line's; 0: any free one")
    stop_port: int = Field(default=0, ge=0, le=65535)
    secret: str | None = Field(default=None, min_length=32, repr=False, description="None: a new one")
    certificate: Path | None = Field(default=None, description="PEM; None: no TLS")
    certificate_key: Path | None = Field(default=None, description="of the certificate, PEM")

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def tls(self) -> SSLContext | None:
        """What its lines are encrypted with; None: they are not. Raises ConfigurationError."""
        if self.certificate is None or self.certificate_key is None:
            return None
        return server_context(self.certificate, self.certificate_key)

    @property
    def own_address(self) -> str:
        """Where programs on this machine find it."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


def endpoint_path(run_folder: Path, name: str) -> Path:
    """The file of the instrument `name`."""
    return run_folder / f"instrument-{quote(name, safe='')}.json"


def write_endpoint(path: Path, endpoint: Endpoint) -> None:
    """Write it whole, readable by this user alone."""
    write_private(path, endpoint.model_dump_json())


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, mode 0600, on disk when this returns."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_endpoint(path: Path) -> Endpoint:
    """The endpoint in the file. Raises InstrumentFault, saying how to start it, where none runs."""
    name = path.stem.removeprefix("instrument-")
    try:
        endpoint = Endpoint.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InstrumentFault(not_running(name, f"there is no {path}")) from error
    except (OSError, ValueError) as error:  # no text, or not ours
        raise InstrumentFault(not_running(name, f"{path} cannot be read: {error}")) from error
    if not _is_alive(endpoint.pid):
        raise InstrumentFault(not_running(endpoint.name, f"process {endpoint.pid}, which wrote {path}, is dead"))
    return endpoint


def not_running(name: str, because: str) -> str:
    """What to say, and to do, when an instrument has no process."""
    return (
        f"instrument {name!r} is not running ({because}); start it with `stempilot serve`, or alone with "
        f"`stempilot instrument-host {name}`"
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
