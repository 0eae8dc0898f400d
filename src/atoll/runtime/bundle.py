"""An OCI bundle as the keeper reads it: its config.json, and what in it does not go together."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from atoll.errors import InvalidInput
from atoll.kernel import processes

_LATER = ("cgroup", "user", "time")  # namespaces that the child makes


def read_spec(bundle: str) -> dict[str, Any]:
    """Raises InvalidInput."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as config:
            spec = json.loads(config.read())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the bundle's {path}: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("linux"), dict):
        raise InvalidInput(f"{path} is not an OCI runtime spec for Linux")
    check_process(spec.get("process"))
    return spec


def check(spec: Mapping[str, Any]) -> None:
    """What does not go together. Raises InvalidInput."""
    kinds = [namespace["type"] for namespace in spec["linux"].get("namespaces") or ()]
    if len(set(kinds)) < len(kinds):
        raise InvalidInput(f"linux.namespaces names one type twice: {', '.join(kinds)}")
    if "uts" not in kinds and (spec.get("hostname") or spec.get("domainname")):
        raise InvalidInput("hostname and domainname need a uts namespace")


def check_process(process: Any) -> None:
    """Raises InvalidInput."""
    if not isinstance(process, dict) or not process.get("args") or not all(isinstance(item, str) for item in process["args"]):
        raise InvalidInput("process.args must be a list of at least one string")
    cwd = process.get("cwd")
    if not isinstance(cwd, str) or not cwd.startswith("/"):
        raise InvalidInput(f"Cwd must be an absolute path: {cwd!r}")
    process.setdefault("user", {})


def namespaces_of(asked: Any) -> tuple[int, str]:
    """Flags of those to make at birth, and the path of a pid namespace to join. Raises InvalidInput."""
    flags, pids = 0, ""
    for namespace in asked:
        kind, path = namespace["type"], namespace.get("path")
        if kind not in processes.NAMESPACES:
            continue  # the child names it
        if kind == "pid" and path:
            pids = path
        elif not path and kind not in _LATER:
            flags |= processes.NAMESPACES[kind][0]
    if not flags & processes.NEWNS:
        raise InvalidInput("a container needs a mount namespace of its own: none was asked for, or one by path")
    return flags, pids
