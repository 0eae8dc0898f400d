"""From here on, only what the container may: limits, user, capabilities, seccomp, in the one order that works.

Seccomp comes before the capabilities are dropped unless no_new_privs is set, because loading a filter needs CAP_SYS_ADMIN then; with
no_new_privs it comes last, so that the profile need not allow what happens here (runc does the same).
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping
from typing import Any

from atoll.errors import InvalidInput, SystemFailure
from atoll.kernel import capabilities, prctl, seccomp
from atoll.runtime.users import User


def set_limits(process: Mapping[str, Any]) -> None:
    """Resource limits and the OOM score. A hard limit above ours is cut to ours where we may not raise it (no CAP_SYS_RESOURCE)."""
    seen = set()
    for limit in process.get("rlimits") or ():
        if limit["type"] in seen:
            raise InvalidInput(f"the rlimit {limit['type']} is given twice")
        seen.add(limit["type"])
        number = getattr(resource, limit["type"], None)
        if number is None:
            raise InvalidInput(f"invalid rlimit type: {limit['type']}")
        soft, hard = (_value(limit[key]) for key in ("soft", "hard"))
        if hard != resource.RLIM_INFINITY and (soft > hard or soft == resource.RLIM_INFINITY):
            raise InvalidInput(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError:  # what Python makes of EPERM
            _, ours = resource.getrlimit(number)
            resource.setrlimit(number, (_least(soft, ours), _least(hard, ours)))
    score = process.get("oomScoreAdj")
    if score is not None:
        _set_oom_score(int(score))


def _set_oom_score(score: int) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    except PermissionError as error:
        if score < 0:  # lowering needs CAP_SYS_RESOURCE
            raise SystemFailure(f"set oom_score_adj to {score}", error.errno or errno.EACCES) from error
        raise
    finally:
        os.close(fd)


def apply(process: Mapping[str, Any], user: User, program: bytes | None, filter_flags: int) -> None:
    """Become the container's user with its capabilities, under the seccomp `program`. There is no way back."""
    sets = capabilities.cut(process.get("capabilities") or {}, capabilities.available())
    no_new_privileges = bool(process.get("noNewPrivileges"))
    profile = process.get("apparmorProfile")
    if profile:
        _set_apparmor(profile)
    if program is not None and not no_new_privileges:
        seccomp.load(program, filter_flags)
    capabilities.limit_bounding(sets["bounding"])
    prctl.keep_capabilities()
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    effective, permitted = sets["effective"], sets["permitted"]
    if user.uid and not sets["ambient"]:
        effective = permitted = 0  # what execve would do; and no thread of ours keeps them until then
    capabilities.apply(effective, permitted, sets["inheritable"])
    if sets["ambient"]:
        capabilities.raise_ambient(sets["ambient"])
    os.umask(int(process["user"].get("umask", 0o022)))
    if no_new_privileges:
        prctl.set_no_new_privs()
        if program is not None:
            seccomp.load(program, filter_flags)


def _set_apparmor(profile: str) -> None:
    if profile == "unconfined" or not os.path.exists("/sys/kernel/security/apparmor") or not os.path.exists("/proc/self/attr/exec"):
        return
    try:
        with open("/proc/self/attr/exec", "w", encoding="ascii") as attribute:
            attribute.write(f"exec {profile}")
    except OSError as error:
        raise SystemFailure(f"apply apparmor profile {profile}", error.errno or 0) from error


def _value(number: int) -> int:
    return resource.RLIM_INFINITY if number < 0 or number >= 2**63 else number


def _least(wanted: int, ours: int) -> int:
    if ours == resource.RLIM_INFINITY:
        return wanted
    return ours if wanted == resource.RLIM_INFINITY else min(wanted, ours)
