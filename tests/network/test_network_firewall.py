"""Beside other firewalls, and without nftables; in a namespace of its own, where nobody else is disturbed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from ipaddress import ip_interface

import pytest
from test_network_traffic import container, started

from atoll.errors import NotSupported
from atoll.kernel import netns
from atoll.kernel.nftables import Nftables
from atoll.kernel.rtnetlink import RouteSocket
from atoll.network import Networks, PortBinding, firewall
from namespaces import ask

WORLD = "198.18.99.2"


def in_own_world(instance, scenario):
    """Runs `scenario(world)` in a namespace that stands for the host; `world` is another machine on its wire."""
    host, world = instance.home / "host", instance.home / "world"

    def run():
        with RouteSocket() as route:
            route.set_up(1)

            def far():
                with RouteSocket() as inside:
                    inside.set_up(1)

            netns.create(world, far)
            with open(world, "rb") as file:
                route.create_veth("wire", "eth0", peer_netns=file.fileno())
            route.add_address(route.link("wire").index, ip_interface("198.18.99.1/24"))

        def configure():
            with RouteSocket() as inside:
                index = inside.link("eth0").index
                inside.set_up(index)
                inside.add_address(index, ip_interface(f"{WORLD}/24"))

        netns.call(world, configure)
        asyncio.run(scenario(world))

    try:
        netns.create(host, run)
    finally:
        netns.delete(world)
        netns.delete(host)


def iptables(*words):
    return subprocess.run(["iptables", *words], check=True, capture_output=True, text=True).stdout


def test_a_firewall_that_drops_by_default(instance, greeter):
    async def scenario(world):
        greeter(world, "world")
        with Nftables() as nft:
            nft.run("table inet strict { chain forward { type filter hook forward priority 0; policy drop; }\n}")
            async with started(instance) as networks:
                a, one = await container(networks, "a", ports=[PortBinding(80)])
                greeter(a, "a")
                assert (await asyncio.to_thread(ask, WORLD, namespace=a)).startswith("world")
                assert (await asyncio.to_thread(ask, "198.18.99.1", one.ports[0].host_port, world)).startswith("a")
                assert nft.query("list table inet strict").count('"comment"') == 2
                again = Networks(instance)
                await again.start(["a"])  # twice is once
                assert nft.query("list table inet strict").count('"comment"') == 2
                await again.close()
            assert '"comment"' not in nft.query("list table inet strict")

    in_own_world(instance, scenario)


@pytest.mark.skipif(not shutil.which("iptables"), reason="needs iptables")
def test_beside_iptables_as_docker_leaves_them(instance, greeter):
    async def scenario(world):
        greeter(world, "world")
        iptables("-P", "FORWARD", "DROP")
        iptables("-N", "DOCKER-USER")
        iptables("-A", "FORWARD", "-j", "DOCKER-USER")
        before = iptables("-S")
        async with started(instance) as networks:
            a, _one = await container(networks, "a")
            assert (await asyncio.to_thread(ask, WORLD, namespace=a)).startswith("world")
            ours = f"-i at{instance.id}+ -m comment --comment atoll_{instance.id} -j ACCEPT"
            assert ours in iptables("-S", "FORWARD")  # still theirs to read and change
        assert iptables("-S") == before

    in_own_world(instance, scenario)


def test_without_libnftables_ports_are_relayed(instance, greeter, monkeypatch, caplog):
    def missing():
        raise NotSupported("libnftables is not installed")

    monkeypatch.setattr(firewall, "Nftables", missing)
    monkeypatch.setattr("atoll.network.names.Nftables", missing)

    async def scenario(world):
        async with started(instance) as networks:
            assert "libnftables is not installed" in caplog.text
            await networks.create({"Name": "red"})
            a, one = await container(networks, "a", "red", ports=[PortBinding(80), PortBinding(80, "udp")])
            greeter(a, "a")
            for udp, port in enumerate(published.host_port for published in one.ports if published.host_ip == "0.0.0.0"):
                assert await asyncio.to_thread(ask, "127.0.0.1", port, udp=bool(udp)) == f"a {one.gateway}"
                assert await asyncio.to_thread(ask, "198.18.99.1", port, world, udp=bool(udp)) == f"a {one.gateway}"

    in_own_world(instance, scenario)


def test_a_table_deleted_by_hand_is_written_anew_at_start(instance, greeter):
    async def scenario(world):
        greeter(world, "world")
        async with started(instance) as networks:
            a, _one = await container(networks, "a", ports=[PortBinding(80)])
            with Nftables() as nft:
                nft.run(f"delete table ip atoll_{instance.id}")
            again = Networks(instance)
            await again.start(["a"])
            assert (await asyncio.to_thread(ask, WORLD, namespace=a)).startswith("world")
            await again.close()

    in_own_world(instance, scenario)
