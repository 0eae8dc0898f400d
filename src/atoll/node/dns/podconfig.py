"""A pod's /etc/resolv.conf, by its dnsPolicy and dnsConfig (core/v1 PodSpec)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.network.files import Resolver, host_resolver, resolv_conf_file

_SEARCH_MAX = 32  # paths; validation's MaxDNSSearchPaths
_SERVERS_MAX = 3  # glibc's MAXNS


def pod_resolv_conf(
    spec: dict[str, Any], namespace: str, *, cluster_dns: Iterable[str], domain: str = "cluster.local", host: Resolver | None = None
) -> str:
    """`spec` is the pod's; `cluster_dns` are the addresses of kube-dns. Raises InvalidInput for a server that is no address."""
    host = host_resolver() if host is None else host
    config = spec.get("dnsConfig") or {}
    policy = _effective(spec)
    if policy == "ClusterFirst":
        servers: tuple[str, ...] = tuple(cluster_dns)
        search: tuple[str, ...] = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *host.search)
        options: tuple[str, ...] = ("ndots:5",)
    elif policy == "None":
        servers, search, options = (), (), ()
    else:
        servers, search, options = (), host.search, host.options
    servers = _unique((*servers, *(config.get("nameservers") or ())))[:_SERVERS_MAX]
    search = _unique((*search, *(config.get("searches") or ())))[:_SEARCH_MAX]
    # The host's own search and options stand in the arguments already where the policy wants them.
    bare = Resolver(servers=host.servers)
    return resolv_conf_file(
        bare,
        servers=servers,
        search=search,
        options=_merged(options, config.get("options") or ()),
        host_network=bool(spec.get("hostNetwork")),
    )


def _effective(spec: dict[str, Any]) -> str:
    policy: str = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirstWithHostNet":
        return "ClusterFirst"
    return "Default" if policy == "ClusterFirst" and spec.get("hostNetwork") else policy


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _merged(base: Iterable[str], extra: Iterable[dict[str, str]]) -> tuple[str, ...]:
    """DnsConfig's options win over the policy's of the same name."""
    found = {option.partition(":")[0]: option for option in base}
    for option in extra:
        name, value = option.get("name", ""), option.get("value")
        found[name] = f"{name}:{value}" if value not in (None, "") else name
    return tuple(found.values())
