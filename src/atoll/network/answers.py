"""What the embedded name service answers: names of a container's own networks, and for all others what its upstream servers say."""

from __future__ import annotations

import random
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

from atoll.network.dns_server import DnsServer, failure
from atoll.network.dns_upstream import HostServers, Upstream
from atoll.network.model import Endpoint
from atoll.network.state import State

_TTL_S = 30  # a restarted container may have another address


class Answers:
    """For the containers of one instance; each asks from where it sits."""

    def __init__(self, state: State, resolv_conf: Path) -> None:
        self._state = state
        self._zones = _Zones(state)
        self._host = HostServers(resolv_conf)

    def server(self, container_id: str) -> DnsServer:
        """One for a container, not started yet."""
        return DnsServer(partial(self._answer, container_id, Upstream()), version=lambda: self._state.version)

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
