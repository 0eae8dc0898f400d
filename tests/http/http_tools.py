"""What the tests of atoll.http share: a server on a socket, raw bytes to it, and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atoll.http import Limits, Server

HOST = b"Host: x\r\n"


@contextlib.asynccontextmanager
async def serving(handler, **options):
    """A server on a loopback port; its tasks are checked to be gone afterwards."""
    before = asyncio.all_tasks()
    limits = options.pop("limits", None) or Limits()
    ssl = options.pop("ssl", None)
    server = Server(handler, limits, **options)
    port = await server.start_tcp("127.0.0.1", 0, ssl)
    try:
        yield port
    finally:
        await server.close(grace=1.0)
        assert not server.connections
    if left := asyncio.all_tasks() - before:
        _, left = await asyncio.wait(left, timeout=1)
    assert not left


async def exchange(port: int, data: bytes, *, eof: bool = False) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def statuses(answer: bytes) -> list[int]:
    """The status of each response in the bytes; bodies must not hold status lines."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def make_pki(directory):
    """An authority, a server and a client certificate as PEM files."""
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])

    def issue(common_name, key, *, authority):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        )
        certificate = builder.sign(ca_key, hashes.SHA256())
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (directory / f"{common_name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        return certificate.public_bytes(serialization.Encoding.DER)

    issue("ca", ca_key, authority=True)
    issue("server", ec.generate_private_key(ec.SECP256R1()), authority=False)
    return issue("alice", ec.generate_private_key(ec.SECP256R1()), authority=False)
