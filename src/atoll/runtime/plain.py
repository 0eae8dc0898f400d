"""A config.json of ours made plain, for OCI runtimes nobody here wrote.

Ours takes liberties that spare work at each start (see `runtime.spec`): users by name, an overlay as root, parts of volumes, limits beyond
what this machine can give. Here they are resolved: numbers, paths, and only what a runtime will not fail on.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from typing import Any

from atoll.errors import NotSupported
from atoll.kernel import capabilities
from atoll.kernel.cgroups import Cgroup
from atoll.runtime import rootfs, users
from atoll.runtime.constants import INIT, LAYER, MOUNT_NAMESPACE, SECCOMP_DIGEST, SUBPATH

VERSION = "1.0.2"  # crun of 2023 refuses to read on where it sees a later one
_INITS = ("docker-init", "tini-static", "tini", "catatonit")
_INIT_INSIDE = "/sbin/docker-init"


def config(spec: Mapping[str, Any], *, root: int, root_path: str, cgroup: Cgroup, places: str, swap: bool) -> dict[str, Any]:
    """The config for another runtime.

    `root` is an open descriptor of the mounted root at `root_path`. `places` is a directory in which more may be mounted, in a mount
    namespace of the caller's own. `swap`: this machine accounts for swap. Raises InvalidInput, NotSupported, SystemFailure.
    """
    linux = dict(spec["linux"])
    made = {**spec, "root": {**spec["root"], "path": root_path}, "linux": linux, "process": process(spec["process"], root)}
    notes = dict(spec.get("annotations") or {})
    notes.pop(SECCOMP_DIGEST, None)
    made["mounts"] = [_mount(mount, places, number, cgroup) for number, mount in enumerate(spec.get("mounts") or ())]
    if notes.pop(INIT, "") == "true":
        made["mounts"].append({"destination": _INIT_INSIDE, "type": "bind", "source": _init_program(), "options": ["bind", "ro"]})
        made["process"]["args"] = [_INIT_INSIDE, "--", *made["process"]["args"]]
    made["annotations"] = notes
    made["ociVersion"] = VERSION
    linux["cgroupsPath"] = cgroup.path
    if made.pop("domainname", ""):  # newer than the version above; older runtimes have it by its sysctl
        linux["sysctl"] = {**(linux.get("sysctl") or {}), "kernel.domainname": spec["domainname"]}
    memory = (linux.get("resources") or {}).get("memory")
    if memory and not swap:
        linux["resources"] = {**linux["resources"], "memory": {name: value for name, value in memory.items() if name != "swap"}}
    return made


def process(fields: Mapping[str, Any], root: int) -> dict[str, Any]:
    """An OCI process with numbers for its user, and capabilities and limits that this machine can give."""
    made = dict(fields)
    user = users.of(root, fields["user"])
    made["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups), "umask": fields["user"].get("umask", 0o022)}
    variables = list(fields.get("env") or ())
    if not any(item.startswith("HOME=") and item != "HOME=" for item in variables):
        made["env"] = [*(item for item in variables if item != "HOME="), f"HOME={user.home}"]
    here = capabilities.available()
    made["capabilities"] = {
        kind: [name for name in names or () if capabilities.mask((name,)) & here]
        for kind, names in (fields.get("capabilities") or {}).items()
    }
    made["rlimits"] = [_limit(limit) for limit in fields.get("rlimits") or ()]
    if not os.path.exists("/sys/kernel/security/apparmor"):
        made.pop("apparmorProfile", None)
    return made


def _limit(limit: Mapping[str, Any]) -> dict[str, Any]:
    """Cut to our own hard limit where we may not raise it, as our own init does."""
    number = getattr(resource, limit["type"], None)
    if number is None or capabilities.available() >> capabilities.NUMBER["CAP_SYS_RESOURCE"] & 1:
        return dict(limit)
    _, most = resource.getrlimit(number)
    if most == resource.RLIM_INFINITY:
        return dict(limit)
    return {"type": limit["type"], **{name: min(limit[name], most) if limit[name] >= 0 else most for name in ("soft", "hard")}}


def _mount(mount: Mapping[str, Any], places: str, number: int, cgroup: Cgroup) -> dict[str, Any]:
    """What only we can mount (a part of a volume, another container's /dev/shm, an image) is mounted where the other can name it."""
    options = list(mount.get("options") or ())
    ours = [option for option in options if option.partition("=")[0] in {SUBPATH, MOUNT_NAMESPACE, LAYER}]
    if not ours:
        return dict(mount)
    place = os.path.join(places, str(number))
    host = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rootfs.mount_all(host, {"linux": {}, "mounts": [{**mount, "destination": place}]}, cgroup, before_cgroup=lambda: None)
    finally:
        os.close(host)
    left = [option for option in options if option not in ours and option not in {"bind", "rbind"}]
    return {"destination": mount["destination"], "type": "bind", "source": place, "options": ["rbind", *left]}


def _init_program() -> str:
    for name in _INITS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise NotSupported(f"--init with another runtime needs one of {', '.join(_INITS)} on the host: install tini, or use the runtime atoll")
