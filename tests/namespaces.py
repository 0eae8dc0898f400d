"""Containers for network tests: namespaces whose servers are threads of the test, with sockets opened inside."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from atoll.kernel import netns
from atoll.kernel.rtnetlink import RouteSocket

TIMEOUT_S = 3


class Greeter:
    """A TCP and UDP server at `port` in a namespace that answers `name` and the caller's address."""

    def __init__(self, namespace: Path | None, name: str, port: int = 80, family: int = socket.AF_INET) -> None:
        self._name = name
        in_namespace: Callable = (lambda make: netns.call(namespace, make)) if namespace else (lambda make: make())
        self._tcp = in_namespace(lambda: socket.create_server(("", port), family=family))
        self._udp = in_namespace(lambda: socket.socket(family, socket.SOCK_DGRAM))
        in_namespace(lambda: self._udp.bind(("", port)))
        self._threads = [threading.Thread(target=self._serve_tcp), threading.Thread(target=self._serve_udp)]
        for thread in self._threads:
            thread.start()

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, peer = self._tcp.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{self._name} {peer[0]}".encode())

    def _serve_udp(self) -> None:
        while True:
            try:
                data, peer = self._udp.recvfrom(100)
            except OSError:
                return
            if not data:
                return
            self._udp.sendto(f"{self._name} {peer[0]}".encode(), peer)

    def close(self) -> None:
        for held in (self._tcp, self._udp):
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        self._tcp.close()
        self._udp.close()


def ask(address: str, port: int = 80, namespace: Path | None = None, *, udp: bool = False, timeout: float = TIMEOUT_S) -> str:
    """What a greeter at this address answers a caller in this namespace; the error's name where it does not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM

    def make() -> socket.socket:
        return socket.socket(family, kind)

    with netns.call(namespace, make) if namespace else make() as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            if udp:
                client.send(b"hello")
            return client.recv(100).decode()
        except OSError as error:
            return type(error).__name__


@pytest.fixture
def greeter() -> Iterator[Callable[..., Greeter]]:
    with contextlib.ExitStack() as stack:

        def make(*args, **kwargs) -> Greeter:
            made = Greeter(*args, **kwargs)
            stack.callback(made.close)
            return made

        yield make


OUTSIDE_HOST, OUTSIDE_PEER = "198.18.77.1", "198.18.77.2"


@pytest.fixture
def outside(instance) -> Iterator[Path]:
    """Another machine on the host's network: knows only the host's address there, has no route to containers."""
    path = instance.home / "outside"

    def inside() -> None:
        with RouteSocket() as route:
            route.set_up(1)

    netns.create(path, inside)
    name = f"o{instance.id}"
    with RouteSocket() as route, open(path, "rb") as file:
        route.create_veth(name, "eth0", peer_netns=file.fileno())
        route.add_address(route.link(name).index, ip_interface(f"{OUTSIDE_HOST}/24"))

    def configure() -> None:
        with RouteSocket() as far:
            index = far.link("eth0").index
            far.set_up(index)
            far.add_address(index, ip_interface(f"{OUTSIDE_PEER}/24"))

    netns.call(path, configure)
    yield path
    with RouteSocket() as route:
        route.delete_link(name)
    netns.delete(path)
