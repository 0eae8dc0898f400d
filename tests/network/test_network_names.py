"""The embedded name service, asked from inside real namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from atoll.kernel import netns
from atoll.network import Networks
from atoll.network.dns_server import DnsServer, failure

UPSTREAM = "127.77.0.1"


@contextlib.asynccontextmanager
async def started(instance):
    resolv_conf = instance.home / "resolv.conf"
    resolv_conf.write_text(f"nameserver {UPSTREAM}\n")
    networks = Networks(instance, resolv_conf=resolv_conf)
    try:
        await networks.start()
        yield networks
    finally:
        await networks.destroy()
        await networks.close()


@contextlib.asynccontextmanager
async def upstream(asked: list[str]):
    """A name server for the world: every name is 203.0.113.9; "big." answers 60 addresses."""

    async def answer(query, _data, _by_tcp):
        question = query.question[0]
        asked.append(question.name.to_text())
        response = failure(query, dns.rcode.NOERROR)
        addresses = [f"203.0.113.{last}" for last in range(1, 61)] if question.name.to_text() == "big." else ["203.0.113.9"]
        response.answer = [dns.rrset.from_text(question.name, 5, "IN", "A", *addresses)]
        return response

    server = DnsServer(answer)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((UPSTREAM, 53))
    udp.setblocking(False)
    await server.start(udp, socket.create_server((UPSTREAM, 53)))
    yield
    server.close()
    await asyncio.sleep(0)


async def container(networks, name, *wanted, **kwargs):
    path = await networks.create_netns(name)
    for network in wanted:
        await networks.attach(name, network, netns=path, name=name, **kwargs)
    return path


async def lookup(path: Path, name: str, kind: str = "A", *, tcp: bool = False, **kwargs):
    """Asks 127.0.0.11 from inside; the response."""
    query = dns.message.make_query(name, kind, **kwargs)

    def send():
        if tcp:
            return dns.query.tcp(query, "127.0.0.11", timeout=3)
        return dns.query.udp(query, "127.0.0.11", timeout=3)

    return await asyncio.to_thread(netns.call, path, send)


def addresses(response) -> list[str]:
    return sorted(record.to_text() for rrset in response.answer for record in rrset)


@pytest.mark.parametrize("tcp", [False, True])
def test_names_of_a_network(instance, tcp):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "red"})
            await networks.create({"Name": "blue"})
            web = await container(networks, "web", "red", aliases=["www", "app"])
            await container(networks, "api", "red", aliases=["app"])
            lone = await container(networks, "lone", "blue")
            web_address = networks.endpoints("web")[0].address
            api_address = networks.endpoints("api")[0].address
            assert addresses(await lookup(web, "api", tcp=tcp)) == [api_address]
            assert addresses(await lookup(web, "API.red.", tcp=tcp)) == [api_address]
            assert addresses(await lookup(web, "www", tcp=tcp)) == [web_address]
            assert addresses(await lookup(web, "app", tcp=tcp)) == sorted([web_address, api_address])
            no_v6 = await lookup(web, "api", "AAAA", tcp=tcp)
            assert (no_v6.rcode(), no_v6.answer) == (dns.rcode.NOERROR, [])
            back = ".".join(reversed(api_address.split("."))) + ".in-addr.arpa"
            assert addresses(await lookup(web, back, "PTR", tcp=tcp)) == ["api.red."]
            await networks.attach("lone", "red", netns=lone, name="lone")
            assert addresses(await lookup(lone, "api", tcp=tcp)) == [api_address]
            await networks.rename("api", "backend")
            assert addresses(await lookup(web, "backend", tcp=tcp)) == [api_address]

    asyncio.run(run())


def test_the_rest_goes_upstream(instance):
    async def run():
        asked: list[str] = []
        async with upstream(asked), started(instance) as networks:
            await networks.create({"Name": "red"})
            await networks.create({"Name": "vault", "Internal": True})
            web = await container(networks, "web", "red")
            safe = await container(networks, "safe", "vault")
            assert addresses(await lookup(web, "example.org")) == ["203.0.113.9"]
            assert addresses(await lookup(web, "example.org", tcp=True)) == ["203.0.113.9"]
            cut = await lookup(web, "big.")
            assert cut.flags & dns.flags.TC
            assert len(addresses(await lookup(web, "big.", tcp=True))) == 60
            assert len(addresses(await lookup(web, "big.", use_edns=0, payload=1232))) == 60
            asked.clear()
            assert (await lookup(safe, "secret.example.org")).rcode() == dns.rcode.SERVFAIL
            assert asked == []  # nothing leaves an internal network

    asyncio.run(run())


def test_port_53_is_the_containers_own(instance):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "red"})
            web = await container(networks, "web", "red")
            with netns.call(web, lambda: socket.create_server(("0.0.0.0", 53))):
                assert addresses(await lookup(web, "web"))

    asyncio.run(run())


def test_default_bridge_has_no_names(instance):
    async def run():
        async with started(instance) as networks:
            web = await container(networks, "web", "bridge")
            with pytest.raises(OSError, match="refused"):
                await asyncio.to_thread(netns.call, web, lambda: socket.create_connection(("127.0.0.11", 53), 1))

    asyncio.run(run())


HEADER = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
HOSTILE = {
    "empty": (b"", None),
    "short": (b"\x12\x34\x01", None),
    "a response": (b"\x12\x34\x81\x80\x00\x01" + bytes(6) + b"\x01a\x00\x00\x01\x00\x01", None),
    "pointer to itself": (HEADER + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),
    "two pointers in a circle": (HEADER + b"\xc0\x0e\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),
    "label longer than the packet": (HEADER + b"\x3fabc", dns.rcode.FORMERR),
    "64k records announced": (HEADER[:4] + b"\xff\xff\xff\xff\xff\xff\xff\xff", dns.rcode.FORMERR),
    "two questions": (HEADER[:4] + b"\x00\x02" + HEADER[6:] + b"\x01a\x00\x00\x01\x00\x01" * 2, dns.rcode.FORMERR),
    "update": (b"\x12\x34\x28\x00" + HEADER[4:] + b"\x01a\x00\x00\x06\x00\x01", None),
    "zone transfer": (HEADER + b"\x01a\x00\x00\xfc\x00\x01", dns.rcode.REFUSED),
    "class chaos": (HEADER + b"\x07version\x04bind\x00\x00\x10\x00\x03", dns.rcode.REFUSED),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_packets(name):
    data, expected = HOSTILE[name]

    async def run():
        async def answer(_query, _data, _by_tcp):
            raise AssertionError("must not get here")

        reply = await DnsServer(answer)._reply(data, by_tcp=False)
        if name == "update":
            assert dns.message.from_wire(reply).rcode() in (dns.rcode.NOTIMP, dns.rcode.FORMERR)
        elif expected is None:
            assert reply is None
        else:
            assert reply[:2] == b"\x12\x34"
            assert dns.message.from_wire(reply).rcode() == expected

    asyncio.run(run())


def test_an_answer_that_fails_is_servfail(caplog):
    async def run():
        async def answer(_query, _data, _by_tcp):
            raise ValueError("broken")

        reply = await DnsServer(answer)._reply(dns.message.make_query("a", "A").to_wire(), by_tcp=False)
        assert dns.message.from_wire(reply).rcode() == dns.rcode.SERVFAIL
        assert "cannot answer" in caplog.text

    asyncio.run(run())


def test_half_sent_tcp_queries_hold_nothing_up(instance):
    async def run():
        async with started(instance) as networks:
            await networks.create({"Name": "red"})
            web = await container(networks, "web", "red")

            def half():
                held = socket.create_connection(("127.0.0.11", 53), 1)
                held.sendall(b"\x00\x50half")
                return held

            with contextlib.ExitStack() as stack:
                for _ in range(5):
                    stack.enter_context(await asyncio.to_thread(netns.call, web, half))
                assert addresses(await lookup(web, "web", tcp=True))

    asyncio.run(run())


def test_a_flood_costs_the_flooder(instance):
    async def run():
        served = 0

        async def answer(query, _data, _by_tcp):
            nonlocal served
            served += 1
            return failure(query, dns.rcode.NOERROR)

        now = 7.0
        server = DnsServer(answer, clock=lambda: now)
        query = dns.message.make_query("a", "A").to_wire()
        for _ in range(20):
            for _ in range(100):
                server.datagram_received(query, ("10.0.0.2", 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        server.datagram_received(query, ("10.0.0.3", 1))
        await asyncio.sleep(0.01)
        assert served == 1000 + 1
        now = 8.0
        server.datagram_received(query, ("10.0.0.2", 1))
        await asyncio.sleep(0.01)
        assert served == 1000 + 2

    asyncio.run(run())
