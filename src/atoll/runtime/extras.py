"""What few containers ask for: a user or a time namespace, mapped owners, a scheduler, an I/O priority, a personality.

The keeper loads this module only for a spec that has one of these, before it clones.

A user namespace comes last. Until its program starts, a container's init works with the host's privileges: it mounts, makes devices and
enters cgroups as for any other container. Then it joins the namespace, and copies its mount namespace into it, which locks every mount. The
container's root owns what is in its user namespace, its mounts and its host name; its network and its process ids stay the host's to rule,
so that CAP_NET_ADMIN and CAP_NET_RAW have no effect. Image layers belong to the host's root and are shown with mapped owners.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.errors import InvalidInput, NotSupported, SystemFailure
from atoll.kernel import capabilities, idmaps, mounts, processes, scheduling

_IDMAP = {"idmap": False, "ridmap": True}
_CLOCKS = ("monotonic", "boottime")


def prepare(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as the init is to have it. Raises InvalidInput and NotSupported, each naming the field."""
    linux, process = spec["linux"], spec["process"]
    kinds = {namespace["type"]: namespace.get("path") for namespace in linux.get("namespaces") or ()}
    if linux.get("intelRdt"):
        raise NotSupported("linux.intelRdt is not supported: no resctrl group is made")
    if linux.get("netDevices"):
        raise NotSupported("linux.netDevices is not supported: network interfaces are not moved")
    if (process.get("selinuxLabel") or linux.get("mountLabel")) and not os.path.exists("/sys/fs/selinux/enforce"):
        raise InvalidInput("selinuxLabel or mountLabel was given, but this machine has no SELinux")
    if linux.get("mountLabel"):
        raise NotSupported("linux.mountLabel is not supported")
    if linux.get("timeOffsets") and ("time" not in kinds or kinds["time"]):
        raise InvalidInput("linux.timeOffsets needs a time namespace of its own")
    if unknown := set(linux.get("timeOffsets") or ()).difference(_CLOCKS):
        raise InvalidInput(f"linux.timeOffsets: no clock {min(unknown)}: use {' and '.join(_CLOCKS)}")
    if (linux.get("personality") or {}).get("flags"):
        raise NotSupported("linux.personality.flags: none is known")
    mapped = bool(linux.get("uidMappings") or linux.get("gidMappings"))
    if mapped and ("user" not in kinds or kinds["user"]):
        raise InvalidInput("linux.uidMappings and gidMappings need a user namespace of their own")
    if "user" in kinds and not kinds["user"] and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise InvalidInput("a new user namespace needs linux.uidMappings and linux.gidMappings")
    for kind in ("uidMappings", "gidMappings"):
        if mapped:
            idmaps.check(kind, linux.get(kind) or ())
    return {**spec, "mounts": [_prepare_mount(mount, linux) for mount in spec.get("mounts") or ()]}


def _prepare_mount(mount: Mapping[str, Any], linux: Mapping[str, Any]) -> dict[str, Any]:
    """New file systems belong to the container's root, wherever that is on the host."""
    made = dict(mount)
    uid, gid = (idmaps.host_id(linux.get(f"{kind}Mappings") or (), 0) for kind in ("uid", "gid"))
    given = {option.partition("=")[0] for option in mount.get("options") or ()}
    if uid is not None and gid is not None and mount.get("type") == "tmpfs":
        made["options"] = [
            *(mount.get("options") or ()),
            *(f"{name}={value}" for name, value in (("uid", uid), ("gid", gid)) if name not in given),
        ]
    if mount.get("type") == "devpts" and linux.get("gidMappings"):
        terminals = idmaps.host_id(linux["gidMappings"], 5)
        made["options"] = [option for option in mount.get("options") or () if not option.startswith("gid=")]
        made["options"] += [f"gid={terminals}"] if terminals is not None else []
    return made


def begin(spec: Mapping[str, Any], overlay: Mapping[str, Any] | None) -> int:
    """In the init, before anything is mounted. A descriptor of the user namespace to be joined at the end, or -1."""
    linux = spec["linux"]
    namespace = -1
    for entry in linux.get("namespaces") or ():
        if entry["type"] == "time" and not entry.get("path"):
            _new_time(linux.get("timeOffsets") or {})
        elif entry["type"] == "user" and entry.get("path"):
            namespace = os.open(entry["path"], os.O_RDONLY | os.O_CLOEXEC)
        elif entry["type"] == "user":
            namespace = idmaps.user_namespace(linux["uidMappings"], linux["gidMappings"])
            if overlay is not None:
                _adopt(overlay, namespace, linux)
    return namespace


