"""The OCI runtime spec of a Docker-like container, from choices that are already made.

The engine turns HostConfig and image config into these arguments; what is Docker's custom (mounts, devices, masked paths, the fourteen
capabilities, the seccomp policy) is added here. The result is plain OCI 1.2, so that any OCI runtime runs it, with one liberty:
`process.user.username` may hold Docker's "user[:group]", which our init resolves against the image's own /etc/passwd and /etc/group at the
moment of the start, inside the root (another runtime must be given numbers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atoll.kernel import capabilities
from atoll.runtime import seccomp
from atoll.runtime.constants import INIT, SECCOMP_DIGEST
from atoll.runtime.devices import DEFAULT_RULES, Device, every_host_device

OCI_VERSION = "1.2.0"
SHM_SIZE = 64 * 1024 * 1024  # bytes, Docker's default

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# A container's own network namespace needs no capability for low ports and ping (Docker 20.10 and later).
NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}

PRIVATE_NAMESPACES: Mapping[str, str | None] = {"mount": None, "pid": None, "ipc": None, "uts": None, "network": None}


def default_spec(
    *,
    args: Sequence[str],
    env: Sequence[str] = (),
    cwd: str = "/",
    user: str = "",
    group_add: Sequence[str] = (),
    hostname: str = "",
    domainname: str = "",
    terminal: bool = False,
    console_size: tuple[int, int] | None = None,
    namespaces: Mapping[str, str | None] = PRIVATE_NAMESPACES,
    mounts: Sequence[Mapping[str, Any]] = (),
    tmpfs: Mapping[str, str] | None = None,
    shm_size: int | None = SHM_SIZE,
    privileged: bool = False,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    no_new_privileges: bool = False,
    seccomp_profile: Mapping[str, Any] | str | None = "default",
    apparmor_profile: str = "",
    masked_paths: Sequence[str] | None = None,
    readonly_paths: Sequence[str] | None = None,
    readonly_rootfs: bool = False,
    devices: Sequence[Device] = (),
    device_rules: Sequence[Mapping[str, Any]] = (),
    sysctls: Mapping[str, str] | None = None,
    rlimits: Iterable[Mapping[str, Any]] = (),
    resources: Mapping[str, Any] | None = None,
    oom_score_adj: int | None = None,
    umask: int | None = None,
    cgroups_path: str = "",
    init: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of config.json.

    `user` is Docker's "user[:group]", by name or number, "" for root; `group_add` likewise. `console_size` is (rows, columns).
    `namespaces` maps an OCI type (mount, pid, ipc, uts, network, cgroup) to None for a new one or to the path of one to join; a type that
    is missing is the host's. `mounts` are OCI mounts in the order they are made, after the default ones, which a mount or `tmpfs` of the
    same destination replaces. `tmpfs` maps a destination to Docker's options ("rw,size=64m"). `seccomp_profile` is "default", None for
    unconfined, or a parsed profile in Docker's format. `shm_size` None means no /dev/shm. `device_rules` are OCI device-cgroup rules.
    `rlimits` are {"type": "RLIMIT_NOFILE", "soft", "hard"}. `resources` is an OCI `linux.resources` (see
    `runtime.resources.from_host_config`). `masked_paths` and `readonly_paths` None mean Docker's. Capability names go with or without
    CAP_, and "ALL". Raises InvalidInput.
    """
    granted = capability_set(cap_add, cap_drop, privileged=privileged)
    allowed = resources or {}
    notes = dict(annotations or {})
    for ours in (SECCOMP_DIGEST, INIT):
        notes.pop(ours, None)
    if init:
        notes[INIT] = "true"
    if privileged:
        devices = (*every_host_device(), *devices)
        rules: list[Mapping[str, Any]] = [{"allow": True, "access": "rwm"}]
    else:
        rules = [*DEFAULT_RULES, *(device.rule() for device in devices), *device_rules]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} if path is None else {"type": kind, "path": path} for kind, path in namespaces.items()],
        "resources": {**allowed, "devices": [*rules, *allowed.get("devices", ())]},
        "devices": [device.oci() for device in devices],
        "maskedPaths": [] if privileged and masked_paths is None else list(MASKED_PATHS if masked_paths is None else masked_paths),
        "readonlyPaths": []
        if privileged and readonly_paths is None
        else list(READONLY_PATHS if readonly_paths is None else readonly_paths),
        "sysctl": {**(NETWORK_SYSCTLS if "network" in namespaces and not namespaces["network"] else {}), **(sysctls or {})},
    }
    if cgroups_path:
        linux["cgroupsPath"] = cgroups_path
    if not privileged and seccomp_profile is not None:
        if isinstance(seccomp_profile, str):
            linux["seccomp"], notes[SECCOMP_DIGEST] = seccomp.default_policy(frozenset(granted))
        else:
            linux["seccomp"] = seccomp.to_oci(seccomp_profile, granted)
            notes[SECCOMP_DIGEST] = seccomp.digest(linux["seccomp"])
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": readonly_rootfs},
        "process": _process(
            args=args,
            env=env,
            cwd=cwd,
            user=user,
            group_add=group_add,
            terminal=terminal,
            console_size=console_size,
            granted=granted,
            no_new_privileges=no_new_privileges,
            umask=umask,
        ),
        "mounts": _mounts(mounts, tmpfs or {}, shm_size, namespaces, privileged=privileged),
        "linux": linux,
        "annotations": notes,
    }
    process = spec["process"]
    process["rlimits"] = [dict(limit) for limit in rlimits]
    if oom_score_adj is not None:
        process["oomScoreAdj"] = oom_score_adj
    if apparmor_profile and not privileged:
        process["apparmorProfile"] = apparmor_profile
    if hostname and "uts" in namespaces:
        spec["hostname"] = hostname
    if domainname and "uts" in namespaces:
        spec["domainname"] = domainname
    return spec


