"""The cluster's name server: answers from the zone, and asks the host's servers for the rest.

It listens inside a network namespace of its own on the pods' network, like the pod it replaces: packets between pods are forwarded,
where packets to the
host would have to pass whatever firewall guards the host. The service address 10.96.0.10 reaches it as any service reaches its pods.
"""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from atoll.client.factory import InformerFactory
from atoll.client.resources import ENDPOINT_SLICES, SERVICES
from atoll.errors import SystemFailure
from atoll.kernel import netns as kernel_netns
from atoll.network.dns_server import DnsServer, bound_sockets, failure
from atoll.network.dns_upstream import PORT, HostServers, Upstream
from atoll.node.dns.zone import TTL_S, Zone, resolve

logger = logging.getLogger(__name__)

_ALIASES_MAX = 8  # of an ExternalName that leads to another
_GATHER_S = 0.01


class ClusterDns:
    """`update` or `run` gives it the cluster; `start` opens its sockets."""

    def __init__(self, *, domain: str = "cluster.local", resolv_conf: Path = Path("/etc/resolv.conf"), upstream_port: int = PORT) -> None:
        self._zone = Zone(domain)
        self._is_synced = False
        self._version = 0
        self._host = HostServers(resolv_conf)
        self._upstream = Upstream(upstream_port)
        self._server: DnsServer | None = None
        self._address = ""

    async def start(self, address: str, *, port: int = PORT, netns: Path | None = None) -> None:
        """Serves UDP and TCP at `address`, in the namespace at `netns` or the host's. Raises SystemFailure."""
        bind = partial(bound_sockets, address, port)
        try:
            udp, tcp = kernel_netns.call(netns, bind) if netns else bind()
        except OSError as error:
            raise SystemFailure(f"open the cluster's DNS at {address}:{port}", error.errno or 0) from error
        server = DnsServer(self.answer, version=lambda: self._version)
        await server.start(udp, tcp)
        self._server, self._address = server, address

    def close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    def update(self, zone: Zone) -> None:
        self._zone, self._is_synced = zone, True
        self._version += 1

    async def run(self, informers: InformerFactory) -> None:
        """Follows the cluster until cancelled; the factory is run by the caller."""
        services, slices = informers.informer(SERVICES), informers.informer(ENDPOINT_SLICES)
        changed = asyncio.Event()
        for informer in (services, slices):
            informer.add_handler(lambda _old, _new: changed.set())
        await services.wait_synced()
        await slices.wait_synced()
        changed.set()
        while True:
            await changed.wait()
            await asyncio.sleep(_GATHER_S)
            changed.clear()
            self.update(Zone.build(services.list(), slices.list(), self._zone.domain))

    async def answer(self, query: dns.message.Message, data: bytes, by_tcp: bool) -> dns.message.Message | bytes:
        """The response to one query; of names that are not the cluster's, the upstream's as it came."""
        question = query.question[0]
        name, kind = question.name, dns.rdatatype.to_text(question.rdtype)
        response = failure(query, dns.rcode.NOERROR)
        for _ in range(_ALIASES_MAX):
            found = resolve(self._zone, name.to_text(omit_final_dot=True).lower(), kind)
            if found is None:
                break
            if not self._is_synced:
                return failure(query, dns.rcode.SERVFAIL)  # "no such name" would be believed, and remembered
            response.flags |= dns.flags.AA
            if not found.alias or kind == "CNAME":
                return self._complete(response, name, kind, found.data, exists=found.exists)
            response.answer.append(dns.rrset.from_text(name, TTL_S, "IN", "CNAME", *found.data))
            name = dns.name.from_text(found.alias)
        else:
            return failure(query, dns.rcode.SERVFAIL)  # aliases in a circle
        if not response.answer:
            return await self._ask(data, by_tcp=by_tcp) or failure(query, dns.rcode.SERVFAIL)
        response.answer += await self._outside(name, kind)
        return response

    def _complete(
        self, response: dns.message.Message, name: dns.name.Name, kind: str, data: tuple[str, ...], *, exists: bool
    ) -> dns.message.Message:
        if data:
            shuffled = random.sample(data, len(data))  # clients take the first: headless services balance by this
            response.answer.append(dns.rrset.from_text(name, TTL_S, "IN", kind, *shuffled))
            if kind == "SRV":
                response.additional += self._targets(shuffled)
            return response
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        domain = self._zone.domain
        start = f"ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 {TTL_S}"
        response.authority.append(dns.rrset.from_text(f"{domain}.", TTL_S, "IN", "SOA", start))
        return response

    def _targets(self, services: list[str]) -> list[dns.rrset.RRset]:
        """Addresses of what SRV records point to, to save the client a question each (RFC 2782)."""
        hosts = dict.fromkeys(service.rpartition(" ")[2] for service in services)
        found = ((host, resolve(self._zone, host.rstrip("."), "A")) for host in hosts)
        return [dns.rrset.from_text(host, TTL_S, "IN", "A", *answer.data) for host, answer in found if answer and answer.data]

    async def _outside(self, name: dns.name.Name, kind: str) -> list[dns.rrset.RRset]:
        """Records of an ExternalName's target; none when nobody knows it: the alias alone is a valid answer."""
        reply = await self._ask(dns.message.make_query(name, kind).to_wire(), by_tcp=False)
        if reply is None:
            return []
        try:
            return list(dns.message.from_wire(reply).answer)
        except dns.exception.DNSException as error:
            logger.debug("upstream on %s: %s", name, error)
            return []

    async def _ask(self, data: bytes, *, by_tcp: bool) -> bytes | None:
        servers = [server for server in self._host.servers() if server != self._address]  # a host that resolves by us
        return await self._upstream.ask(data, servers, by_tcp=by_tcp)
