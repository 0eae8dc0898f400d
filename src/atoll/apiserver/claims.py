"""Who holds which cluster IP and which node port: a row of the store for each, made by compare-and-swap before the service is written.

However many API servers share a store, only one of them can make the row. A cluster IP's is its IPAddress object, as upstream's (KEP-1880);
a node port's is known here alone. A row whose service was never written, or has gone, is found and taken away later (`reclaim`).
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.generate import Uids
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.store import CompareFailed, Store
from atoll.units import timestamp_seconds

NETWORKING = "networking.k8s.io"
MANAGED_BY, MANAGER = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"
FAMILY = "ipaddress.kubernetes.io/ip-family"
PORTS_PREFIX = "/registry/ranges/nodeports/"

Port = tuple[str, int]  # protocol and number
Held = frozenset[str | Port]  # addresses and ports


class Claim(NamedTuple):
    """A row as it stood at `revision`; `owner` is the service's namespace and name."""

    key: str
    what: str | Port
    owner: tuple[str, str]
    revision: int
    made: float  # seconds since the epoch


def held_by(service: Mapping[str, Any] | None) -> Held:
    spec = (service or {}).get("spec") or {}
    held: set[str | Port] = {(port.get("protocol", "TCP"), port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")}
    if spec.get("clusterIP") not in (None, "", "None"):
        held.add(spec["clusterIP"])
    return frozenset(held)


class Claims:
    def __init__(self, registry: KindRegistry, caches: Caches, store: Store, clock: Callable[[], float] = time.time) -> None:
        kind = registry.get(NETWORKING, "v1", "ipaddresses")
        assert kind is not None
        self._addresses = caches.of(kind)
        self._store = store
        self._clock = clock
        self._new_uid = Uids()

    def addresses(self) -> Iterable[str]:
        """Those that are claimed, as far as this server has heard."""
        return [item.key for item in self._addresses.items()]

    async def make(self, what: str | Port, service: Mapping[str, Any]) -> Claim | None:
        """None when it is taken. Raises Unavailable."""
        owner = service["metadata"].get("namespace") or "", service["metadata"]["name"]
        now = self._clock()
        key = self._key(what)
        try:
            if isinstance(what, str):
                obj = self._object(what, owner, now)
                revision = await self._store.write(key, self._addresses.encode(obj), expected=0, payload=obj)
            else:
                row = {"service": {"namespace": owner[0], "name": owner[1]}, "made": now}
                revision = await self._store.write(key, orjson.dumps(row), expected=0)
        except CompareFailed:
            return None
        return Claim(key, what, owner, revision, now)

    async def find(self, held: Iterable[str | Port], service: Mapping[str, Any] | None = None) -> list[Claim]:
        """The rows of these, those that exist; with a service, those that are the service's."""
        found = []
        for what in held:
            if isinstance(what, str):
                item = await self._addresses.sought(what)
                found += [_claim(self._key(what), what, item.obj, item.revision)] if item is not None else []
            else:
                rows = await self._store.scan(self._key(what))
                found += [_claim(row.key, what, orjson.loads(row.value), row.revision) for row in rows]
        if service is None:
            return found
        owner = service["metadata"].get("namespace") or "", service["metadata"]["name"]
        return [claim for claim in found if claim.owner == owner]

    async def all(self) -> list[Claim]:
        """Every row of a service; IPAddresses that others have made are theirs."""
        claims = []
        for record in await self._store.scan(PORTS_PREFIX):
            protocol, _, number = record.key.removeprefix(PORTS_PREFIX).partition("-")
            claims.append(_claim(record.key, (protocol, int(number)), orjson.loads(record.value), record.revision))
        managed = [item for item in self._addresses.items() if (item.obj["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER]
        claims += [_claim(self._key(item.key), item.key, item.obj, item.revision) for item in managed]
        return claims

    async def release(self, claims: Iterable[Claim]) -> None:
        """What is no longer as it was found belongs to another by now. Raises Unavailable."""
        for claim in claims:
            try:
                await self._store.write(claim.key, None, expected=claim.revision)
            except CompareFailed:
                continue

    def _key(self, what: str | Port) -> str:
        # Five digits: no key is the beginning of another.
        return f"{self._addresses.prefix}{what}" if isinstance(what, str) else f"{PORTS_PREFIX}{what[0]}-{what[1]:05d}"

    def _object(self, address: str, owner: tuple[str, str], now: float) -> dict[str, Any]:
        metadata = {
            "name": address,
            "uid": self._new_uid(),
            "creationTimestamp": timestamp_seconds(now),
            "labels": {FAMILY: "IPv6" if ":" in address else "IPv4", MANAGED_BY: MANAGER},
        }
        parent = {"group": "", "resource": "services", "namespace": owner[0], "name": owner[1]}
        return {"kind": "IPAddress", "apiVersion": f"{NETWORKING}/v1", "metadata": metadata, "spec": {"parentRef": parent}}


def _claim(key: str, what: str | Port, row: Mapping[str, Any], revision: int) -> Claim:
    if isinstance(what, str):
        parent = (row.get("spec") or {}).get("parentRef") or {}
        made = time.strptime(row["metadata"]["creationTimestamp"][:19], "%Y-%m-%dT%H:%M:%S")
        return Claim(key, what, (parent.get("namespace") or "", parent.get("name") or ""), revision, float(calendar.timegm(made)))
    service = row["service"]
    return Claim(key, what, (service["namespace"], service["name"]), revision, float(row["made"]))
