"""Networks as the Engine API shows them, and what it refuses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_interface

import pytest
from test_network_traffic import container, started

from atoll.errors import AtollError, Conflict, Forbidden, InUse, InvalidInput, NotFound, NotSupported, SystemFailure
from atoll.kernel.rtnetlink import RouteSocket
from atoll.network import Networks, PortBinding


def test_predefined_networks(instance):
    async def run():
        async with started(instance) as networks:
            assert {network["Name"] for network in networks.list()} == {"bridge", "host", "none"}
            bridge = networks.inspect("bridge")
            assert bridge["Driver"] == "bridge"
            assert bridge["IPAM"]["Config"][0]["Gateway"].endswith(".0.1")
            assert bridge["Options"]["com.docker.network.bridge.name"] == f"at{instance.id}0"
            assert networks.get("default").id == bridge["Id"]
            with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
                await networks.remove("bridge")
            with pytest.raises(Forbidden, match="operation is not permitted on predefined host network"):
                await networks.create({"Name": "host"})
            await networks.attach("c1", "host", name="one")
            assert networks.inspect("host")["Containers"]["c1"]["IPv4Address"] == ""
            await networks.detach_all("c1")

    asyncio.run(run())


def test_life_of_a_network(instance):
    events = []

    async def run():
        def on_event(action, network, attributes):
            events.append((action, network.name, attributes))

        async with started(instance, on_event=on_event) as networks:
            config = {
                "Subnet": "10.77.0.0/16",
                "IPRange": "10.77.5.0/24",
                "Gateway": "10.77.5.254",
                "AuxiliaryAddresses": {"printer": "10.77.5.0"},
            }
            made = await networks.create({"Name": "red", "Labels": {"team": "ml"}, "IPAM": {"Driver": "default", "Config": [config]}})
            assert networks.inspect(made["Id"][:12])["IPAM"]["Config"] == [config]
            with pytest.raises(Conflict, match="network with name red already exists"):
                await networks.create({"Name": "red"})
            with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
                await networks.create({"Name": "blue", "IPAM": {"Config": [{"Subnet": "10.77.128.0/24"}]}})
            path, one = await container(networks, "web", "red", aliases=["www"])
            assert one.address == "10.77.5.1"
            member = networks.inspect("red")["Containers"]["web"]
            assert member == {
                "Name": "web",
                "EndpointID": one.id,
                "MacAddress": "02:42:0a:4d:05:01",
                "IPv4Address": "10.77.5.1/16",
                "IPv6Address": "",
            }
            settings = one.settings()
            assert (settings["IPAddress"], settings["IPPrefixLen"], settings["Gateway"]) == ("10.77.5.1", 16, "10.77.5.254")
            assert settings["DNSNames"] == ["web", "www"]
            with pytest.raises(InUse, match=r'network red has active endpoints \(name:"web" id:"[0-9a-f]{12}"\)'):
                await networks.remove("red")
            with pytest.raises(Forbidden, match="endpoint with name web already exists in network red"):
                await networks.attach("web", "red", netns=path, name="web")
            await networks.detach("web", "red")
            with pytest.raises(Forbidden, match="container web is not connected to network red"):
                await networks.detach("web", "red")
            await networks.remove("red")
            with pytest.raises(NotFound, match="network red not found"):
                networks.inspect("red")

    asyncio.run(run())
    assert [(action, name) for action, name, _attributes in events] == [
        ("create", "red"),
        ("connect", "red"),
        ("disconnect", "red"),
        ("destroy", "red"),
    ]
    assert events[1][2] == {"container": "web"}


def test_networks_survive_a_restart(instance):
    async def run():
        async with started(instance) as networks:
            made = await networks.create({"Name": "red"})
            shown = networks.inspect("red")
        async with started(instance) as networks:
            assert networks.inspect(made["Id"]) == shown

    asyncio.run(run())


def test_a_subnet_that_has_become_somebody_elses(instance):
    async def run():
        async with started(instance) as networks:
            first = networks.inspect("bridge")["IPAM"]["Config"][0]
        with RouteSocket() as route:
            name = f"s{instance.id}"
            route.create_bridge(name)
            try:
                route.add_address(route.link(name).index, ip_interface(f"{first['Gateway']}/16"))
                async with started(instance) as networks:
                    assert networks.inspect("bridge")["IPAM"]["Config"][0]["Subnet"] != first["Subnet"]  # nobody was on it, so it moves
                    await container(networks, "a")
            finally:
                route.delete_link(name)

    asyncio.run(run())


def test_a_damaged_state_says_so(instance):
    async def run():
        (instance.home / "network" / "endpoints").mkdir(parents=True)
        (instance.home / "network" / "endpoints" / "ab").write_text("{")
        async with started(instance) as networks:
            assert not networks.endpoints("ab")
        (instance.home / "network" / "networks.json").write_text("[{")
        networks = Networks(instance)
        with pytest.raises(AtollError, match=r"networks.json is damaged"):
            await networks.start()
        await networks.close()

    asyncio.run(run())


def test_filters_and_prune(instance):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "red", "Labels": {"color": "red"}})
            await networks.create({"Name": "blue", "Labels": {"color": "blue"}})
            await container(networks, "web", "blue")

            def names(**filters):
                return {network["Name"] for network in networks.list(filters)}

            assert names(type=["custom"]) == {"red", "blue"}
            assert names(type=["builtin"], driver=["bridge"]) == {"bridge"}
            assert names(name=["e"]) == {"red", "blue", "bridge", "none"}
            assert names(label=["color=red"]) == {"red"}
            assert names(id=[networks.get("red").id[:8]]) == {"red"}
            assert names(dangling=["true"]) == {"red"}
            assert names(scope=["swarm"]) == set()
            for wrong in ({"colour": ["red"]}, {"type": ["odd"]}, {"dangling": ["perhaps"]}):
                with pytest.raises(InvalidInput):
                    networks.list(wrong)
            assert await networks.prune({"label!": ["color"]}) == {"NetworksDeleted": []}
            assert await networks.prune({"until": ["1h"]}) == {"NetworksDeleted": []}
            assert await networks.prune() == {"NetworksDeleted": ["red"]}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, InvalidInput),
        ({"Name": "  "}, InvalidInput),
        ({"Name": "a/b"}, InvalidInput),
        ({"Name": "new\nline"}, InvalidInput),
        ({"Name": "x" * 300}, InvalidInput),
        ({"Name": 7}, InvalidInput),
        ({"Name": "x", "Driver": "overlay"}, NotSupported),
        ({"Name": "x", "Driver": "weave"}, NotFound),
        ({"Name": "x", "Driver": "host"}, Forbidden),
        ({"Name": "x", "ConfigOnly": True}, NotSupported),
        ({"Name": "x", "Labels": ["a"]}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.driver.mtu": "9" * 30}}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.driver.mtu": "１５００"}}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.bridge.name": "all"}}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.bridge.name": "../../../etc"}}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.bridge.name": 'a" }'}}, InvalidInput),
        ({"Name": "x", "Options": {"com.docker.network.bridge.name": "lo"}}, Conflict),
        ({"Name": "x", "Options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidInput),
        ({"Name": "x", "IPAM": []}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": ["10.0.0.0/8"]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/33"}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/16"}, {"Subnet": "10.89.0.0/16"}]}}, NotSupported),
        ({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/127"}]}}, InvalidInput),
        ({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::g/64"}]}}, InvalidInput),
        ({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Gateway": "fd00:77::1"}]}}, InvalidInput),
        ({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "Gateway": "fd00:78::1"}]}}, InvalidInput),
        ({"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "IPRange": "fd00::/16"}]}}, InvalidInput),
        (
            {"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:77::/64", "AuxiliaryAddresses": {"a": "10.0.0.1"}}]}},
            InvalidInput,
        ),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/32"}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.88.0.1"}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/16", "Gateway": "10.89.0.1"}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/16", "IPRange": "10.0.0.0/8"}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.88.0.0/16", "AuxiliaryAddresses": {"a": "x"}}]}}, InvalidInput),
        ({"Name": "x", "IPAM": {"Driver": "dhcp"}}, NotSupported),
    ],
)
def test_bodies_that_make_no_network(instance, body, error):
    async def run():
        async with started(instance) as networks:
            with pytest.raises(error):
                await networks.create(body)
            assert len(networks.list()) == 3

    asyncio.run(run())


def test_seats_that_cannot_be_taken(instance):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "tiny", "IPAM": {"Config": [{"Subnet": "10.99.7.0/30"}]}})
            _path, one = await container(networks, "a", "tiny", ipv4="10.99.7.2", mac="02-00-00-00-00-AA")
            assert (one.address, one.mac) == ("10.99.7.2", "02:00:00:00:00:aa")
            other = await networks.create_netns("b")
            for wanted, error, words in (
                ({"ipv4": "10.99.7.2"}, Conflict, "Address already in use"),
                ({"ipv4": "10.99.7.1"}, Conflict, "Address already in use"),
                ({"ipv4": "10.99.8.2"}, InvalidInput, "no configured subnet contains IP address 10.99.8.2"),
                ({"ipv4": "10.99.7.3"}, InvalidInput, "no configured subnet"),
                ({"ipv4": "rubbish"}, InvalidInput, "invalid IPv4 address"),
                ({"mac": "01:00:00:00:00:01"}, InvalidInput, "unicast"),
                ({"mac": "rubbish"}, InvalidInput, "invalid MAC address"),
                ({}, AtollError, "no available IPv4 addresses on network tiny"),
            ):
                with pytest.raises(error, match=words):
                    await networks.attach("b", "tiny", netns=other, **wanted)
            with pytest.raises(InvalidInput, match="supported on user defined networks only"):
                await networks.attach("b", "bridge", netns=other, ipv4="172.17.0.9")
            with pytest.raises(InvalidInput, match="needs a network namespace"):
                await networks.attach("b", "bridge")
            with pytest.raises(SystemFailure, match="open network namespace"):
                await networks.attach("b", "bridge", netns=instance.home / "nothing")
            for wrong in (PortBinding(0), PortBinding(80, host_port=70000), PortBinding(80, "sctp"), PortBinding(80, host_ip="x")):
                with pytest.raises(InvalidInput):
                    await networks.attach("b", "bridge", netns=other, ports=[wrong])
            with pytest.raises(InvalidInput, match="this host does not have it"):
                await networks.attach("b", "bridge", netns=other, ports=[PortBinding(80, host_ip="203.0.113.5")])
            assert networks.inspect("bridge")["Containers"] == {}
            for name in ("", "..", "a/b"):
                with pytest.raises(InvalidInput):
                    await networks.create_netns(name)

    asyncio.run(run())


def test_published_ports_as_shown(instance):
    async def run():
        async with started(instance) as networks:
            _path, one = await container(networks, "web", ports=[PortBinding(80), PortBinding(53, "udp", "127.0.0.1")])
            tcp, udp = one.ports[0].host_port, one.ports[-1].host_port
            assert networks.ports("web") == {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(tcp)}, {"HostIp": "::", "HostPort": str(tcp)}],
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": str(udp)}],
            }
            # the same number for another protocol, or on another address, is free
            await container(networks, "b", ports=[PortBinding(80, "udp", host_port=tcp), PortBinding(53, "udp", "127.0.0.2", udp)])
            with pytest.raises(Conflict, match=rf"Bind for 0.0.0.0:{udp} failed: port is already allocated"):
                await container(networks, "c", ports=[PortBinding(53, "udp", host_port=udp)])

    asyncio.run(run())


def test_scopes_are_reconciled_apart(instance):
    async def run():
        async with started(instance) as networks:
            path = await networks.create_netns("pod-1", scope="pods")
            await networks.attach("pod-1", "bridge", netns=path, scope="pods")
            await container(networks, "c1")
            await networks.reconcile([])
            assert networks.endpoints("pod-1")
            assert not networks.endpoints("c1")
            assert path.exists()
            await networks.reconcile([], scope="pods")
            assert not networks.endpoints("pod-1")
            assert not path.exists()

    asyncio.run(run())
