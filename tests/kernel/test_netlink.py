"""Links, addresses and routes in namespaces of their own, so that the host's stay as they are."""

from __future__ import annotations

import errno
import os
from ipaddress import ip_interface, ip_network

import pytest

from atoll.errors import SystemFailure
from atoll.kernel import netns
from atoll.kernel.rtnetlink import RouteSocket


@pytest.fixture
def room(instance):
    """A namespace, and a route socket inside it."""
    path = instance.home / "room"
    with netns.create(path, RouteSocket) as route:
        yield path, route
    netns.delete(path)


def test_bridge_with_address_and_routes(room):
    _path, route = room
    route.create_bridge("br0", mac="02:42:0a:00:00:01", mtu=1400)
    bridge = route.link("br0")
    assert (bridge.kind, bridge.mac, bridge.mtu, bridge.up) == ("bridge", "02:42:0a:00:00:01", 1400, True)
    route.add_address(bridge.index, ip_interface("10.0.0.1/24"))
    route.add_address(bridge.index, ip_interface("10.0.0.1/24"))  # twice is once
    route.add_address(bridge.index, ip_interface("fd00:1::1/64"))
    assert (bridge.index, ip_interface("10.0.0.1/24")) in route.addresses()
    assert (bridge.index, ip_interface("fd00:1::1/64")) in route.addresses()
    route.add_route(ip_network("10.1.0.0/16"), bridge.index, gateway="10.0.0.2")
    route.add_route(ip_network("10.2.0.0/16"), bridge.index)
    assert set(route.routes()) == {ip_network("10.0.0.0/24"), ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")}
    assert route.default_links() == []
    route.set_default_route("10.0.0.3", bridge.index)
    route.set_default_route("10.0.0.4", bridge.index)
    assert route.default_links() == [bridge.index]
    assert route.delete_default_route()
    assert not route.delete_default_route()


def test_veth_into_another_namespace(room, instance):
    _path, route = room
    other = instance.home / "other"
    route.create_bridge("br0")
    with netns.create(other, RouteSocket) as inside:
        try:
            with open(other, "rb") as file:
                route.create_veth("port", "eth0", peer_netns=file.fileno(), master=route.link("br0").index, peer_mac="02:00:00:00:00:09")
            route.set_bridge_port("port", hairpin=True, isolated=True)
            port, far = route.link("port"), inside.link("eth0")
            assert (port.kind, port.master, port.up) == ("veth", route.link("br0").index, True)
            assert (far.mac, far.up) == ("02:00:00:00:00:09", False)
            inside.set_up(far.index)
            assert inside.link("eth0").up
            assert route.delete_link("port")
            assert inside.link("eth0") is None
        finally:
            netns.delete(other)


def test_errors_name_the_object(room):
    _path, route = room
    route.create_bridge("d0")
    with pytest.raises(SystemFailure, match="create bridge d0: File exists") as caught:
        route.create_bridge("d0")
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(SystemFailure, match="create bridge"):
        route.create_bridge("a-name-that-is-too-long")
    with pytest.raises(SystemFailure, match=r"add address 10\.0\.0\.1/24 to link 999"):
        route.add_address(999, ip_interface("10.0.0.1/24"))
    assert route.link("nothing") is None
    assert not route.delete_link("nothing")
    assert {link.name for link in route.links()} >= {"lo", "d0"}  # the socket still serves after errors


def test_many_links_in_one_dump(room):
    _path, route = room
    for number in range(100):  # more than one datagram's worth
        route.create_bridge(f"d{number}")
    assert len([link for link in route.links() if link.kind == "bridge"]) == 100


def test_namespace_life(instance):
    path = instance.home / "ns"
    home = os.readlink("/proc/thread-self/ns/net")
    inside = netns.create(path, lambda: os.readlink("/proc/thread-self/ns/net"))
    assert inside != home
    assert netns.is_alive(path)
    assert netns.call(path, lambda: os.readlink("/proc/thread-self/ns/net")) == inside
    assert os.readlink("/proc/thread-self/ns/net") == home  # the caller never left
    with pytest.raises(SystemFailure, match="File exists"):
        netns.create(path, lambda: None)
    assert netns.delete(path)
    assert not netns.delete(path)
    assert not netns.is_alive(path)
    with pytest.raises(SystemFailure, match=f"enter network namespace {path}"):
        netns.call(path, lambda: None)


def test_namespace_of_a_failed_setup_is_gone(instance):
    path = instance.home / "ns"
    with pytest.raises(ZeroDivisionError):
        netns.create(path, lambda: 1 // 0)
    assert not path.exists()


def test_plain_file_is_no_namespace(instance):
    path = instance.home / "ns"
    path.touch()
    assert not netns.is_alive(path)
    with pytest.raises(SystemFailure):
        netns.call(path, lambda: None)
    assert netns.delete(path)  # what a reboot leaves
