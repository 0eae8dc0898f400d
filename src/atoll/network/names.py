"""The embedded name service: 127.0.0.11 inside every container on a network that a user made.

Its sockets are opened inside the container's namespace and served by the engine's loop, so which container asks needs no guessing. They
stand at a port of the kernel's choice, and a rule in the namespace leads port 53 there: a container may well run a name server of its own
on 0.0.0.0:53. A name is answered from the networks the asking container is on, its own links first; everything else goes to its upstream
servers by way of the host, unless all its networks are internal: then nothing leaves, not even a question (CVE-2024-29018).
"""

from __future__ import annotations

import logging
import random
import socket
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

from atoll.errors import NotSupported
from atoll.kernel import netns
from atoll.kernel.nftables import Nftables, NftablesError
from atoll.network.dns_server import DnsServer, bound_sockets, failure
from atoll.network.dns_upstream import HostServers, Upstream
from atoll.network.files import EMBEDDED_DNS
from atoll.network.model import Endpoint
from atoll.network.state import State

logger = logging.getLogger(__name__)

_TTL_S = 30  # a restarted container may have another address
_TABLE = "atoll_names"


class NameService:
    """One server a container. `add` and `remove` follow its endpoints."""

    def __init__(self, state: State, resolv_conf: Path) -> None:
        self._state = state
        self._servers: dict[str, DnsServer] = {}
        self._zones = _Zones(state)
        self._host = HostServers(resolv_conf)

    async def add(self, endpoint: Endpoint) -> None:
        """Serves the endpoint's container from now on. Raises SystemFailure where its namespace is gone."""
        if not endpoint.has_names or endpoint.container_id in self._servers:
            return
        udp, tcp = netns.call(Path(endpoint.netns), _open_sockets)
        server = DnsServer(partial(self._answer, endpoint.container_id, Upstream()), version=lambda: self._state.version)
        await server.start(udp, tcp)
        self._servers[endpoint.container_id] = server

    async def remove(self, endpoint: Endpoint) -> None:
        """Stops serving with the container's last endpoint that has names; call while the endpoint is still in the state."""
        others = (other for other in self._state.of_container(endpoint.container_id) if other.id != endpoint.id and other.has_names)
        if any(others):
            return
        if server := self._servers.pop(endpoint.container_id, None):
            server.close()

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def _answer(
        self, container_id: str, upstream: Upstream, query: dns.message.Message, data: bytes, by_tcp: bool
    ) -> dns.message.Message | bytes:
        mine = self._state.of_container(container_id)
        question = query.question[0]
        local = self._zones.answer(mine, question.name, question.rdtype)
        if local is not None:
            response = failure(query, dns.rcode.NOERROR)
            response.answer = local
            return response
        if not any(endpoint.gateway for endpoint in mine):
            return failure(query, dns.rcode.SERVFAIL)
        servers = next((endpoint.dns for endpoint in mine if endpoint.dns), ()) or self._host.servers()
        return await upstream.ask(data, servers, by_tcp=by_tcp) or failure(query, dns.rcode.SERVFAIL)


class _Zones:
    """What names mean on each network; made anew when the state has changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._version = -1
        self._names: dict[str, dict[str, list[str]]] = {}  # network id, name in lower case, addresses
        self._reverse: dict[str, dict[str, str]] = {}  # network id, address, full name

    def answer(self, seats: Sequence[Endpoint], name: dns.name.Name, kind: int) -> list[dns.rrset.RRset] | None:
        """Records for the one who sits on `seats`; an empty list where the name is ours and has none of this kind; None where it is not."""
        if self._version != self._state.version:
            self._rebuild()
        if kind == dns.rdatatype.PTR:
            return self._pointer(seats, name)
        wanted = name.to_text(omit_final_dot=True).lower()
        found = (self._names.get(seat.network_id, {}).get(seat.links.get(wanted, wanted).lower(), ()) for seat in seats)
        addresses = list(dict.fromkeys(address for each in found for address in each))
        if not addresses:
            return None
        if kind not in (dns.rdatatype.A, dns.rdatatype.AAAA):
            return []
        wanted_family = [address for address in addresses if (":" in address) == (kind == dns.rdatatype.AAAA)]
        if not wanted_family:
            return []
        random.shuffle(wanted_family)  # replicas of a service share an alias: a poor man's balancing, Docker's too
        return [dns.rrset.from_text(name, _TTL_S, "IN", "A" if kind == dns.rdatatype.A else "AAAA", *wanted_family)]

    def _pointer(self, seats: Sequence[Endpoint], name: dns.name.Name) -> list[dns.rrset.RRset] | None:
        try:
            address = dns.reversename.to_address(name)
        except (dns.exception.DNSException, ValueError):
            return None
        for seat in seats:
            if full := self._reverse.get(seat.network_id, {}).get(address):
                return [dns.rrset.from_rdata(name, _TTL_S, dns.rdata.from_text("IN", "PTR", dns.name.from_text(full).to_text()))]
        return None

    def _rebuild(self) -> None:
        self._names, self._reverse = {}, {}
        for endpoint in self._state.endpoints.values():
            network = self._state.networks.get(endpoint.network_id)
            if network is None or not network.has_names:
                continue
            names = self._names.setdefault(network.id, defaultdict(list))
            addresses = [address for address in (endpoint.address, endpoint.address6) if address]
            for name in endpoint.dns_names:
                names[name.lower()] += addresses
                names[f"{name}.{network.name}".lower()] += addresses
            for address in addresses:
                self._reverse.setdefault(network.id, {})[address] = f"{endpoint.dns_names[0]}.{network.name}"
        self._version = self._state.version


def _open_sockets() -> tuple[socket.socket, socket.socket]:
    """Runs inside the container's namespace."""
    try:
        with Nftables() as nft:
            udp, tcp = bound_sockets(EMBEDDED_DNS, 0)
            try:
                nft.run(_redirect(udp.getsockname()[1], tcp.getsockname()[1]))
            except BaseException:
                udp.close()
                tcp.close()
                raise
    except (NotSupported, NftablesError) as error:
        logger.info("no redirection of port 53, taking the port itself: %s", error)
        udp, tcp = bound_sockets(EMBEDDED_DNS, 53)
    return udp, tcp


def _redirect(udp_port: int, tcp_port: int) -> str:
    return f"""
table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {EMBEDDED_DNS} udp dport 53 dnat to {EMBEDDED_DNS}:{udp_port}
    ip daddr {EMBEDDED_DNS} tcp dport 53 dnat to {EMBEDDED_DNS}:{tcp_port}
  }}
}}
"""
