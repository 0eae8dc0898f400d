"""Seccomp policy: Docker's default as data, and Docker's profile format made into OCI's.

A Docker profile says for which architectures, capabilities and kernels a rule holds; the OCI spec wants only the rules that do. The default
(seccomp_default.json) lists what an ordinary container may call; anything else answers EPERM, clone3 ENOSYS so that C libraries fall back.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from atoll.errors import InvalidInput

# Machine name to libseccomp's constant and to the name Docker's profiles use.
_MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
}


@functools.cache
def default_profile() -> dict[str, Any]:
    """Docker's default policy in Docker's format. Shared: do not change it."""
    profile: dict[str, Any] = json.loads(resources.files(__package__).joinpath("seccomp_default.json").read_bytes())
    return profile


@functools.lru_cache(maxsize=64)
def default_policy(capabilities: frozenset[str]) -> tuple[dict[str, Any], str]:
    """The default for a container with these capabilities, in OCI's format, and its digest. Shared: do not change it."""
    policy = to_oci(default_profile(), capabilities)
    return policy, digest(policy)


def parse_profile(text: str | bytes) -> dict[str, Any]:
    """What `--security-opt seccomp=<file>` holds. Raises InvalidInput."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise InvalidInput("Decoding seccomp profile failed: no defaultAction")
    return profile


def to_oci(profile: Mapping[str, Any], capabilities: Iterable[str], machine: str | None = None) -> dict[str, Any]:
    """The OCI `linux.seccomp` for a container with these capabilities on this machine. Raises InvalidInput."""
    granted = frozenset(capabilities)
    name, docker_name = _MACHINES.get(machine or platform.machine(), ("", ""))
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidInput("use either 'architectures' or 'archMap' in a seccomp profile, not both")
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == name:
            architectures = [name, *(entry.get("subArchitectures") or ())]
    kept = []
    for rule in profile.get("syscalls") or ():
        if not _holds(rule, granted, docker_name):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        if not names:
            raise InvalidInput("a rule of the seccomp profile names no system call")
        oci: dict[str, Any] = {"names": names, "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            oci["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            oci["args"] = rule["args"]
        kept.append(oci)
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"], "architectures": architectures, "syscalls": kept}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if profile.get("flags"):
        result["flags"] = list(profile["flags"])
    return result


def digest(profile: Mapping[str, Any]) -> str:
    """SHA-256 of an OCI profile in canonical form: the name of its compiled filter."""
    import hashlib

    return hashlib.sha256(json.dumps(profile, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _holds(rule: Mapping[str, Any], granted: frozenset[str], machine: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if not granted.issuperset(includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and _kernel() < _version(includes["minKernel"]):
        return False
    if machine in (excludes.get("arches") or ()) or granted.intersection(excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]))


def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, ...]:
    major, _, rest = text.partition(".")
    minor = "".join(digit if digit.isdigit() else " " for digit in rest).split(" ", maxsplit=1)[0]
    return (int(major), int(minor or 0))
