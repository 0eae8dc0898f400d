"""Cluster IPs and node ports of services: chosen at create, kept by update, free again when the service goes.

What is chosen is claimed in the store (`claims`) before the service is written, and given back where the write does not come about. Where
nobody can say whether it did (the store did not answer), the claim stays, until `reclaim` has seen.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, ip_address, ip_network
from types import TracebackType
from typing import Any, Self

from atoll.apiserver.claims import Claim, Claims, Held, Port, held_by
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import Cause, Kind
from atoll.errors import AtollError, StatusError
from atoll.store import CompareFailed

log = logging.getLogger(__name__)

_WITH_NODE_PORT = ("NodePort", "LoadBalancer")
_RANDOM_TRIES = 64  # before the range is walked in order
_RELEASE_TRIES, _RELEASE_POLL_S = 50, 0.02  # a service is told to be gone before what it held is free

Taken = set[str | Port]
Objects = Callable[[], Iterable[Mapping[str, Any]]]


class Hold:
    """Holds nothing: for writes of what is no service."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give back what the write did not keep."""

    def keep(self) -> None:
        """The service has been written."""


_NOTHING = Hold()


class ServiceAddresses:
    """`services()` gives the stored Service objects, `ranges()` the ServiceCIDRs."""

    def __init__(
        self, claims: Claims, services: Objects, ranges: Objects, cidr: IPv4Network, node_ports: range, rng: random.Random | None = None
    ) -> None:
        self.claims = claims
        self._services = services
        self._ranges = ranges
        self._cidr = cidr
        self._ports = node_ports
        self._random = rng or random.SystemRandom()

    def reserve(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None, *, dry_run: bool = False) -> Hold:
        """Entered, it has filled in `new`'s addresses and claimed them. Raises StatusError 422, 500; Unavailable."""
        return _ServiceHold(self, kind, new, old, dry_run) if _is_service(kind) else _NOTHING

    async def found(self, kind: Kind, obj: Mapping[str, Any]) -> list[Claim]:
        """What is claimed for an object that is about to go."""
        return await self.claims.find(held_by(obj), obj) if _is_service(kind) else []

    async def is_held(self, what: str | Port) -> bool:
        """Whether it is claimed for a service that is there."""
        rows = await self.claims.find([what])
        present = {(each["metadata"].get("namespace"), each["metadata"]["name"]) for each in self._services()}
        return any(row.owner in present for row in rows)

    async def release(self, claims: list[Claim]) -> None:
        try:
            await self.claims.release(claims)
        except AtollError as error:  # the service's write has been answered for: `reclaim` does the rest
            log.warning("addresses and ports could not be given back: %s", error)

    async def assign(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None, made: list[Claim] | None) -> None:
        """Fill in what is missing; each claim is added to `made`, where there is one."""
        spec = new.setdefault("spec", {})
        former = (old or {}).get("spec") or {}
        own = held_by(old)
        taken: Taken = set()
        for service in self._services():
            if service["metadata"].get("uid") != new["metadata"].get("uid"):
                taken |= held_by(service)
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs"):
                spec.pop(field, None)
            return
        assigner = _Assigner(self, kind, new, own, taken, made)
        await assigner.cluster_ip(spec, former)
        await assigner.node_ports(spec, former)

    def networks(self) -> list[IPv4Network]:
        """The server's own range first, then those that ServiceCIDRs add."""
        lasting = [each for each in self._ranges() if not each["metadata"].get("deletionTimestamp")]
        added = [ip_network(cidr) for each in lasting for cidr in (each.get("spec") or {}).get("cidrs") or ()]
        return [self._cidr, *(each for each in added if isinstance(each, IPv4Network) and each != self._cidr)]

    def candidates(self, network: IPv4Network) -> Iterator[str]:
        size = network.num_addresses
        # The first 16 are left to those who ask for one by name (the API's own, DNS), as upstream's static band.
        low = min(17, size - 2)
        for _ in range(_RANDOM_TRIES):
            yield str(network[self._random.randrange(low, size - 1)])
        for index in range(1, size - 1):
            yield str(network[index])

    def port_candidates(self) -> Iterator[int]:
        for _ in range(_RANDOM_TRIES):
            yield self._random.choice(self.ports)
        yield from self.ports

    @property
    def ports(self) -> range:
        return self._ports


