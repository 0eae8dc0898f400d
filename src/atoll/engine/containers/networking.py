"""A container's place on the network: its namespace, its endpoints, and the files that tell it of them.

The namespace is made before the container, so that links can be put into it; one that gets none ("none") is born with the container.

NetworkMode decides: a network's name, "none", "host", "container:<other>", or, in process, "netns:<path>", where whoever made the namespace
has done all of this already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atoll.engine.containers import links
from atoll.engine.containers.config import parse_port
from atoll.engine.containers.inspect import Networking
from atoll.engine.containers.record import Container
from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.network import HOST_GATEWAY, Endpoint, Networks, PortBinding, host_gateway, hosts_file, resolv_conf_file

NETNS = "netns:"
CONTAINER = "container:"
NEW = ""  # the place of a namespace that the container's init is to make

Find = Callable[[str], Container]


def check(config: Mapping[str, Any], host: Mapping[str, Any], wanted: Mapping[str, Any], *, trusted: bool) -> None:
    """Refuses combinations that mean nothing. `trusted`: the caller is in process. Raises InvalidInput with Docker's words."""
    mode = host["NetworkMode"]
    if mode.startswith(NETNS) and not trusted:
        raise InvalidInput(f"invalid network mode: {mode}")
    if mode.startswith(CONTAINER):
        if config["Hostname"]:
            raise InvalidInput("conflicting options: hostname and the network mode")
        if host["PortBindings"] or host["PublishAllPorts"]:
            raise InvalidInput("conflicting options: port publishing and the container type network mode")
        if host["Links"]:
            raise InvalidInput("conflicting options: container type network can't be used with links")
        if host["ExtraHosts"]:
            raise InvalidInput("conflicting options: custom host-to-IP mapping and the network mode")
    if mode in {"host", "none"} and any(name != mode for name in wanted):
        raise InvalidInput(f"conflicting options: cannot attach a container in {mode} network mode to other networks")
    for name, settings in wanted.items():
        if settings is not None and not isinstance(settings, dict):
            raise InvalidInput(f"invalid JSON: field NetworkingConfig.EndpointsConfig.{name}: must be an object")


