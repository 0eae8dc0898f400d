"""What the kubelet refuses to run though the API has let it in: pods that ask for sysctls that are not known to be safe.

A sysctl is safe when it is of a namespace of the pod's own and cannot disturb others (kubelet, pkg/kubelet/sysctl). The pod fails, as
upstream, before anything of it is made.
"""

from __future__ import annotations

from typing import NamedTuple

from atoll.client.objects import Object

SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)


class Refusal(NamedTuple):
    """`reason` and `message` of the event; the status says `Pod was rejected: ` before the message."""

    reason: str
    message: str


def refusal_of(pod: Object) -> Refusal | None:
    spec = pod["spec"]
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or ():
        name = sysctl["name"].replace("/", ".")
        why = ""
        if name not in SAFE_SYSCTLS:
            why = "not allowlisted"
        elif name.startswith("net.") and spec.get("hostNetwork"):
            why = "not allowed with host net enabled"
        elif name.startswith("kernel.shm") and spec.get("hostIPC"):
            why = "not allowed with host ipc enabled"
        if why:
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{sysctl["name"]}" {why}')
    return None
