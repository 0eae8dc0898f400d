"""The cluster's certificates: one authority, and a leaf for each part that speaks TLS.

Names follow kubeadm's ("PKI certificates and requirements"), because RBAC reads them: a client's common name is its user, its organisations
are its groups. Keys are EC P-256: made in under a millisecond, where RSA takes a hundred. Files are written once and never replaced, but
for leaves whose names have changed or whose end is near.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = dt.timedelta(days=3650)  # kubeadm's default
LEAF_LIFE = dt.timedelta(days=365)
RENEW_BEFORE = dt.timedelta(days=60)  # a restart within this time of the end makes the leaf anew
BACKDATE = dt.timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate says: for a client its user and groups, for a server its host names and addresses."""

    name: str
    common_name: str
    organisations: Sequence[str] = ()
    hosts: Sequence[str] = ()
    client: bool = True


class Pki:
    """Certificates below DIRECTORY, made when first asked for; NAME is the authority's."""

    def __init__(self, directory: Path, name: str = "kubernetes") -> None:
        self.directory = directory
        self._name = name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key, self._certificate = self._authority()

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca.key"

    def leaf(self, wanted: Leaf) -> tuple[Path, Path]:
        """Certificate and key files of WANTED; what is on disk is kept while it says the same and is not about to end."""
        certificate, key = self.directory / f"{wanted.name}.crt", self.directory / f"{wanted.name}.key"
        if not (certificate.exists() and key.exists() and _fits(certificate, key, wanted, self._certificate)):
            private = ec.generate_private_key(ec.SECP256R1())
            write_private(key, _pem(private))
            write_private(certificate, self._sign(wanted, private.public_key()).public_bytes(serialization.Encoding.PEM))
        return certificate, key

    def signing_key(self, name: str) -> Path:
        """A bare private key: service-account tokens are signed with it."""
        path = self.directory / f"{name}.key"
        if not path.exists():
            write_private(path, _pem(ec.generate_private_key(ec.SECP256R1())))
        return path

    def _authority(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        if self.ca.exists() and self.ca_key.exists():
            loaded = serialization.load_pem_private_key(self.ca_key.read_bytes(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            return loaded, x509.load_pem_x509_certificate(self.ca.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(self._name, ())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_encipherment=True,
            key_cert_sign=True,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key(), AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.ca_key, _pem(key))
        write_private(self.ca, certificate.public_bytes(serialization.Encoding.PEM))
        return key, certificate

    def _sign(self, wanted: Leaf, public: ec.EllipticCurvePublicKey) -> x509.Certificate:
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if wanted.client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            _builder(_name(wanted.common_name, wanted.organisations), self._certificate.subject, public, LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if wanted.hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(_alternatives(wanted.hosts))), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: dt.timedelta) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
    )


def _name(common_name: str, organisations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organisations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternatives(hosts: Sequence[str]) -> Iterable[x509.GeneralName]:
    for host in hosts:
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            yield x509.DNSName(host)


def _fits(path: Path, key: Path, wanted: Leaf, authority: x509.Certificate) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except ValueError:
        return False  # not ours, or damaged: made anew
    try:
        hosts = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        hosts = set()
    return (
        found.public_key() == private.public_key()  # not so after a crash between the writing of the two
        and found.issuer == authority.subject
        and found.subject == _name(wanted.common_name, wanted.organisations)
        and hosts == set(_alternatives(wanted.hosts))
        and found.not_valid_after_utc - RENEW_BEFORE > dt.datetime.now(dt.UTC)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_private(path: Path, data: bytes) -> None:
    """Write DATA whole or not at all; only the owner may read it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
