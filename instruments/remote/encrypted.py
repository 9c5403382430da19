"""A line under TLS: bytes in the clear on a socket pair here, encrypted on the cable; a thread carries them across.

Who is at the other end is known by the very certificate, which the ticket brings; no authority is asked. Neighbour:
`lines` speaks through it as through any connection.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from instruments.errors import ConfigurationError

_CHUNK_BYTES: Final = 256 << 10
_MADE_FOR_DAYS: Final = 3650
_RETRY: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a gateway answers with. Raises ConfigurationError for files that are no certificate with its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{certificate} with {key} is no certificate with its key in PEM: {error}") from error
    return context


def client_context(certificate: str) -> ssl.SSLContext:
    """What trusts this one certificate (PEM) and no other. Raises ConfigurationError for what is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the certificate itself is known, whatever it calls its machine
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # also where an authority signed it
    try:
        context.load_verify_locations(cadata=certificate)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"the ticket's certificate is none: {error}; copy the ticket again") from error
    return context


def make_certificate(certificate: Path, key: Path, name: str) -> None:
    """A new self-signed certificate and its key, the key for this user alone; what is there already stays."""
    if certificate.exists() and key.exists():
        return
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_MADE_FOR_DAYS))
        .sign(private, hashes.SHA256())
    )
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def in_the_clear(cable: socket.socket, context: ssl.SSLContext, *, is_server: bool, timeout_s: float) -> socket.socket:
    """This end of a socket pair whose bytes go encrypted over `cable`, which is closed with it. Raises OSError."""
    cable.settimeout(timeout_s)
    try:
        encrypted = context.wrap_socket(cable, server_side=is_server)
    except BaseException:
        cable.close()
        raise
    ours, theirs = socket.socketpair()
    carrier = _Carrier(encrypted, theirs)
    threading.Thread(target=carrier.run, name="tls", daemon=True).start()
    return ours


@dataclass
class _Carrier:
    """Carries bytes both ways until either side ends; then what is on its way is delivered, and both are closed."""

    encrypted: ssl.SSLSocket
    clear: socket.socket
    _to_cable: bytearray = field(default_factory=bytearray)
    _to_clear: bytearray = field(default_factory=bytearray)
    _is_ended: bool = False

    def run(self) -> None:
        """Until either side ends."""
        self.encrypted.setblocking(False)
        self.clear.setblocking(False)
        with suppress(OSError), self.encrypted, self.clear:
            ready = select.poll()
            while not self._is_done():
                ready.register(
                    self.encrypted, _events(reads=self._reads_into(self._to_clear), writes=bool(self._to_cable))
                )
                ready.register(self.clear, _events(reads=self._reads_into(self._to_cable), writes=bool(self._to_clear)))
                ready.poll()

    def _is_done(self) -> bool:
        """Carry until neither side takes or gives more; whether an end was reached and nothing is on its way."""
        while any([
            self._taken(self.encrypted, self._to_clear),
            self._taken(self.clear, self._to_cable),
            _given(self.encrypted, self._to_cable),
            _given(self.clear, self._to_clear),
        ]):  # fmt: skip
            pass
        return self._is_ended and not self._to_clear and not self._to_cable

    def _reads_into(self, waiting: bytearray) -> bool:
        return not waiting and not self._is_ended

    def _taken(self, side: socket.socket, into: bytearray) -> bool:
        """Read once, if what was read before has gone on."""
        if not self._reads_into(into):
            return False
        try:
            got = side.recv(_CHUNK_BYTES)
        except _RETRY:
            return False
        self._is_ended = not got
        into += got
        return bool(got)


def _given(side: socket.socket, waiting: bytearray) -> bool:
    if not waiting:
        return False
    try:
        count = side.send(waiting)
    except _RETRY:
        return False
    del waiting[:count]
    return count > 0


def _events(*, reads: bool, writes: bool) -> int:
    """What to wait for on a side; that it is gone is always told."""
    return (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)