class _ServiceHold(Hold):
    def __init__(self, addresses: ServiceAddresses, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None, dry_run: bool) -> None:
        self._addresses = addresses
        self._kind, self._new, self._old, self._dry_run = kind, new, old, dry_run
        self._made: list[Claim] = []
        self._dropped: list[Claim] = []
        self._kept = False

    async def __aenter__(self) -> Self:
        try:
            await self._addresses.assign(self._kind, self._new, self._old, None if self._dry_run else self._made)
            if not self._dry_run:
                self._dropped = await self._addresses.claims.find(held_by(self._old) - held_by(self._new), self._new)
        except BaseException:
            await self._addresses.release(self._made)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._kept:
            await self._addresses.release(self._dropped)
        elif error is None or isinstance(error, (CompareFailed, StatusError)):
            await self._addresses.release(self._made)

    def keep(self) -> None:
        self._kept = True


class _Assigner:
    """One service's addresses. `own` is what it holds already; `made` None claims nothing (a dry run)."""

    def __init__(
        self, addresses: ServiceAddresses, kind: Kind, service: dict[str, Any], own: Held, taken: Taken, made: list[Claim] | None
    ) -> None:
        self._addresses = addresses
        self._kind, self._service, self._own, self._taken, self._made = kind, service, own, taken, made
        self._name = service["metadata"].get("name") or ""

    async def cluster_ip(self, spec: dict[str, Any], former: Mapping[str, Any]) -> None:
        address = spec.get("clusterIP") or former.get("clusterIP") or ""
        if address == "None":
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        if not address:
            address = await self._free_address()
        elif address != former.get("clusterIP"):
            await self._check_address(address)
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    async def node_ports(self, spec: dict[str, Any], former: Mapping[str, Any]) -> None:
        ports = spec.get("ports") or []
        wanted = spec.get("type") in _WITH_NODE_PORT and not (
            spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
        )
        if not wanted:
            if former.get("type") in _WITH_NODE_PORT:  # became a ClusterIP: the ports it was given go back
                for port in ports:
                    port.pop("nodePort", None)
            return
        kept = {(p.get("protocol", "TCP"), p["port"]): p.get("nodePort") for p in former.get("ports") or ()}
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            if not port.get("nodePort") and kept.get((protocol, port["port"])):
                port["nodePort"] = kept[protocol, port["port"]]
            number = port.get("nodePort")
            if not number:
                port["nodePort"] = number = await self._free_port(protocol)
            elif (protocol, number) not in self._own:
                await self._check_port(index, protocol, number)
            self._taken.add((protocol, number))

    async def _claim(self, what: str | Port) -> bool:
        if what in self._taken:
            return False
        if self._made is None or what in self._own:
            return True
        claim = await self._addresses.claims.make(what, self._service)
        if claim is not None:
            self._made.append(claim)
        return claim is not None

    async def _claim_wanted(self, what: str | Port) -> bool:
        """The same for one that was asked for by name: where the service that held it has gone, its release is waited for."""
        for _ in range(_RELEASE_TRIES):
            if await self._claim(what):
                return True
            if what in self._taken or await self._addresses.is_held(what):
                return False
            await asyncio.sleep(_RELEASE_POLL_S)
        return False

    async def _free_address(self) -> str:
        claimed = set(self._addresses.claims.addresses())  # asked for by heart: each refusal costs a way to the store
        for network in self._addresses.networks():
            for address in self._addresses.candidates(network):
                if address not in claimed and await self._claim(address):
                    return address
        told = ", ".join(map(str, self._addresses.networks()))
        raise statuses.internal(f"failed to allocate a serviceIP for {self._name}: range {told} is full")

    async def _check_address(self, address: str) -> None:
        networks = self._addresses.networks()
        try:
            inside = any(ip_address(address) in network for network in networks)
        except ValueError:
            inside = False
        if not inside:
            why = (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {', '.join(map(str, networks))}"
            )
        elif not await self._claim_wanted(address):
            why = f"failed to allocate IP {address}: provided IP is already allocated"
        else:
            return
        cause = Cause("FieldValueInvalid", f'Invalid value: ["{address}"]: {why}', "spec.clusterIPs")
        raise statuses.invalid(self._kind, self._name, [cause])

    async def _check_port(self, index: int, protocol: str, number: int) -> None:
        ports = self._addresses.ports
        if number not in ports:
            why = f"provided port is not in the valid range. The range of valid ports is {ports.start}-{ports.stop - 1}"
        elif not await self._claim_wanted((protocol, number)):
            why = "provided port is already allocated"
        else:
            return
        cause = Cause("FieldValueInvalid", f"Invalid value: {number}: {why}", f"spec.ports[{index}].nodePort")
        raise statuses.invalid(self._kind, self._name, [cause])

    async def _free_port(self, protocol: str) -> int:
        for number in self._addresses.port_candidates():
            if await self._claim((protocol, number)):
                return number
        raise statuses.internal(f"failed to allocate a nodePort for {self._name}: range is full")


def _is_service(kind: Kind) -> bool:
    return kind.kind == "Service" and not kind.group
