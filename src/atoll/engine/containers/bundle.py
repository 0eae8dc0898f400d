"""From a container's record to the OCI config its runtime reads.

What is Docker-like and needs no HostConfig (default mounts, capabilities, seccomp, devices) is `atoll.runtime.default_spec`; this module
makes its arguments from the record. What the host trusts is added last, to the config alone, so that no record or image ever holds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.engine.containers import requests, userns
from atoll.engine.containers.inspect import command_line
from atoll.engine.containers.mounts import MountPoint, inside_volume
from atoll.engine.containers.record import Container, Record
from atoll.engine.settings import Settings
from atoll.errors import InvalidInput, NotSupported
from atoll.kernel.mounts import mount_of
from atoll.runtime import cdi, default_spec
from atoll.runtime.constants import LAYER, MOUNT_NAMESPACE, SUBPATH
from atoll.runtime.devices import Device, host_devices
from atoll.runtime.resources import from_host_config
from atoll.runtime.spec import merge_env
from atoll.runtime.trust import Trust

SHM = "/dev/shm"  # noqa: S108  # a mount point in the container
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PidOf = Callable[[str], int]
"""The main process of another container, by name or id; raises where it does not run."""
LayersOf = Callable[[str], Sequence[Path]]
"""The directories of an image's layers, the top first, by its id."""


def make_spec(
    container: Container,
    *,
    netns: str | None,
    sources: Mapping[str, Path],
    layers: LayersOf,
    pid_of: PidOf,
    links: Sequence[str] = (),
    settings: Settings,
    trust: Trust,
) -> dict[str, Any]:
    """The OCI config.

    `netns` is the path of the network namespace, "" for a new one, None for the host's; `sources` the volumes' directories by name.
    """
    record = container.record
    config, host = record.config, record.host
    options = security_options(host["SecurityOpt"] or ())
    args = command_line(record)
    mounts = [oci_mount(MountPoint.from_row(row), sources, layers) for row in record.mounts]
    spec = default_spec(
        args=args,
        env=[*environment(record, links), *container.secrets],
        cwd=config["WorkingDir"] or "/",
        user=config["User"],
        group_add=host["GroupAdd"] or (),
        hostname=config["Hostname"],
        domainname=config["Domainname"],
        terminal=config["Tty"],
        console_size=_console_size(host["ConsoleSize"]),
        namespaces=namespaces(host, netns, pid_of),
        mounts=[*_network_files(container, mounts), *_shared_memory(host, pid_of), *mounts],
        shm_size=None if host["IpcMode"] == "none" else host["ShmSize"],
        privileged=host["Privileged"],
        cap_add=host["CapAdd"] or (),
        cap_drop=host["CapDrop"] or (),
        no_new_privileges=options["no-new-privileges"],
        seccomp_profile=options["seccomp"],
        apparmor_profile=options["apparmor"],
        masked_paths=() if options["unmasked"] else host["MaskedPaths"],
        readonly_paths=() if options["unmasked"] else host["ReadonlyPaths"],
        readonly_rootfs=host["ReadonlyRootfs"],
        devices=devices(host),
        device_rules=_device_rules(host),
        sysctls=host["Sysctls"],
        rlimits=rlimits(host, settings),
        resources=from_host_config(host),
        oom_score_adj=host["OomScoreAdj"],
        cgroups_path=f"/{host['CgroupParent']}/{container.id}" if host["CgroupParent"] else "",
        annotations=host["Annotations"],
        init=bool(host["Init"]),
    )
    spec["root"]["path"] = container.paths.upper.name  # where the overlay is mounted: what hooks are told
    spreading = [row for row in record.mounts if row["propagation"] in {"shared", "rshared"}]
    if spreading:
        check_shared(spreading)
        spec["linux"]["rootfsPropagation"] = "shared"  # else what is bound would be cut off from the host's mounts first
    if host["DeviceRequests"]:
        catalogue = cdi.Catalogue.read(settings.cdi_directories)
        catalogue.apply(spec, requests.devices(host["DeviceRequests"], catalogue))
    userns.apply(spec, host["UsernsMode"])
    trust.apply(spec)
    return spec


def environment(record: Record, links: Sequence[str] = ()) -> list[str]:
    """Docker's order: PATH, HOSTNAME, TERM on a terminal, what links tell, then the container's own, which override them."""
    base = [DEFAULT_PATH, f"HOSTNAME={record.config['Hostname']}", *(["TERM=xterm"] if record.config["Tty"] else []), *links]
    return merge_env(base, record.config["Env"] or ())


def namespaces(host: Mapping[str, Any], netns: str | None, pid_of: PidOf) -> dict[str, str | None]:
    found: dict[str, str | None] = {"mount": None}
    if netns is not None:
        found["network"] = netns or None
    for kind, mode in (("pid", host["PidMode"]), ("ipc", host["IpcMode"]), ("uts", host["UTSMode"]), ("cgroup", host["CgroupnsMode"])):
        if mode.startswith("container:"):
            found[kind] = f"/proc/{pid_of(mode.removeprefix('container:'))}/ns/{kind}"
        elif mode in {"", "private", "shareable", "none"}:
            found[kind] = None
        elif mode != "host":
            raise InvalidInput(f"invalid {kind.upper()} mode: {mode}")
    if host["NetworkMode"] == "host" and not host["UTSMode"]:
        found["uts"] = None  # a hostname of its own may still be set
    if host["Privileged"] and host["CgroupnsMode"] == "private":
        found["cgroup"] = None
    return found