def _adopt(overlay: Mapping[str, Any], namespace: int, linux: Mapping[str, Any]) -> None:
    """Layers are shown with mapped owners. The upper directory is not (an overlay's work directory is its mounter's): what the container
    writes has the owners it has on the host.
    """
    for directory in dict.fromkeys(overlay["lower"]):
        _cover(directory, namespace)
    ids = [idmaps.host_id(linux[f"{kind}Mappings"], 0) for kind in ("uid", "gid")]
    if None not in ids:
        os.chown(overlay["upper"], *(int(number or 0) for number in ids))


def _cover(directory: str, namespace: int) -> None:
    """Mount a directory on itself with mapped owners, in this mount namespace."""
    tree = mounts.clone_tree(directory, recursive=False)
    target = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        idmaps.map_mount(tree, namespace, recursive=False)
        mounts.attach(tree, target, directory)
    finally:
        os.close(tree)
        os.close(target)


def map_owners(tree: int, mount: Mapping[str, Any], linux: Mapping[str, Any]) -> None:
    """For a bind that has maps, or asks for the container's own by the option idmap or ridmap."""
    asked = [option for option in mount.get("options") or () if option in _IDMAP]
    uids, gids = (mount.get(f"{kind}Mappings") or linux.get(f"{kind}Mappings") for kind in ("uid", "gid"))
    if not uids or not gids:
        raise InvalidInput(f"the mount at {mount['destination']} wants mapped owners: give it uidMappings and gidMappings")
    namespace = idmaps.user_namespace(uids, gids)
    try:
        idmaps.map_mount(tree, namespace, recursive=bool(asked) and _IDMAP[asked[-1]])
    finally:
        os.close(namespace)


def _new_time(offsets: Mapping[str, Mapping[str, int]]) -> None:
    """A namespace counts for children until it is joined; its clocks must be set before that."""
    processes.unshare(processes.NEWTIME)
    lines = [f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}" for clock, offset in offsets.items()]
    if lines:
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, "\n".join(lines).encode())
        except OSError as error:
            raise SystemFailure("set linux.timeOffsets", error.errno or 0) from error
        finally:
            os.close(fd)
    processes.join_path("/proc/self/ns/time_for_children", processes.NEWTIME)


def give(descriptors: Iterable[int], linux: Mapping[str, Any]) -> None:
    """To the root of the user namespace, who may then hand them on."""
    ids = [idmaps.host_id(linux.get(f"{kind}Mappings") or (), 0) for kind in ("uid", "gid")]
    for fd in descriptors:
        if None not in ids and not stat.S_ISCHR(os.fstat(fd).st_mode):
            os.fchown(fd, *(int(number or 0) for number in ids))


def finish(process: Mapping[str, Any], linux: Mapping[str, Any], namespace: int, *, is_exec: bool) -> None:
    """Just before the container's user is become: what needs privilege, then the user namespace."""
    domain = (linux.get("personality") or {}).get("domain")
    if domain:
        scheduling.set_domain(domain)
    priority = process.get("ioPriority")
    if priority:
        scheduling.set_io_priority(priority.get("class", ""), int(priority.get("priority", 0)))
    scheduler = process.get("scheduler")
    if scheduler:
        times = (int(scheduler.get("runtime", 0)), int(scheduler.get("deadline", 0)), int(scheduler.get("period", 0)))
        scheduling.set_scheduler(
            scheduler.get("policy", ""),
            nice=int(scheduler.get("nice", 0)),
            priority=int(scheduler.get("priority", 0)),
            flags=scheduler.get("flags") or (),
            deadline=times,
        )
    affinity = (process.get("execCPUAffinity") or {}).get("final")
    if affinity and is_exec:
        _set_affinity(affinity)
    if namespace >= 0:
        processes.join(namespace, processes.NEWUSER, "the container's user namespace")
        os.close(namespace)
        capabilities.available.cache_clear()  # here there are all of them
        processes.become_root()
        processes.unshare(processes.NEWNS | processes.NEWUTS)


def _set_affinity(text: str) -> None:
    cpus: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
        os.sched_setaffinity(0, cpus)
    except ValueError as error:
        raise InvalidInput(f"execCPUAffinity {text!r} is not a list of CPUs") from error
    except OSError as error:
        raise SystemFailure(f"set the CPU affinity to {text}", error.errno or 0) from error
