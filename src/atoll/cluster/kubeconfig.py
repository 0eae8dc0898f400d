"""kubeconfig files: the instance's own, and the user's, into which a started cluster is merged as a context (as minikube and kind do).

A full entry with certificates inside: over https without credentials kubectl would ask for a user name. The user's file may hold other
clusters, comments aside nothing of them is lost; it is replaced in one step, and a link is followed to the file it names.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from atoll.cluster.pki import write_private
from atoll.errors import InvalidInput

NAME = "atoll"  # of cluster, context and user


def entry(server: str, ca: bytes, certificate: bytes, key: bytes) -> dict[str, Any]:
    """A whole kubeconfig with one context."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": NAME, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
        "users": [{"name": NAME, "user": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }


def public(server: str, ca: bytes) -> str:
    """Where a cluster is and whom to trust for it, with no user: as kubeadm publishes it."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}, sort_keys=False)


def write(path: Path, config: dict[str, Any]) -> None:
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())


def users_file() -> Path:
    """The file kubectl writes to: the first of $KUBECONFIG, else ~/.kube/config."""
    named = os.environ.get("KUBECONFIG", "").split(":")[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


def merge(path: Path, added: dict[str, Any]) -> None:
    """Put ADDED's cluster, user and context into PATH in place of those of the same name, and make the context current."""
    config = _read(path)
    for section in ("clusters", "users", "contexts"):
        kept = [item for item in config.get(section) or [] if item.get("name") != NAME]
        config[section] = kept + added[section]
    config["current-context"] = NAME
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(target, config)


def remove(path: Path) -> None:
    """Take this cluster out of PATH; a current context that was it is unset."""
    if not path.exists():
        return
    config = _read(path)
    names = {item.get("name") for item in config.get("contexts") or []}
    if NAME not in names:
        return
    for section in ("clusters", "users", "contexts"):
        config[section] = [item for item in config.get(section) or [] if item.get("name") != NAME]
    if config.get("current-context") == NAME:
        config["current-context"] = ""
    write(Path(os.path.realpath(path)), config)


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_bytes()) or {}
    except FileNotFoundError:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not a kubeconfig ({error}): mend it, or set KUBECONFIG to another file") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is not a kubeconfig: mend it, or set KUBECONFIG to another file")
    return config