def own_namespaces(host: Mapping[str, Any]) -> list[str]:
    """Those its start will have made at birth, as far as that is known before: with a network to join, it is joined by path."""
    netns = {"host": None, "none": ""}.get(host["NetworkMode"], "joined")
    return [kind for kind, path in namespaces(host, netns, lambda _: 0).items() if path is None]


def _shared_memory(host: Mapping[str, Any], pid_of: PidOf) -> list[dict[str, Any]]:
    """The /dev/shm of the container whose IPC namespace is joined, or of the host."""
    mode = host["IpcMode"]
    if mode.startswith("container:"):
        elsewhere = [f"{MOUNT_NAMESPACE}=/proc/{pid_of(mode.removeprefix('container:'))}/ns/mnt"]
    elif mode == "host":
        elsewhere = []
    else:
        return []
    return [{"destination": SHM, "type": "bind", "source": SHM, "options": ["rbind", "rprivate", *elsewhere]}]


def _network_files(container: Container, mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, where the engine made them and the user mounted none."""
    taken = {mount["destination"] for mount in mounts}
    paths = container.paths
    access = "ro" if container.record.host["ReadonlyRootfs"] else "rw"
    found = []
    for destination, source in (("/etc/resolv.conf", paths.resolv_conf), ("/etc/hostname", paths.hostname), ("/etc/hosts", paths.hosts)):
        if destination not in taken and source.exists():
            found.append({"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", "rprivate", access]})
    return found


def oci_mount(point: MountPoint, sources: Mapping[str, Path], layers: LayersOf) -> dict[str, Any]:
    # Since Docker 25 read-only means what is mounted below as well.
    access = "rw" if point.rw else "rro" if point.recursive and not point.writable_below else "ro"
    if point.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", *point.options]
        return {"destination": point.place, "type": "tmpfs", "source": "tmpfs", "options": options}
    if point.type == "image":
        options = ["ro", *(f"{LAYER}={layer}" for layer in layers(point.image)), *([f"{SUBPATH}={point.subpath}"] if point.subpath else [])]
        return {"destination": point.place, "type": "overlay", "source": "overlay", "options": options}
    source = point.source
    options = ["rbind" if point.recursive else "bind", access, point.propagation or "rprivate"]
    if point.type == "volume":
        source = str(sources[point.name])
        if point.subpath:
            inside_volume(sources[point.name], point.subpath)  # says what is wrong with it; init looks again
            options.append(f"{SUBPATH}={point.subpath}")
    return {"destination": point.place, "type": "bind", "source": source, "options": options}


def check_shared(rows: Iterable[Mapping[str, Any]]) -> None:
    """What a container mounts can reach the host only through a shared mount of its. Raises InvalidInput in Docker's words."""
    for row in rows:
        point, kinds = mount_of(row["source"])
        if "shared" not in kinds:
            raise InvalidInput(f"path {row['source']} is mounted on {point} but it is not a shared mount")


def security_options(items: Any) -> dict[str, Any]:
    """--security-opt: no-new-privileges, seccomp=unconfined|<JSON>, apparmor=, systempaths=unconfined, label= (no SELinux here)."""
    found: dict[str, Any] = {"no-new-privileges": False, "seccomp": "default", "apparmor": "", "unmasked": False}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            name, _, value = item.partition(":")
        if name == "no-new-privileges":
            found[name] = value in {"", "true"}
        elif name == "seccomp":
            found[name] = _seccomp(value)
        elif name == "apparmor":
            found[name] = "" if value == "unconfined" else value
        elif name == "systempaths" and value == "unconfined":
            found["unmasked"] = True
        elif name == "writable-cgroups" and value != "false":
            raise NotSupported("--security-opt writable-cgroups is not supported")
        elif name not in {"label", "disable", "writable-cgroups"}:
            raise InvalidInput(f'invalid --security-opt 2: "{item}"')
    return found


def _seccomp(value: str) -> Any:
    if value in {"unconfined", "builtin"}:
        return None if value == "unconfined" else "default"
    try:
        profile = json.loads(value)
    except ValueError as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict):
        raise InvalidInput("Decoding seccomp profile failed: it must be a JSON object")
    return profile


def devices(host: Mapping[str, Any]) -> list[Device]:
    found: list[Device] = []
    for wanted in host["Devices"] or ():
        source = wanted.get("PathOnHost") or ""
        found += host_devices(source, wanted.get("PathInContainer") or source, wanted.get("CgroupPermissions") or "rwm")
    return found


def _device_rules(host: Mapping[str, Any]) -> list[dict[str, Any]]:
    rules = []
    for text in host["DeviceCgroupRules"] or ():
        try:
            kind, numbers, access = text.split()
            major, minor = numbers.split(":")
            rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
            rule |= {name: int(number) for name, number in (("major", major), ("minor", minor)) if number != "*"}
        except ValueError as error:
            raise InvalidInput(f"invalid device cgroup rule format: '{text}'") from error
        if kind not in {"a", "b", "c"} or set(access) - set("rwm"):
            raise InvalidInput(f"invalid device cgroup rule format: '{text}'")
        rules.append(rule)
    return rules


def rlimits(host: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    chosen = {
        name: {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard} for name, (soft, hard) in settings.default_ulimits.items()
    }
    for limit in host["Ulimits"] or ():
        chosen[limit["Name"]] = {
            "type": f"RLIMIT_{limit['Name'].upper()}",
            "soft": limit.get("Soft", 0),
            "hard": limit.get("Hard", 0),
        }
    return list(chosen.values())


def _console_size(size: Any) -> tuple[int, int] | None:
    match size:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
        case _:
            return None
