"""Services in the kernel: real connections to cluster IPs and node ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from test_proxy_plan import endpoint, service, slice_

import virtual_time
from atoll.client.factory import InformerFactory
from atoll.client.resources import ENDPOINT_SLICES, SERVICES
from atoll.kernel import netns
from atoll.network import Networks
from atoll.node.proxy import ServiceProxy
from fake_cluster import FakeClient
from namespaces import OUTSIDE_HOST, OUTSIDE_PEER, ask

CLUSTER_IP, NODE_PORT = "10.96.77.20", 30977
REFUSED = "ConnectionRefusedError"


@contextlib.asynccontextmanager
async def cluster(instance, **kwargs):
    networks = Networks(instance)
    try:
        await networks.start()
        await networks.create({"Name": "pods"})
        proxy = ServiceProxy(instance, bridges=[networks.get("pods").bridge], **kwargs)
        try:
            yield networks, proxy
        finally:
            proxy.destroy()
            proxy.close()
    finally:
        await networks.destroy()
        await networks.close()


async def pod(networks, name, network="pods"):
    path = await networks.create_netns(name, scope="pods")
    return path, await networks.attach(name, network, netns=path, name=name, scope="pods", names=False)


async def asked(*args, **kwargs):
    return await asyncio.to_thread(ask, *args, **kwargs)


def web(**spec):
    ports = [{"port": 80, "nodePort": NODE_PORT}, {"port": 53, "nodePort": NODE_PORT, "protocol": "UDP", "name": "udp"}]
    return service(cluster_ip=CLUSTER_IP, ports=ports, type="NodePort", **spec)


def slices(*addresses):
    endpoints = [endpoint(address) for address in addresses]
    return [slice_(*endpoints, port=80), slice_(*endpoints, port=80, port_name="udp", protocol="UDP")]


def test_cluster_ip_and_node_port(instance, greeter, outside):
    async def run():
        async with cluster(instance) as (networks, proxy):
            a, one = await pod(networks, "a")
            b, two = await pod(networks, "b")
            client, three = await pod(networks, "client")
            stranger, _four = await pod(networks, "stranger", "bridge")
            greeter(a, "a")
            greeter(b, "b")
            proxy.apply([web()], slices(one.address, two.address))
            for udp, port in ((False, 80), (True, 53)):
                answers = {await asked(CLUSTER_IP, port, client, udp=udp) for _ in range(20)}
                assert answers == {f"a {three.address}", f"b {three.address}"}  # both, and the pod's address is kept
                assert (await asked(CLUSTER_IP, port, udp=udp))[:2] in ("a ", "b ")
                assert (await asked(CLUSTER_IP, port, stranger, udp=udp))[:2] in ("a ", "b ")
                for caller, address in ((None, "127.0.0.1"), (None, OUTSIDE_HOST), (client, one.gateway), (outside, OUTSIDE_HOST)):
                    assert (await asked(address, NODE_PORT, caller, udp=udp))[:2] in ("a ", "b "), (caller, address)
            assert (await asked(OUTSIDE_HOST, NODE_PORT, outside)).endswith(OUTSIDE_PEER)
            # a pod that is its own backend
            proxy.apply([web()], slices(one.address))
            assert (await asked(CLUSTER_IP, 80, a)).startswith("a ")
            assert (await asked(CLUSTER_IP, 53, a, udp=True)).startswith("a ")

    asyncio.run(run())


def test_without_backends_it_refuses_at_once(instance, outside):
    async def run():
        async with cluster(instance) as (networks, proxy):
            client, _one = await pod(networks, "client")
            proxy.apply([web()], [])
            assert await asked(CLUSTER_IP, 80) == REFUSED
            assert await asked(CLUSTER_IP, 80, client) == REFUSED
            assert await asked(CLUSTER_IP, 81, client) == REFUSED  # a port that the service does not have
            assert await asked(OUTSIDE_HOST, NODE_PORT, outside) == REFUSED

    asyncio.run(run())


def test_changes_follow_each_other(instance, greeter):
    async def run():
        async with cluster(instance) as (networks, proxy):
            a, one = await pod(networks, "a")
            b, two = await pod(networks, "b")
            greeter(a, "a")
            greeter(b, "b")
            sticky = web(sessionAffinity="ClientIP")
            assert proxy.apply([web()], slices(one.address))
            assert not proxy.apply([web()], slices(one.address))
            assert (await asked(CLUSTER_IP)).startswith("a")
            proxy.apply([web()], slices(two.address))
            assert (await asked(CLUSTER_IP)).startswith("b")
            proxy.apply([sticky], slices(one.address, two.address))
            assert len({await asked(CLUSTER_IP) for _ in range(12)}) == 1
            proxy.apply([web()], [])
            assert await asked(CLUSTER_IP) == REFUSED
            proxy.apply([web()], slices(one.address))
            assert (await asked(CLUSTER_IP)).startswith("a")
            proxy.apply([], [])
            proxy.apply([web()], slices(one.address))
            proxy._nft.run(f"delete table ip {proxy._table}\n")  # somebody else's hand
            proxy.apply([web()], slices(two.address))
            assert (await asked(CLUSTER_IP)).startswith("b")

    asyncio.run(run())


def test_a_udp_client_that_keeps_its_port_follows_the_service(instance, greeter):
    async def run():
        async with cluster(instance) as (networks, proxy):
            a, one = await pod(networks, "a")
            b, two = await pod(networks, "b")
            client, _three = await pod(networks, "client")
            greeter(a, "a")
            greeter(b, "b")
            proxy.apply([web()], slices(one.address))
            with netns.call(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as talker:
                talker.settimeout(2)

                def talk():
                    talker.sendto(b"hello", (CLUSTER_IP, 53))
                    return talker.recv(100).decode()[0]

                assert await asyncio.to_thread(talk) == "a"
                proxy.apply([web()], slices(two.address))
                assert await asyncio.to_thread(talk) == "b"

    asyncio.run(run())


def test_it_follows_the_cluster(instance, greeter):
    async def run():
        async with cluster(instance) as (networks, proxy):
            a, one = await pod(networks, "a")
            greeter(a, "a")
            client = FakeClient(virtual_time.clock)
            informers = InformerFactory(client)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(informers.run()), group.create_task(proxy.run(informers))]
                await client.create(SERVICES, web())
                await until(lambda: asked(CLUSTER_IP, timeout=0.2), REFUSED)
                await client.create(ENDPOINT_SLICES, slices(one.address)[0])
                await until(lambda: asked(CLUSTER_IP, timeout=0.2), f"a {one.gateway}", startswith="a ")
                for task in tasks:
                    task.cancel()

    asyncio.run(run())


async def until(question, expected, *, startswith=None):
    """Asks again until the answer is right: the proxy gathers changes for a moment."""
    async with asyncio.timeout(3):
        while True:
            answer = await question()
            if answer == expected or (startswith and answer.startswith(startswith)):
                return
            await asyncio.sleep(0.01)
