"""Where the API server is and who we are, read from a kubeconfig file.

Inline data (`certificate-authority-data`) and paths beside the file are both understood. Exec and auth-provider plugins are not: they
are refused, not ignored.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import InvalidInput, NotFound, NotSupported


@dataclass(frozen=True, slots=True)
class Access:
    """One way into one cluster. `ca`, `certificate` and `key` are PEM."""

    server: str
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None
    namespace: str = "default"
    server_name: str | None = None
    insecure: bool = False

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for a server without TLS."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            _load_pair(context, self.certificate, self.key)
        return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL's binding reads only files; one in memory leaves no key on the disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise InvalidInput(f"the client certificate and key do not fit together: {error.reason}") from error
    finally:
        os.close(descriptor)


def load(path: Path, context: str | None = None) -> Access:
    """The named context, or the current one. Raises NotFound, InvalidInput, NotSupported, each naming the file."""
    import yaml  # a node and an API server know this module, but read no such file

    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(f"no kubeconfig at {path}: start a cluster or set KUBECONFIG") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a kubeconfig: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a kubeconfig: it holds no mapping")
    wanted = context or document.get("current-context")
    if not wanted:
        raise InvalidInput(f"{path} has no current-context: name a context")
    chosen = _entry(path, document, "contexts", "context", wanted)
    cluster = _entry(path, document, "clusters", "cluster", chosen.get("cluster"))
    user = _entry(path, document, "users", "user", chosen.get("user")) if chosen.get("user") else {}
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise NotSupported(f"{path}: user {chosen['user']!r} authenticates by {plugin}; only certificates and tokens are supported")

    def material(entry: dict[str, Any], field: str) -> bytes | None:
        return _material(path, entry, field)

    return Access(
        server=_text(path, cluster, "server"),
        ca=material(cluster, "certificate-authority"),
        certificate=material(user, "client-certificate"),
        key=material(user, "client-key"),
        token=_token(user, material),
        namespace=chosen.get("namespace") or "default",
        server_name=cluster.get("tls-server-name"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _entry(path: Path, document: dict[str, Any], section: str, field: str, name: str | None) -> dict[str, Any]:
    for entry in document.get(section) or ():
        if entry.get("name") == name:
            return dict(entry.get(field) or {})
    raise InvalidInput(f"{path}: no entry {name!r} in {section}")


def _text(path: Path, entry: dict[str, Any], field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{path}: {field} is missing")
    return value


def _material(path: Path, entry: dict[str, Any], field: str) -> bytes | None:
    inline = entry.get(f"{field}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"{path}: {field}-data is not base64") from error
    named = entry.get(field)
    if not named:
        return None
    try:
        return (path.parent / str(named)).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: {field} {named}: {error.strerror}") from error


def _token(user: dict[str, Any], material: Callable[[dict[str, Any], str], bytes | None]) -> str | None:
    if user.get("token"):
        return str(user["token"])
    held = material({"tokenFile": user.get("tokenFile")}, "tokenFile")
    return held.decode().strip() if held else None
