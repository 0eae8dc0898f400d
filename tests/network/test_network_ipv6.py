"""Networks with IPv6: addresses, packets between real namespaces, names, and what comes back after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv6Address, IPv6Network, ip_interface, ip_network
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.reversename
import pytest

from atoll.errors import Conflict, Forbidden, InvalidInput, NotSupported, SystemFailure
from atoll.kernel import netns
from atoll.kernel.rtnetlink import RouteSocket
from atoll.network import Networks, PortBinding
from atoll.network.ipv6 import choose_subnet
from namespaces import ask

pytestmark = pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="this kernel has no IPv6")
HOST, PEER = "2001:db8:77::1", "2001:db8:77::2"


@contextlib.asynccontextmanager
async def started(instance, live=()):
    networks = Networks(instance)
    try:
        await networks.start(live)
        yield networks
    finally:
        await networks.destroy()
        await networks.close()


async def container(networks, name, network="six", **kwargs):
    path = await networks.create_netns(name)
    return path, await networks.attach(name, network, netns=path, name=name, **kwargs)


async def asked(*args, **kwargs):
    return await asyncio.to_thread(ask, *args, **kwargs)


@pytest.fixture
def far(instance, outside):
    """The other machine, with IPv6."""
    with RouteSocket() as route:
        route.add_address(route.link(f"o{instance.id}").index, ip_interface(f"{HOST}/64"))

    def configure():
        with RouteSocket() as route:
            route.add_address(route.link("eth0").index, ip_interface(f"{PEER}/64"))

    netns.call(outside, configure)
    return outside


def test_packets(instance, greeter, far):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "six", "EnableIPv6": True})
            a, one = await container(networks, "a")
            b, two = await container(networks, "b", ports=[PortBinding(80), PortBinding(80, "udp")])
            for where, name in ((a, "a"), (b, "b"), (far, "far")):
                greeter(where, name, family=socket.AF_INET6)
            assert await asked(two.address6, namespace=a) == f"b {one.address6}"
            assert await asked(one.address6) == f"a {one.gateway6}"
            assert await asked(PEER, namespace=a) == f"far {HOST}"  # masqueraded
            port = next(port.host_port for port in two.ports if port.host_ip == "::" and port.protocol == "tcp")
            assert await asked(HOST, port, namespace=far) == f"b {PEER}"  # by the rules: who asks is seen
            assert await asked("::1", port) == f"b {one.gateway6}"  # by the relay
            assert (await asked("::1", next(port.host_port for port in two.ports if port.protocol == "udp"), udp=True)).startswith("b ")
            assert await asked(HOST, port, namespace=b) == f"b {one.gateway6}"  # itself, by what it published
            with netns.call(far, RouteSocket) as route:
                route.add_route(ip_network(f"{one.address6}/128"), route.link("eth0").index, gateway=HOST)
            assert await asked(one.address6, namespace=far, timeout=0.3) == "TimeoutError"
            await networks.create({"Name": "other", "EnableIPv6": True})
            _, third = await container(networks, "c", "other")
            assert await asked(third.address6, namespace=a, timeout=0.3) == "TimeoutError"

    asyncio.run(run())


def test_without_a_way_out(instance, far):
    """Internal networks have none, a network without IPv6 gives none, and the last one with a way takes it along."""

    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "six", "EnableIPv6": True})
            await networks.create({"Name": "inside", "EnableIPv6": True, "Internal": True})
            a, one = await container(networks, "a", "bridge")
            assert (one.address6, one.gateway6) == ("", "")
            _, two = await container(networks, "b", "inside")
            assert two.address6
            assert not two.gateway6
            assert await asked(PEER, namespace=a) == "OSError"
            second = await networks.attach("a", "six", netns=a, name="a")
            assert await asked(PEER, namespace=a) == "ConnectionRefusedError"
            await networks.detach("a", "six")
            assert await asked(PEER, namespace=a) == "OSError"
            assert second.ifname == "eth1"

    asyncio.run(run())


def test_addresses_and_views(instance):
    async def run():
        async with started(instance) as networks:
            config = {"Subnet": "fd00:77::/64", "IPRange": "fd00:77::f000/116", "AuxiliaryAddresses": {"printer": "fd00:77::F000"}}
            body = {"Name": "six", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "10.214.9.0/24"}, config]}}
            assert (await networks.create(body))["Warning"] == ""
            _, one = await container(networks, "a")
            _, two = await container(networks, "b", ipv6="fd00:77::0:99")
            assert (one.address6, two.address6, two.gateway6, two.prefix6) == ("fd00:77::f001", "fd00:77::99", "fd00:77::1", 64)
            seat = two.settings()
            assert [seat[key] for key in ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")] == ["fd00:77::99", 64, "fd00:77::1"]
            shown = networks.inspect("six")
            assert shown["EnableIPv6"] is True
            auxiliary = {"printer": "fd00:77::f000"}
            assert shown["IPAM"]["Config"][1] == {**config, "Gateway": "fd00:77::1", "AuxiliaryAddresses": auxiliary}
            assert shown["Containers"]["b"]["IPv6Address"] == "fd00:77::99/64"
            for wanted, error in (
                ("fd00:77::99", Conflict),
                ("fd00:78::1", InvalidInput),
                ("fd00:77::", InvalidInput),
                ("x", InvalidInput),
            ):
                with pytest.raises(error):
                    await container(networks, "c", ipv6=wanted)
            with pytest.raises(Forbidden, match="overlaps"):
                await networks.create({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/48"}]}})
            warned = await networks.create({"Name": "four", "IPAM": {"Config": [{"Subnet": "fd00:79::/64"}]}})
            assert warned["Warning"].startswith("fd00:79::/64 is not used")
            assert networks.inspect("four")["EnableIPv6"] is False
            with pytest.raises(InvalidInput, match="has no IPv6"):
                await container(networks, "d", "four", ipv6="fd00:79::5")

    asyncio.run(run())


def test_restart_keeps_it(instance, greeter):
    async def run():
        networks = Networks(instance)
        await networks.start()
        await networks.create({"Name": "six", "EnableIPv6": True})
        path, one = await container(networks, "a", ports=[PortBinding(80)])
        await networks.close()  # as a kill leaves it
        greeter(path, "a", family=socket.AF_INET6)
        async with started(instance, ["a"]) as networks:
            assert list(networks.endpoints("a")) == [one]
            assert await asked(one.address6) == f"a {one.gateway6}"
            assert await asked("::1", one.ports[-1].host_port) == f"a {one.gateway6}"

    asyncio.run(run())


def test_a_kernel_without_ipv6(instance, monkeypatch, tmp_path):
    """What was made under another one is still listed and removed, and says why nothing is seated on it; no other is made."""

    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "six", "EnableIPv6": True})
        monkeypatch.setattr("atoll.network.ipv6.SYSCTL", tmp_path / "ipv6")
        async with started(instance) as networks:
            with pytest.raises(SystemFailure, match="switch IPv6 on for link eth0"):
                await container(networks, "a")
            with pytest.raises(NotSupported, match="has no IPv6"):
                await networks.create({"Name": "another", "EnableIPv6": True})
            await networks.delete_netns("a")
            await networks.remove("six")

    asyncio.run(run())


def test_names(instance):
    def question(name, kind):
        return dns.query.udp(dns.message.make_query(name, kind), "127.0.0.11", timeout=3)

    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "six", "EnableIPv6": True})
            path, one = await container(networks, "web", aliases=["www"])
            for name, kind, found in (
                ("www", "AAAA", [one.address6]),
                ("web.six", "A", [one.address]),
                ("web", "MX", []),
                (dns.reversename.from_address(one.address6), "PTR", ["web.six."]),
            ):
                answer = await asyncio.to_thread(netns.call, path, lambda name=name, kind=kind: question(name, kind))
                assert answer.rcode() == dns.rcode.NOERROR
                assert [record.to_text() for rrset in answer.answer for record in rrset] == found

    asyncio.run(run())


def test_subnets_of_ones_own():
    first = choose_subnet("1a2b3c4d", [])
    assert first.prefixlen == 64
    assert first.subnet_of(IPv6Network("fd00::/8"))
    second = choose_subnet("1a2b3c4d", [first])
    assert second != first
    assert second.supernet(new_prefix=48) == first.supernet(new_prefix=48)
    assert choose_subnet("1a2b3c4e", []).supernet(new_prefix=48) != first.supernet(new_prefix=48)
    assert first[1] == IPv6Address(int(first.network_address) + 1)
