"""Real packets between real namespaces, through real bridges and rules."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from atoll.errors import Conflict
from atoll.kernel import netns
from atoll.kernel.rtnetlink import RouteSocket
from atoll.network import Networks, PortBinding
from namespaces import OUTSIDE_HOST, OUTSIDE_PEER, ask


@contextlib.asynccontextmanager
async def started(instance, **kwargs):
    networks = Networks(instance, **kwargs)
    try:
        await networks.start()
        yield networks
    finally:
        await networks.destroy()
        await networks.close()


async def container(networks, name, network="bridge", **kwargs):
    path = await networks.create_netns(name)
    return path, await networks.attach(name, network, netns=path, name=name, **kwargs)


RTM_NEWLINK = 16


async def asked(*args, **kwargs):
    return await asyncio.to_thread(ask, *args, **kwargs)


def test_neighbours_and_the_world(instance, greeter, outside):
    async def run():
        async with started(instance) as networks:
            a, one = await container(networks, "a")
            b, two = await container(networks, "b")
            greeter(a, "a")
            greeter(b, "b")
            greeter(outside, "outside")
            assert await asked(two.address, namespace=a) == f"b {one.address}"
            assert await asked(one.address) == f"a {one.gateway}"  # the host reaches containers
            assert await asked(OUTSIDE_PEER, namespace=a) == f"outside {OUTSIDE_HOST}"  # masqueraded
            # a stranger who routes by us still does not reach what is not published
            with netns.call(outside, RouteSocket) as far:
                far.add_route(ip_network(f"{one.address}/32"), far.link("eth0").index, gateway=OUTSIDE_HOST)
            assert await asked(one.address, namespace=outside, timeout=0.3) == "TimeoutError"

    asyncio.run(run())


@pytest.mark.parametrize("udp", [False, True])
def test_publish_reaches_from_everywhere(instance, greeter, outside, udp):
    async def run():
        async with started(instance) as networks:
            protocol = "udp" if udp else "tcp"
            web, one = await container(networks, "web", ports=[PortBinding(80, protocol)])
            b, _two = await container(networks, "b")
            greeter(web, "web")
            port = one.ports[0].host_port
            assert {held.host_ip for held in one.ports} == {"0.0.0.0", "::"}
            assert await asked("127.0.0.1", port, udp=udp) == f"web {one.gateway}"
            assert (await asked(OUTSIDE_HOST, port, udp=udp)).startswith("web ")
            assert await asked(OUTSIDE_HOST, port, outside, udp=udp) == f"web {OUTSIDE_PEER}"  # the caller's address is kept
            assert await asked("::1", port, udp=udp) == f"web {one.gateway}"  # by the relay
            assert (await asked(one.gateway, port, b, udp=udp)).startswith("web ")  # a neighbour by the host's address
            assert (await asked(one.gateway, port, web, udp=udp)).startswith("web ")  # itself by the host's address
            await networks.detach_all("web")
            expected = "TimeoutError" if udp else "ConnectionRefusedError"
            assert await asked(OUTSIDE_HOST, port, outside, timeout=0.3) == expected or udp

    asyncio.run(run())


def test_publish_on_loopback_stays_there(instance, greeter, outside):
    async def run():
        async with started(instance) as networks:
            web, one = await container(networks, "web", ports=[PortBinding(80, host_ip="127.9.9.9")])
            b, _two = await container(networks, "b")
            greeter(web, "web")
            (published,) = one.ports
            assert (await asked("127.9.9.9", published.host_port)).startswith("web")
            assert await asked("127.0.0.1", published.host_port) == "ConnectionRefusedError"
            assert await asked(OUTSIDE_HOST, published.host_port, outside) == "ConnectionRefusedError"
            # neighbours on the wire who send to loopback by our MAC (CVE-2020-8558, moby#45610)
            for attacker, gateway in ((outside, OUTSIDE_HOST), (b, one.gateway)):
                netns.call(attacker, partial(aim_loopback_at, gateway))
                assert await asked("127.9.9.9", published.host_port, attacker, timeout=0.3) == "TimeoutError"

    asyncio.run(run())


def aim_loopback_at(gateway):
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    with RouteSocket() as route:
        set_down = struct.pack("=BxHiII", 0, 0, 1, 0, 1)  # lo and its route to 127.0.0.0/8
        route.request(RTM_NEWLINK, set_down, what="set lo down")
        route.add_route(ip_network("127.9.9.9/32"), route.link("eth0").index, gateway=gateway)


def test_networks_are_apart(instance, greeter):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "red"})
            await networks.create({"Name": "vault", "Internal": True})
            a, one = await container(networks, "a")
            b, two = await container(networks, "b", "red", ports=[PortBinding(80)])
            c, three = await container(networks, "c", "vault")
            d, four = await container(networks, "d", "vault")
            for path, name in ((a, "a"), (b, "b"), (c, "c")):
                greeter(path, name)
            assert await asked(two.address, namespace=a, timeout=0.3) == "TimeoutError"
            assert (await asked(one.gateway, two.ports[0].host_port, a)).startswith("b")  # but published is published
            assert await asked(three.address, namespace=d) == f"c {four.address}"
            assert await asked(one.address, namespace=c, timeout=0.3) == "OSError"  # no route out
            await networks.attach("a", "vault", netns=a, name="a")
            assert (await asked(three.address, namespace=a)).startswith("c ")
            await networks.detach("a", "vault")
            assert await asked(three.address, namespace=a, timeout=0.3) in ("TimeoutError", "OSError")
            assert (await asked(one.gateway, two.ports[0].host_port, a)).startswith("b")  # the way out is still there

    asyncio.run(run())


def test_without_icc_neighbours_are_strangers(instance, greeter):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "shy", "Options": {"com.docker.network.bridge.enable_icc": "false"}})
            a, one = await container(networks, "a", "shy")
            b, _two = await container(networks, "b", "shy")
            greeter(a, "a")
            assert await asked(one.address, namespace=b, timeout=0.3) in ("TimeoutError", "OSError")
            assert (await asked(one.address)).startswith("a")

    asyncio.run(run())


def test_restart_keeps_what_lives(instance, greeter):
    async def run():
        first = Networks(instance)
        await first.start()
        web, one = await container(first, "web", ports=[PortBinding(80)])
        _b, two = await container(first, "dead", ports=[PortBinding(80)])
        greeter(web, "web")
        first._seats._ports.close()  # killed with -9: links and rules stay, sockets are gone
        first._firewall.close()
        first._links.close()
        async with started_again(instance, ["web"]) as second:
            assert second.endpoints("web") == [one]
            assert not second.endpoints("dead")
            assert (await asked("127.0.0.1", one.ports[0].host_port)).startswith("web")
            assert (await asked("::1", one.ports[0].host_port)).startswith("web")
            assert await asked("127.0.0.1", two.ports[0].host_port) == "ConnectionRefusedError"
            with pytest.raises(Conflict, match="port is already allocated"):
                await container(second, "c", ports=[PortBinding(80, host_port=one.ports[0].host_port)])
            _d, three = await container(second, "d")
            assert three.address == two.address  # given back

    asyncio.run(run())


@contextlib.asynccontextmanager
async def started_again(instance, live):
    networks = Networks(instance)
    await networks.start(live)
    try:
        yield networks
    finally:
        await networks.destroy()
        await networks.close()


def test_port_held_by_another_program(instance):
    async def run():
        with socket.create_server(("127.0.0.1", 0)) as foreign:
            port = foreign.getsockname()[1]
            async with started(instance) as networks:
                what = rf"failed to bind host port for 0.0.0.0:{port}:[0-9.]+:80/tcp: address already in use by process {os.getpid()} "
                with pytest.raises(Conflict, match=what):
                    await container(networks, "web", ports=[PortBinding(80, host_port=port)])
                assert not networks.endpoints("web")  # nothing is left of the attempt
                assert networks.inspect("bridge")["Containers"] == {}
                _path, endpoint = await container(networks, "b", ports=[PortBinding(80, host_port=port, host_port_end=port + 20)])
                assert endpoint.ports[0].host_port > port

    asyncio.run(run())