def wanted_networks(host: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Networks to join, the one of NetworkMode first: name to EndpointSettings asked for."""
    mode = host["NetworkMode"]
    if mode.startswith((NETNS, CONTAINER)):
        return {}
    rest = {name: settings or {} for name, settings in given.items() if name != mode}
    return {mode: given.get(mode) or {}, **rest}


class Networker:
    """Connects containers when they start and takes them off when they end."""

    def __init__(self, networks: Networks, namespaces: Path, find: Find) -> None:
        self._networks = networks
        self._namespaces = namespaces
        self._find = find

    def namespace(self, container: Container) -> Path:
        return self._namespaces / container.id

    def shown(self, container: Container) -> Networking:
        """For inspect and ps."""
        alone = container.record.host["NetworkMode"] == "none"
        sandbox = f"/proc/{container.record.pid}/ns/net" if alone else str(self.namespace(container))
        return Networking(self._networks.ports(container.id) if container.is_up else {}, sandbox)

    async def connect(self, container: Container) -> tuple[str | None, dict[str, Any]]:
        """The namespace's path (None: the host's) or NEW, and the endpoints, with the container's files written. On failure nothing is
        left.
        """
        mode = container.record.host["NetworkMode"]
        if mode.startswith(NETNS):
            return mode.removeprefix(NETNS), {}
        if mode.startswith(CONTAINER):
            return self._join(container, mode.removeprefix(CONTAINER)), {}
        if mode in {"host", "none"}:
            await self._networks.attach(container.id, mode, name=container.name)
            self._write_files(container, {})
            return None if mode == "host" else NEW, self._settings(container)
        netns = await self._networks.create_netns(container.id)
        try:
            await self._attach_all(container, netns)
            self._write_files(container, container.record.networking)
        except BaseException:
            await self.disconnect(container)
            raise
        return str(netns), self._settings(container)

    async def disconnect(self, container: Container) -> None:
        """Idempotent."""
        mode = container.record.host["NetworkMode"]
        if mode.startswith((NETNS, CONTAINER)):
            return
        await self._networks.detach_all(container.id)
        if mode not in {"host", "none"}:
            await self._networks.delete_netns(container.id)

    async def join(self, container: Container, network: str, settings: dict[str, Any]) -> None:
        """POST /networks/{id}/connect."""
        record = container.record
        mode = record.host["NetworkMode"]
        if mode.startswith((NETNS, CONTAINER)) or mode in {"host", "none"}:
            raise InvalidInput(
                f"container sharing network namespace with another container or host cannot be connected to any other network: {mode}"
            )
        name = self._networks.get(network).name
        if name in {"host", "none"}:
            raise InvalidInput(f"container cannot be connected to {name} network")
        if name in record.networking:
            raise Conflict(f"endpoint with name {container.name} already exists in network {name}")
        if container.is_up:
            await self._attach(container, name, settings, self.namespace(container), ())
        container.save(networking={**record.networking, name: settings}, endpoints=self._settings(container) if container.is_up else {})

    async def leave(self, container: Container, network: str) -> None:
        """POST /networks/{id}/disconnect."""
        name = self._networks.get(network).name
        record = container.record
        if name not in record.networking:
            raise NotFound(f"container {container.id} is not connected to network {name}")
        if record.host["NetworkMode"] == "host":
            raise InvalidInput("container cannot be disconnected from host network or connected to host network")
        if container.is_up:
            await self._networks.detach(container.id, name)
        left = {known: settings for known, settings in record.networking.items() if known != name}
        container.save(networking=left, endpoints=self._settings(container) if container.is_up else {})

    def _join(self, container: Container, other: str) -> str:
        target = self._find(other)
        if target.id == container.id:
            raise Conflict("cannot join own network namespace")
        if not target.is_up:
            raise Conflict(f"cannot join network of a non running container: {target.id}")
        for mine, theirs in zip(_files(container), _files(target), strict=True):
            if theirs.exists():
                mine.write_bytes(theirs.read_bytes())
        return f"/proc/{target.record.pid}/ns/net"

    async def _attach_all(self, container: Container, netns: Path) -> None:
        ports = port_bindings(container)
        for name, settings in container.record.networking.items():
            is_bridge = self._networks.get(name).driver == "bridge"
            await self._attach(container, name, settings, netns, ports if is_bridge else ())
            if is_bridge:
                ports = ()  # published once, on the first network that can

    async def _attach(self, container: Container, name: str, settings: Mapping[str, Any], netns: Path, ports: Any) -> None:
        host = container.record.host
        asked = settings.get("IPAMConfig") or {}
        await self._networks.attach(
            container.id,
            name,
            netns=netns,
            name=container.name,
            hostname=container.record.config["Hostname"],
            aliases=settings.get("Aliases") or (),
            ipv4=asked.get("IPv4Address") or None,
            ipv6=asked.get("IPv6Address") or None,
            mac=settings.get("MacAddress") or (container.record.config["MacAddress"] if name == host["NetworkMode"] else None) or None,
            ports=ports,
            priority=settings.get("GwPriority") or 0,
            dns=host["Dns"] or (),
            links=dict(links.aliased(settings.get("Links"))),
            options=settings.get("DriverOpts") or {},
            link_local=asked.get("LinkLocalIPs") or (),
        )

    def _settings(self, container: Container) -> dict[str, Any]:
        return {self._networks.get(seat.network_id).name: seat.settings() for seat in self._networks.endpoints(container.id)}

    def _write_files(self, container: Container, networking: Mapping[str, Any]) -> None:
        record, paths = container.record, container.paths
        config, host = record.config, record.host
        on_host = host["NetworkMode"] == "host"
        seats = self._networks.endpoints(container.id)
        name = config["Hostname"]
        extra = [*(host["ExtraHosts"] or ()), *links.hosts_entries(container, self._linked(container))]
        text = hosts_file(
            name,
            [address for seat in seats for address in (seat.address, seat.address6)],
            domainname=config["Domainname"],
            extra_hosts=extra,
            gateway=_gateway(seats) if any(HOST_GATEWAY in entry for entry in extra) else "",
            host_network=on_host,
        )
        _write(paths.hosts, text)
        embedded = any(self._networks.get(known).has_names for known in networking)
        servers = resolv_conf_file(
            embedded=embedded, servers=host["Dns"], search=host["DnsSearch"], options=host["DnsOptions"], host_network=on_host
        )
        _write(paths.resolv_conf, servers)
        _write(paths.hostname, name + "\n")

    def _linked(self, container: Container) -> dict[str, Container]:
        """By alias; none where the name service of the network knows links itself."""
        host = container.record.host
        if not host["Links"] or self._networks.get(host["NetworkMode"]).has_names:
            return {}
        return {alias: self._find(name) for alias, name in links.aliased(host["Links"])}

    def link_environment(self, container: Container) -> list[str]:
        return links.environment(container, self._linked(container))


def _gateway(seats: Iterable[Endpoint]) -> str:
    return host_gateway(next((seat.gateway for seat in seats if seat.gateway), ""))


def _write(path: Path, text: str) -> None:
    """As Path.write_text, at a third of its cost."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _files(container: Container) -> tuple[Path, Path, Path]:
    return container.paths.hosts, container.paths.resolv_conf, container.paths.hostname


def port_bindings(container: Container) -> tuple[PortBinding, ...]:
    """HostConfig.PortBindings, and with PublishAllPorts every exposed port, as the network floor takes them."""
    host, config = container.record.host, container.record.config
    wanted = dict(host["PortBindings"])
    if host["PublishAllPorts"]:
        for port in config["ExposedPorts"] or ():
            number, protocol = parse_port(port)
            wanted.setdefault(f"{number}/{protocol}", [{"HostIp": "", "HostPort": ""}])
    found = []
    for key, bindings in wanted.items():
        number, protocol = parse_port(key)
        for binding in bindings:
            first, _, last = binding["HostPort"].partition("-")
            found.append(PortBinding(number, protocol, binding["HostIp"], int(first or 0), int(last or 0)))
    return tuple(found)
