"""The values networking speaks in: ports asked for, ports published, networks and endpoints.

An endpoint is one container's seat on one network: an address, a MAC, a veth pair and its published ports. Both networks and endpoints
are plain frozen data that goes to disk as JSON; what acts on them lives in the other modules of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port to publish, as `-p host_ip:host_port:container_port/protocol`.

    `host_port` 0 asks for an ephemeral one; with `host_port_end` above it, for any free one of the range.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port that is published. The empty host address has become two: 0.0.0.0 and, where the host has IPv6, ::."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Network:
    """One network. `driver` is bridge, host or null; address fields are empty but for bridge."""

    id: str  # 64 hex digits
    name: str
    driver: str
    created: str  # Docker's timestamp
    subnet: str = ""  # 172.18.0.0/16
    gateway: str = ""
    ip_range: str = ""  # part of the subnet that addresses are taken from
    auxiliary: dict[str, str] = field(default_factory=dict)  # name to address never given out
    bridge: str = ""  # name of the link
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] = field(default_factory=dict)
    is_subnet_ours: bool = False  # chosen by us, not by a user: it may change while nobody is on it
    subnet6: str = ""  # fd00:1::/64; empty where the network has no IPv6
    gateway6: str = ""
    ip_range6: str = ""
    auxiliary6: dict[str, str] = field(default_factory=dict)

    @property
    def is_predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def has_names(self) -> bool:
        """Containers find each other by name on every network a user made, not on the default bridge (Docker's rule)."""
        return self.driver == "bridge" and not self.is_predefined

    def option_true(self, key: str, *, default: bool) -> bool:
        value = self.options.get(key)
        return default if value is None else value.lower() in ("1", "t", "true")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container on a network. `scope` tells whose container it is: the engine's, or a pod sandbox of the kubelet's."""

    id: str  # 64 hex digits
    network_id: str
    container_id: str
    scope: str
    name: str  # the container's name, without the slash
    netns: str  # path of the bind-mounted namespace
    ifname: str = ""  # inside: eth0
    link: str = ""  # outside: the bridge port
    mac: str = ""
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    aliases: tuple[str, ...] = ()
    priority: int = 0  # Docker's GwPriority: the highest gives the default route
    dns: tuple[str, ...] = ()  # the container's own upstream servers (--dns)
    hostname: str = ""
    links: dict[str, str] = field(default_factory=dict)  # alias that this container alone knows to name on the network (--link)
    has_names: bool = False  # served by the embedded name service
    link_local: tuple[str, ...] = ()  # further addresses of the interface, in 169.254.0.0/16
    ports: tuple[PublishedPort, ...] = ()
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""

    @property
    def dns_names(self) -> tuple[str, ...]:
        """Docker's DNSNames: name, aliases, short id and hostname, without doubles, in this order."""
        return tuple(dict.fromkeys(name for name in (self.name, *self.aliases, self.container_id[:12], self.hostname) if name))

    def settings(self, *, driver_opts: dict[str, str] | None = None) -> dict[str, Any]:
        """The engine API's EndpointSettings, what stands in NetworkSettings.Networks[name] of a running container."""
        return {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": list(self.aliases) or None,
            "MacAddress": self.mac,
            "DriverOpts": driver_opts,
            "GwPriority": self.priority,
            "NetworkID": self.network_id,
            "EndpointID": self.id,
            "Gateway": self.gateway,
            "IPAddress": self.address,
            "IPPrefixLen": self.prefix,
            "IPv6Gateway": self.gateway6,
            "GlobalIPv6Address": self.address6,
            "GlobalIPv6PrefixLen": self.prefix6,
            "DNSNames": list(self.dns_names) if self.address else None,
        }


PREDEFINED = ("bridge", "host", "none")


def endpoint_from_json(value: dict[str, Any]) -> Endpoint:
    """Of what `dataclasses.asdict` made of one. Raises TypeError, KeyError or ValueError where it is something else."""
    ports = tuple(PublishedPort(**port) for port in value["ports"])
    return Endpoint(
        **{
            **value,
            "aliases": tuple(value["aliases"]),
            "dns": tuple(value["dns"]),
            "link_local": tuple(value.get("link_local", ())),
            "ports": ports,
        }
    )
