"""The cluster's name server on the wire: through its service address, from pods and from the host."""

from __future__ import annotations

import asyncio
import socket

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
from test_dns_zone import service, slice_
from test_proxy_traffic import cluster, pod

import virtual_time
from atoll.client.factory import InformerFactory
from atoll.client.resources import ENDPOINT_SLICES, SERVICES
from atoll.kernel import netns
from atoll.network.dns_server import DnsServer, bound_sockets, failure
from atoll.node.dns import ClusterDns, Zone, kube_dns_objects, publish
from fake_cluster import FakeClient

UPSTREAM, CLUSTER_DNS = "127.78.0.1", "10.96.77.10"


async def upstream(port=53):
    """A name server for the world: every name is 203.0.113.9."""

    async def answer(query, _data, _by_tcp):
        response = failure(query, dns.rcode.NOERROR)
        response.answer = [dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "203.0.113.9")]
        return response

    server = DnsServer(answer)
    await server.start(*bound_sockets(UPSTREAM, port))
    return server


def resolver(instance):
    path = instance.home / "resolv.conf"
    path.write_text(f"nameserver {UPSTREAM}\n")
    return path


async def lookup(address, name, kind="A", namespace=None, *, tcp=False):
    query = dns.message.make_query(name, kind)

    def send():
        return (dns.query.tcp if tcp else dns.query.udp)(query, address, timeout=3)

    return await asyncio.to_thread(netns.call, namespace, send) if namespace else await asyncio.to_thread(send)


def data(response):
    return sorted(record.to_text() for rrset in response.answer for record in rrset)


def test_pods_ask_the_service_address(instance):
    async def run():
        world = await upstream()
        async with cluster(instance) as (networks, proxy):
            home, seat = await pod(networks, "kube-dns")
            client, _seat = await pod(networks, "client")
            server = ClusterDns(resolv_conf=resolver(instance))
            await server.start(seat.address, netns=home)
            try:
                kube_dns, slice_of_dns = kube_dns_objects(CLUSTER_DNS, seat.address)
                server.update(Zone.build([kube_dns, service("docs", "", type="ExternalName", externalName="example.org")], [slice_of_dns]))
                proxy.apply([kube_dns], [slice_of_dns])
                for tcp in (False, True):
                    for caller in (client, None):
                        found = await lookup(CLUSTER_DNS, "kube-dns.kube-system.svc.cluster.local", namespace=caller, tcp=tcp)
                        assert data(found) == [CLUSTER_DNS]
                        assert found.flags & dns.flags.AA
                    assert data(await lookup(CLUSTER_DNS, "example.org", namespace=client, tcp=tcp)) == ["203.0.113.9"]
                alias = await lookup(CLUSTER_DNS, "docs.default.svc.cluster.local", namespace=client)
                assert data(alias) == ["203.0.113.9", "example.org."]
                missing = await lookup(CLUSTER_DNS, "google.com.default.svc.cluster.local", namespace=client)
                assert (missing.rcode(), missing.authority[0].name.to_text()) == (dns.rcode.NXDOMAIN, "cluster.local.")
            finally:
                server.close()
                world.close()
                await asyncio.sleep(0)

    asyncio.run(run())


def answered(server, name, kind="A"):
    query = dns.message.make_query(name, kind)
    return server.answer(query, query.to_wire(), False)


def test_answers(instance):
    async def run():
        server = ClusterDns(resolv_conf=instance.home / "none")
        assert (await answered(server, "web.default.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL  # before the cluster is known
        loop = [
            service("a", "", type="ExternalName", externalName="b.default.svc.cluster.local"),
            service("b", "", type="ExternalName", externalName="a.default.svc.cluster.local"),
            service("c", "", type="ExternalName", externalName="web.default.svc.cluster.local"),
        ]
        server.update(Zone.build([service("web", ports=[{"name": "http", "port": 80}]), *loop], []))
        assert data(await answered(server, "WEB.default.svc.cluster.LOCAL.")) == ["10.96.0.20"]
        assert data(await answered(server, "c.default.svc.cluster.local")) == ["10.96.0.20", "web.default.svc.cluster.local."]
        assert (await answered(server, "a.default.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL
        assert (await answered(server, "example.org")).rcode() == dns.rcode.SERVFAIL  # no upstream
        no_data = await answered(server, "web.default.svc.cluster.local", "AAAA")
        assert (no_data.rcode(), no_data.answer, len(no_data.authority)) == (dns.rcode.NOERROR, [], 1)
        srv = await answered(server, "_http._tcp.web.default.svc.cluster.local", "SRV")
        assert [rrset.to_text() for rrset in srv.additional] == ["web.default.svc.cluster.local. 5 IN A 10.96.0.20"]

    asyncio.run(run())


def test_replies_are_sent_again_until_the_zone_changes():
    async def run():
        zone, made = ClusterDns(), []

        async def answer(*question):
            made.append(question)
            return await zone.answer(*question)

        server = DnsServer(answer, version=lambda: zone._version)
        query = dns.message.make_query("web.default.svc.cluster.local", "A")

        async def asked(number):
            query.id = number
            reply = dns.message.from_wire(await server._reply(query.to_wire(), by_tcp=False))
            assert reply.id == number
            return data(reply)

        assert await asked(1) == []  # SERVFAIL before the cluster is known: not kept
        zone.update(Zone.build([service("web")], []))
        assert [await asked(number) for number in (2, 3, 4)] == [["10.96.0.20"]] * 3
        assert len(made) == 2
        zone.update(Zone.build([service("web", "10.96.0.21")], []))
        assert await asked(5) == ["10.96.0.21"]

    asyncio.run(run())


def test_dead_upstreams_do_not_hold_up_the_cluster(instance):
    async def run():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((UPSTREAM, 5399))
            server = ClusterDns(resolv_conf=resolver(instance), upstream_port=5399)
            server.update(Zone.build([service("web")], []))
            waiting = [asyncio.ensure_future(answered(server, f"n{number}.example.org")) for number in range(200)]
            await asyncio.sleep(0.05)
            assert sum(task.done() for task in waiting) == 200 - 128  # beyond the bound: SERVFAIL at once
            assert data(await answered(server, "web.default.svc.cluster.local")) == ["10.96.0.20"]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_it_follows_the_cluster():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        server, informers = ClusterDns(), InformerFactory(client)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(informers.run()), group.create_task(server.run(informers))]
            await publish(client, CLUSTER_DNS, "10.1.0.2")
            await publish(client, CLUSTER_DNS, "10.1.0.3")  # after a restart
            await client.create(SERVICES, service("db", "None"))
            await client.create(ENDPOINT_SLICES, slice_("db", {"addresses": ["10.1.0.7"], "hostname": "db-0"}))
            await asyncio.sleep(1)
            assert data(await answered(server, "kube-dns.kube-system.svc.cluster.local")) == [CLUSTER_DNS]
            assert data(await answered(server, "db-0.db.default.svc.cluster.local")) == ["10.1.0.7"]
            found = await client.get(ENDPOINT_SLICES, "kube-dns-server", "kube-system")
            assert found["endpoints"][0]["addresses"] == ["10.1.0.3"]
            for task in tasks:
                task.cancel()

    virtual_time.run(scenario())