def exec_process(
    spec: Mapping[str, Any],
    *,
    args: Sequence[str],
    env: Sequence[str] = (),
    cwd: str | None = None,
    user: str | None = None,
    terminal: bool = False,
    console_size: tuple[int, int] | None = None,
    privileged: bool = False,
) -> dict[str, Any]:
    """The OCI process for an exec in a container of `spec`: its environment (overridden by `env`), user, directory and confinement."""
    process = dict(spec["process"])
    process["args"] = list(args)
    process["env"] = merge_env(process["env"], env)
    process["cwd"] = cwd or process["cwd"]
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    if terminal and console_size:
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    if user:
        process["user"] = {**_user(user, ()), "umask": process["user"].get("umask", 0o022)}
    if privileged:
        process["capabilities"] = _capabilities(capability_set((), (), privileged=True))
    return process


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """`over`'s settings replace `base`'s of the same name; an item without "=" removes it (Docker's ReplaceOrAppendEnvValues)."""
    merged = {item.partition("=")[0]: item for item in base}
    for item in over:
        name, separator, _ = item.partition("=")
        if separator:
            merged[name] = item
        else:
            merged.pop(name, None)
    return list(merged.values())


def capability_set(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> list[str]:
    """Docker's rule: start from the default (or everything), add and drop by name, ALL meaning each; sorted. Raises InvalidInput."""
    every = capabilities.NAMES
    if privileged:
        return sorted(every)
    added = {capabilities.normalise(name) for name in add}
    dropped = {capabilities.normalise(name) for name in drop}
    start = set(every) if "ALL" in added else set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES)
    return sorted((start | (added - {"ALL"})) - dropped)


def _process(
    *,
    args: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: str,
    group_add: Sequence[str],
    terminal: bool,
    console_size: tuple[int, int] | None,
    granted: list[str],
    no_new_privileges: bool,
    umask: int | None,
) -> dict[str, Any]:
    process: dict[str, Any] = {
        "terminal": terminal,
        "user": _user(user, group_add),
        "args": list(args),
        "env": list(env),
        "cwd": cwd or "/",
        "capabilities": _capabilities(granted),
        "noNewPrivileges": no_new_privileges,
    }
    if umask is not None:
        process["user"]["umask"] = umask
    if terminal and console_size:
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


def _user(user: str, group_add: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"uid": 0, "gid": 0, "username": user or "0"}
    if group_add:
        fields["additionalGroups"] = list(group_add)
    return fields


def _capabilities(granted: list[str]) -> dict[str, list[str]]:
    # Inheritable stays empty (CVE-2022-24769); a user other than root keeps none after execve, as in Docker.
    return {"bounding": granted, "effective": granted, "permitted": granted, "inheritable": [], "ambient": []}


def _mounts(
    asked: Sequence[Mapping[str, Any]],
    tmpfs: Mapping[str, str],
    shm_size: int | None,
    namespaces: Mapping[str, str | None],
    *,
    privileged: bool,
) -> list[dict[str, Any]]:
    access = "rw" if privileged else "ro"
    quiet = ["nosuid", "noexec", "nodev"]
    made: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, access]},
    ]
    if "ipc" in namespaces:
        made.append({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet})
    if namespaces.get("ipc", "host") is None and shm_size is not None:
        made.append(
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*quiet, "mode=1777", f"size={shm_size}"]},  # noqa: S108
        )
    # Last, since its groups are made while the rest is mounted.
    made.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*quiet, access]})
    chosen = [dict(mount) for mount in asked]
    for destination, options in tmpfs.items():
        given = [option for option in options.split(",") if option]
        chosen.append({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": [*quiet, *given]})
    replaced = {mount["destination"].rstrip("/") or "/" for mount in chosen}
    kept = [mount for mount in made if mount["destination"] not in replaced]
    # Shallow first, so that a volume on /a does not cover one on /a/b.
    return kept + sorted(chosen, key=lambda mount: mount["destination"].rstrip("/").count("/"))
