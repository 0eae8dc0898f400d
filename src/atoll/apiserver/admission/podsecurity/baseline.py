"""The checks of the baseline level: what is known to let a container out of its box.

Each entry of CHECKS is the minor release since which a check counts in this form, and the check; one with the same key replaces an older.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.admission.podsecurity.pod import Check, Container, Subject, Violation, numbered, quoted, setters

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD, _SECCOMP_CONTAINER = "seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"
_CAPABILITIES = frozenset(
    ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
     "SETUID", "SYS_CHROOT")
)  # fmt: skip
_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    )
)
_SYSCTLS_27 = _SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {f"net.ipv4.tcp_{name}" for name in ("fin_timeout", "keepalive_intvl", "keepalive_probes", "keepalive_time")}
_SELINUX = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
_SELINUX_31 = _SELINUX | {"container_engine_t"}
SECCOMP_TYPES = ("RuntimeDefault", "Localhost")


def app_armor(subject: Subject) -> Violation | None:
    values = set()

    def is_bad(context: Mapping[str, Any]) -> bool:
        kind = (context.get("appArmorProfile") or {}).get("type")
        if kind in (None, *SECCOMP_TYPES):
            return False
        values.add(kind)
        return True

    who = setters(subject, is_bad)
    told = [f"{who} must not set AppArmor profile type to {quoted(sorted(values))}"] if who else []
    annotations = subject.metadata.get("annotations") or {}
    marks = sorted(
        f'{name}="{value}"'
        for name, value in annotations.items()
        if name.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )
    found = [*told, *marks]
    if not found:
        return None
    return Violation("forbidden AppArmor profile" if len(values) + len(marks) == 1 else "forbidden AppArmor profiles", ", ".join(found))


def capabilities(subject: Subject) -> Violation | None:
    added: set[str] = set()

    def is_bad(context: Mapping[str, Any], _: Container) -> bool:
        bad = set((context.get("capabilities") or {}).get("add") or ()) - _CAPABILITIES
        added.update(bad)
        return bool(bad)

    names = subject.named(is_bad)
    if not names:
        return None
    detail = f"{numbered('container', names)} must not include {quoted(sorted(added))} in securityContext.capabilities.add"
    return Violation("non-default capabilities", detail)


def host_namespaces(subject: Subject) -> Violation | None:
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if subject.spec.get(name)]
    return Violation("host namespaces", ", ".join(f"{name}=true" for name in shared)) if shared else None


def host_paths(subject: Subject) -> Violation | None:
    names = [volume["name"] for volume in subject.spec.get("volumes") or () if volume.get("hostPath") is not None]
    return Violation("hostPath volumes", numbered("volume", names)) if names else None


def host_ports(subject: Subject) -> Violation | None:
    ports: set[str] = set()

    def is_bad(_: Mapping[str, Any], container: Container) -> bool:
        bad = [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]
        ports.update(bad)
        return bool(bad)

    names = subject.named(is_bad)
    if not names:
        return None
    verb, word = "uses" if len(names) == 1 else "use", "hostPort" if len(ports) == 1 else "hostPorts"
    return Violation("hostPort", f"{numbered('container', names)} {verb} {word} {', '.join(sorted(ports))}")


def host_handlers(subject: Subject) -> Violation | None:
    """Probes and hooks that call another host would be the kubelet's requests, made for the pod's author."""
    hosts: set[str] = set()

    def is_bad(_: Mapping[str, Any], container: Container) -> bool:
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
        handlers += [lifecycle.get("postStart"), lifecycle.get("preStop")]
        actions = [(handler or {}).get(action) or {} for handler in handlers for action in ("httpGet", "tcpSocket")]
        bad = {action["host"] for action in actions if action.get("host")}
        hosts.update(bad)
        return bool(bad)

    names = subject.named(is_bad)
    if not names:
        return None
    verb = "uses" if len(names) == 1 else "use"
    return Violation(
        "probe or lifecycle host", f"{numbered('container', names)} {verb} {numbered('probe or lifecycle host', sorted(hosts))}"
    )


def privileged(subject: Subject) -> Violation | None:
    names = subject.named(lambda context, _: context.get("privileged"))
    return Violation("privileged", f"{numbered('container', names)} must not set securityContext.privileged=true") if names else None


def proc_mount(subject: Subject) -> Violation | None:
    kinds: set[str] = set()

    def is_bad(context: Mapping[str, Any], _: Container) -> bool:
        kind = context.get("procMount") or "Default"
        if kind != "Default":
            kinds.add(kind)
        return bool(kind != "Default")

    names = subject.named(is_bad)
    if not names:
        return None
    return Violation("procMount", f"{numbered('container', names)} must not set securityContext.procMount to {quoted(sorted(kinds))}")


def proc_mount_35(subject: Subject) -> Violation | None:
    return None if subject.has_own_users else proc_mount(subject)


def _se_linux(subject: Subject, allowed: frozenset[str]) -> Violation | None:
    kinds: set[str] = set()
    fields: set[str] = set()

    def is_bad(context: Mapping[str, Any]) -> bool:
        options = context.get("seLinuxOptions") or {}
        kind = options.get("type") or ""
        own = {name for name in ("user", "role") if options.get(name)}
        fields.update(own)
        if kind not in allowed:
            kinds.add(kind)
        return bool(own) or kind not in allowed

    who = setters(subject, is_bad)
    if not who:
        return None
    told = [numbered("type", sorted(kinds))] if kinds else []
    told += [f"{name} may not be set" for name in ("user", "role") if name in fields]
    return Violation("seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(told)}")


def se_linux(subject: Subject) -> Violation | None:
    return _se_linux(subject, _SELINUX)


def se_linux_31(subject: Subject) -> Violation | None:
    return _se_linux(subject, _SELINUX_31)


def seccomp_annotations(subject: Subject) -> Violation | None:
    """Until 1.18 profiles were annotations."""
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{container.get('name')}" for container in subject.containers())]
    annotations = subject.metadata.get("annotations") or {}
    bad = sorted(
        f'{key}="{annotations[key]}"'
        for key in set(keys)
        if key in annotations
        and annotations[key] not in ("runtime/default", "docker/default")
        and not annotations[key].startswith("localhost/")
    )
    word = "annotation" if len(bad) == 1 else "annotations"
    return Violation("seccompProfile", f"forbidden {word} {', '.join(bad)}") if bad else None


def seccomp(subject: Subject) -> Violation | None:
    kinds: set[str] = set()

    def is_bad(context: Mapping[str, Any]) -> bool:
        kind = (context.get("seccompProfile") or {}).get("type")
        if kind in (None, *SECCOMP_TYPES):
            return False
        kinds.add(kind)
        return True

    who = setters(subject, is_bad)
    if not who:
        return None
    return Violation("seccompProfile", f"{who} must not set securityContext.seccompProfile.type to {quoted(sorted(kinds))}")


def _sysctls(subject: Subject, allowed: frozenset[str]) -> Violation | None:
    bad = [sysctl["name"] for sysctl in subject.context.get("sysctls") or () if sysctl["name"] not in allowed]
    return Violation("forbidden sysctls", ", ".join(bad)) if bad else None


def sysctls(subject: Subject) -> Violation | None:
    return _sysctls(subject, _SYSCTLS)


def sysctls_27(subject: Subject) -> Violation | None:
    return _sysctls(subject, _SYSCTLS_27)


def sysctls_29(subject: Subject) -> Violation | None:
    return _sysctls(subject, _SYSCTLS_29)


def windows_host_process(subject: Subject) -> Violation | None:
    who = setters(subject, lambda context: (context.get("windowsOptions") or {}).get("hostProcess"))
    return Violation("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true") if who else None


CHECKS: tuple[tuple[str, int, Check], ...] = (
    ("appArmor", 0, app_armor),
    ("capabilities", 0, capabilities),
    ("hostNamespaces", 0, host_namespaces),
    ("hostPaths", 0, host_paths),
    ("hostPorts", 0, host_ports),
    ("hostHandlers", 34, host_handlers),
    ("privileged", 0, privileged),
    ("procMount", 0, proc_mount),
    ("procMount", 35, proc_mount_35),
    ("seLinux", 0, se_linux),
    ("seLinux", 31, se_linux_31),
    ("seccomp", 0, seccomp_annotations),
    ("seccomp", 19, seccomp),
    ("sysctls", 0, sysctls),
    ("sysctls", 27, sysctls_27),
    ("sysctls", 29, sysctls_29),
    ("windowsHostProcess", 0, windows_host_process),
)
