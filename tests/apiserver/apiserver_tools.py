"""A real API server over TLS in a thread of its own, with a cluster's certificates, for clients that nobody here wrote."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import os
import subprocess
import sysconfig
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atoll.apiserver import ApiServerConfig, InProcessClient, serve
from atoll.apiserver.config import StaticToken
from atoll.apiserver.server import Serving

STATIC_TOKEN = "abcdef.0123456789abcdef"
KUBECTLS = [path for path in (Path("/usr/bin/kubectl"), Path(sysconfig.get_path("scripts")) / "kubectl") if path.exists()]
NOW = dt.datetime.now(dt.UTC)


def _certificate(name, groups, key, ca=None, ca_key=None):
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups] + [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(hours=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca is None, None), True)
        .add_extension(x509.SubjectAlternativeName(addresses), False)
    )
    if ca is None:
        builder = builder.add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    else:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
    return builder.sign(ca_key or key, hashes.SHA256())


class Pki:
    """A cluster's certificates in a directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca = _certificate("ca", [], self._ca_key)
        (home / "ca.crt").write_bytes(self._ca.public_bytes(serialization.Encoding.PEM))
        self._write_key("ca", self._ca_key)
        self.issue("server", "kube-apiserver")
        self._write_key("sa", ec.generate_private_key(ec.SECP256R1()))

    def issue(self, file: str, name: str, *groups: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._write_key(file, key)
        signed = _certificate(name, groups, key, self._ca, self._ca_key)
        (self.home / f"{file}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _write_key(self, file: str, key) -> None:
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.home / f"{file}.key").write_bytes(pem)

    def config(self) -> ApiServerConfig:
        home = self.home
        return ApiServerConfig(
            store=home / "store.db",
            bind_address="127.0.0.1",
            port=0,
            serving_cert=home / "server.crt",
            serving_key=home / "server.key",
            client_ca=home / "ca.crt",
            service_account_key=home / "sa.key",
            tokens={STATIC_TOKEN: StaticToken("system:bootstrap:abcdef", ("system:bootstrappers",))},
        )


class Cluster:
    """An API server that runs in a thread until `close`."""

    def __init__(self, home: Path, pki: Pki | None = None, config: ApiServerConfig | None = None) -> None:
        self.home = home
        self.pki = pki or Pki(home)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api server")
        self._thread.start()
        self._serving: Serving = self.run(serve(config or self.pki.config()))
        self.port = self._serving.port
        self.client = InProcessClient(self._serving.server)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def kubeconfig(self, user: str, *groups: str) -> Path:
        """A kubeconfig with a client certificate of its own."""
        path = self.home / f"{user}.kubeconfig"
        if not path.exists():
            self.pki.issue(user, user, *groups)
            path.write_text(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
                f'clusters: [{{name: c, cluster: {{server: "{self.url}", certificate-authority-data: {self._read("ca.crt")}}}}}]\n'
                f"users: [{{name: u, user: {{client-certificate-data: {self._read(user + '.crt')}, "
                f"client-key-data: {self._read(user + '.key')}}}}}]\n"
                "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
            )
        return path

    def _read(self, name: str) -> str:
        return base64.b64encode((self.home / name).read_bytes()).decode()

    def admin(self) -> Path:
        return self.kubeconfig("admin", "system:masters")

    def close(self) -> None:
        self.run(self._serving.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Kubectl:
    """The genuine one, called as a user does."""

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self._binary = binary
        self._env = {"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent), "PATH": os.environ["PATH"]}

    def run(self, *args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self._binary), *args]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env={**self._env, **(env or {})}, check=False
        )

    def __call__(self, *args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
        """Its output; AssertionError when it fails."""
        done = self.run(*args, stdin=stdin, env=env)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout

    def fails(self, *args: str, stdin: str | None = None) -> str:
        """What it says on stderr when it fails."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(args)} succeeded: {done.stdout}"
        return done.stderr
