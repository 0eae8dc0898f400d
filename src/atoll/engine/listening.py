"""Where the engine listens beside its own socket: other unix sockets, and TCP, never without certificates on both sides.

Whoever reaches the Engine API is root on the machine. So a TCP address needs an authority, a certificate and a key; clients show a
certificate of that authority, and name the engine by one of the names in its own certificate.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from atoll.errors import InvalidInput

DEFAULT_PORT = 2376  # the Docker API over TLS, IANA "docker-s"


@dataclass(frozen=True, slots=True)
class Listening:
    """Addresses, and for those of TCP the files of PEM that prove who is who."""

    sockets: tuple[str, ...] = ()
    addresses: tuple[tuple[str, int], ...] = ()
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, hosts: Iterable[str], authority: str | None, certificate: str | None, key: str | None) -> Listening:
        """From -H and --tls... Raises InvalidInput for an address that cannot be, and for TCP without all three files."""
        sockets, addresses = [], []
        for host in hosts:
            if host.startswith("unix:///"):
                sockets.append(host.removeprefix("unix://"))
            elif host.startswith("tcp://"):
                addresses.append(_address(host))
            else:
                raise InvalidInput(f"cannot listen on {host!r}: write unix:///path or tcp://address:port")
        files = [Path(name) if name else None for name in (authority, certificate, key)]
        if addresses and not all(files):
            raise InvalidInput(
                "the engine listens on TCP only with certificates on both sides, since whoever reaches it is root here: give --tls with "
                "--tlscacert, --tlscert and --tlskey"
            )
        return cls(tuple(sockets), tuple(addresses), *files)

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and up; clients must show a certificate of the authority. Raises InvalidInput naming the file that is wrong."""
        assert self.authority is not None
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"--tlscacert {self.authority}: {_reason(error)}") from error
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"--tlscert {self.certificate} with --tlskey {self.key}: {_reason(error)}") from error
        return context

    def names(self) -> frozenset[str]:
        """What the certificate calls the engine, in small letters: a request for another host was not meant for it."""
        from cryptography import x509  # 4 MB that an engine without TCP does not need

        assert self.certificate is not None
        found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        try:
            alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
        return frozenset([*names, *map(str, alternatives.get_values_for_type(x509.IPAddress))])


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(host)
    with contextlib.suppress(ValueError):
        name, port = parts.hostname or "0.0.0.0", parts.port
        if not parts.path.strip("/") and not parts.query:
            with contextlib.suppress(ValueError):
                name = str(ipaddress.ip_address(name))
            return name, DEFAULT_PORT if port is None else port
    raise InvalidInput(f"cannot listen on {host!r}: write tcp://address:port")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
