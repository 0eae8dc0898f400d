"""What the host trusts, brought into containers and build steps, and left in none of them.

Where a host has certificate authorities of its own (an intercepting proxy: common in companies, in CI), pip and curl in a container fail
with CERTIFICATE_VERIFY_FAILED. `host_trust()` finds the host's bundle and pip index; `Trust.apply(spec)` adds them to an OCI config just
before it is handed to the runtime. So neither shows in an image's or a container's stored config, and nothing has to be taken out again.

The bundle is bound below /dev, the one directory that is a fresh tmpfs in every container: its mount point appears in no layer. A variable
that the image or the user has set always wins. The engine (containers, exec) and the builder (RUN) both use this module.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BUNDLE_IN_CONTAINER = "/dev/.atoll/ca-certificates.crt"

# Each names one file that replaces or extends a program's own list of authorities.
BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL and what is built on it, Python's ssl included
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
)
# Of those, the ones that on the host name a whole bundle rather than an addition to one.
_WHOLE = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")
_EXTRA_DIRECTORIES = ("usr/local/share/ca-certificates", "etc/pki/ca-trust/source/anchors")
_SYSTEM_BUNDLES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem")
_PIP_FILES = ("etc/pip.conf", "{home}/.pip/pip.conf", "{home}/.config/pip/pip.conf")


@dataclass(frozen=True, slots=True)
class Trust:
    """The host's certificate bundle (None where it has no authority of its own) and the variables that go with it."""

    bundle: Path | None = None
    environment: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.bundle or self.environment)

    def extend(self, env: list[str]) -> list[str]:
        """`env` ("NAME=value" items) and after it the variables it does not set."""
        present = {item.partition("=")[0] for item in env}
        return env + [f"{name}={value}" for name, value in self.environment if name not in present]

    def apply(self, spec: dict[str, Any]) -> None:
        """Adds the bundle's mount and the variables to the OCI runtime config `spec`, in place.

        A container that brings a /dev of its own gets no bundle: a mount point would be made in what was bound there.
        """
        if not self:
            return
        own_dev = any(mount["destination"].rstrip("/") == "/dev" and mount.get("type") != "tmpfs" for mount in spec.get("mounts", ()))
        if self.bundle is not None and own_dev:
            return
        if self.bundle is not None:
            spec.setdefault("mounts", []).append(
                {
                    "destination": BUNDLE_IN_CONTAINER,
                    "type": "bind",
                    "source": str(self.bundle),
                    "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
                }
            )
        process = spec["process"]
        process["env"] = self.extend(process.get("env") or [])


def host_trust(environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Trust:
    """What containers should trust because the host does; an empty Trust on a host with nothing of its own.

    `environ` is the daemon's environment and `root` the tree its files are looked up in (tests give their own).
    """
    env = os.environ if environ is None else environ
    bundle = _bundle(env, root)
    variables = [(name, BUNDLE_IN_CONTAINER) for name in BUNDLE_VARIABLES] if bundle else []
    return Trust(bundle, (*variables, *_pip_index(env, root)))


def _bundle(env: Mapping[str, str], root: Path) -> Path | None:
    for name in _WHOLE:
        named = env.get(name)
        if named and os.path.isfile(named):
            return Path(os.path.realpath(named))
    if not any(_has_certificates(root / directory) for directory in _EXTRA_DIRECTORIES):
        return None
    for name in _SYSTEM_BUNDLES:
        if (root / name).is_file():
            return Path(os.path.realpath(root / name))
    return None


def _has_certificates(directory: Path) -> bool:
    return any(name.endswith((".crt", ".pem")) for _, _, files in os.walk(directory) for name in files)


def _pip_index(env: Mapping[str, str], root: Path) -> list[tuple[str, str]]:
    settings = _pip_settings(env, root)
    url = env.get("PIP_INDEX_URL") or settings.get("index-url", "")
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or _is_loopback(parts.hostname):
        return []  # a file:// or loopback index means nothing inside a container
    found = [("PIP_INDEX_URL", url.strip())]
    trusted = env.get("PIP_TRUSTED_HOST") or settings.get("trusted-host", "")
    if parts.scheme == "http" and trusted:
        found.append(("PIP_TRUSTED_HOST", " ".join(trusted.split())))
    return found


def _pip_settings(env: Mapping[str, str], root: Path) -> dict[str, str]:
    home = env.get("HOME", "root").lstrip("/")
    settings: dict[str, str] = {}
    for name in _PIP_FILES:  # the later overrides the earlier, as pip reads them
        path = root / name.format(home=home)
        if not path.is_file():
            continue
        import configparser

        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself will complain of its file; a container must start all the same
        if parser.has_section("global"):
            settings.update(parser["global"])
    return settings


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
