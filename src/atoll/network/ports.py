"""Host ports: chosen, held against other programs, and given back.

A published port is held by a socket bound to it, so that a program that wants the same port is told so, and so are we. The same socket is a
relay for what nftables does not carry.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

from atoll.errors import Conflict, InvalidInput, SystemFailure, Unavailable
from atoll.network.model import Endpoint, PortBinding, PublishedPort
from atoll.network.port_owner import process_on
from atoll.network.relay import TcpRelay, UdpRelay

_EPHEMERAL_TRIES = 64
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_BACKLOG = 128

Reservation = tuple[PublishedPort, socket.socket]


class Ports:
    """The instance's published ports. Not yet started relays are plain sockets; `start` makes them serve."""

    def __init__(self, owner: Callable[[PublishedPort], str] = lambda _: "") -> None:
        """`owner` gives the name of the container that has a port, for messages."""
        self._owner = owner
        self._held: dict[tuple[str, int], list[PublishedPort]] = {}  # protocol and host port
        self._relays: dict[str, list[TcpRelay | UdpRelay]] = {}  # endpoint id

    def reserve(self, bindings: Sequence[PortBinding], address: str) -> list[Reservation]:
        """All of them or none. Raises Conflict in Docker's words where a port is taken, InvalidInput where a binding makes no sense."""
        with contextlib.ExitStack() as undo:
            reserved: list[Reservation] = []
            for binding in bindings:
                for reservation in self._reserve_one(binding, address):
                    undo.callback(self.release, [reservation])
                    reserved.append(reservation)
            undo.pop_all()
        return reserved

    def hold_again(self, ports: Sequence[PublishedPort], address: str) -> list[Reservation]:
        """After a restart of the engine: what can still be held. A port lost to another program stays published where nftables carries
        it.
        """
        reserved = []
        for port in ports:
            with contextlib.suppress(Conflict, InvalidInput, SystemFailure):
                reserved.append((port, self._bind(port, address)))
            self._held.setdefault((port.protocol, port.host_port), []).append(port)
        return reserved

    async def start(self, reserved: Sequence[Reservation], endpoint: Endpoint) -> None:
        """Serves the reserved sockets for this endpoint until `stop`."""
        relays = self._relays.setdefault(endpoint.id, [])
        for port, held in reserved:
            relay = (TcpRelay if port.protocol == "tcp" else UdpRelay)(held, (_target(port, endpoint), port.container_port))
            relays.append(relay)
            await relay.start()

    def stop(self, endpoint_id: str, ports: Sequence[PublishedPort]) -> None:
        for relay in self._relays.pop(endpoint_id, ()):
            relay.close()
        self._forget(ports)

    def release(self, reserved: Sequence[Reservation]) -> None:
        """Gives back reservations that were never started."""
        for port, held in reserved:
            held.close()
            self._forget([port])

    def close(self) -> None:
        for endpoint_id in list(self._relays):
            self.stop(endpoint_id, ())
        self._held.clear()

    def _forget(self, ports: Sequence[PublishedPort]) -> None:
        for port in ports:
            key = port.protocol, port.host_port
            if port in (others := self._held.get(key, [])):
                others.remove(port)
                if not others:
                    del self._held[key]

    def _by(self, port: PublishedPort) -> str:
        name = self._owner(port)
        return f" by container {name}" if name else ""

    def _reserve_one(self, binding: PortBinding, address: str) -> list[Reservation]:
        hosts = _hosts(binding)
        problem: Conflict | None = None
        for number in _candidates(binding):
            try:
                return self._reserve_number(binding, hosts, number, address)
            except Conflict as error:
                problem = error
                if binding.host_port and not binding.host_port_end:
                    raise
        raise problem or Unavailable(f"no free host port for {binding.container_port}/{binding.protocol}")

    def _reserve_number(self, binding: PortBinding, hosts: Sequence[str], number: int, address: str) -> list[Reservation]:
        """The same number on every host address: where the kernel chooses (0), it does so on the first."""
        reserved: list[Reservation] = []
        try:
            for host in hosts:
                port = PublishedPort(binding.container_port, binding.protocol, host, number)
                held = self._bind(port, address)
                number = held.getsockname()[1]
                port = PublishedPort(binding.container_port, binding.protocol, host, number)
                self._held.setdefault((port.protocol, number), []).append(port)
                reserved.append((port, held))
        except BaseException:
            self.release(reserved)
            raise
        return reserved

    def _bind(self, port: PublishedPort, address: str) -> socket.socket:
        host = ip_address(port.host_ip)
        shown = f"[{host}]" if host.version == 6 else str(host)
        for other in self._held.get((port.protocol, port.host_port), ()):
            theirs = ip_address(other.host_ip)
            if theirs.version == host.version and (theirs == host or theirs.is_unspecified or host.is_unspecified):
                raise Conflict(f"Bind for {shown}:{port.host_port} failed: port is already allocated{self._by(other)}")
        family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
        held = socket.socket(family, _KINDS[port.protocol])
        try:
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port.protocol == "tcp":
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections still in TIME_WAIT do not count
            held.bind((str(host), port.host_port))
            if port.protocol == "tcp":
                held.listen(_BACKLOG)
            held.setblocking(False)
        except OSError as error:
            held.close()
            what = f"failed to bind host port for {shown}:{port.host_port}:{address}:{port.container_port}/{port.protocol}"
            if error.errno == errno.EADDRINUSE:
                who = process_on(port.protocol, port.host_port) if port.host_port else ""
                raise Conflict(f"{what}: address already in use{' by ' if who else ''}{who}") from error
            if error.errno == errno.EACCES:
                raise Conflict(f"{what}: permission denied") from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidInput(f"{what}: cannot assign requested address: this host does not have it") from error
            raise SystemFailure(what, error.errno or 0) from error
        return held


def _hosts(binding: PortBinding) -> list[str]:
    if binding.protocol not in _KINDS:
        raise InvalidInput(f"cannot publish protocol {binding.protocol!r}: it must be tcp or udp")
    numbers = (binding.container_port, binding.host_port or 1, binding.host_port_end or 1)
    if not all(1 <= number <= 65535 for number in numbers) or 0 < binding.host_port_end < binding.host_port:
        raise InvalidInput(f"invalid port publication {binding.host_port}:{binding.container_port}: ports are 1 to 65535")
    if not binding.host_ip:
        return ["0.0.0.0", "::"] if _has_ipv6() else ["0.0.0.0"]
    try:
        return [str(ip_address(binding.host_ip.strip("[]")))]
    except ValueError as error:
        raise InvalidInput(f"invalid host address to publish on: {binding.host_ip!r}") from error


def _target(port: PublishedPort, endpoint: Endpoint) -> str:
    """Who comes by IPv6 is led to the container's IPv6 address, where it has one."""
    return endpoint.address6 if endpoint.address6 and ":" in port.host_ip else endpoint.address


def _candidates(binding: PortBinding) -> Iterator[int]:
    if binding.host_port:
        yield from range(binding.host_port, (binding.host_port_end or binding.host_port) + 1)
    else:
        yield from (0 for _ in range(_EPHEMERAL_TRIES))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
