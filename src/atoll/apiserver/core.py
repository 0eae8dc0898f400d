"""What every verb works with: the kinds, the store, the caches over it, and the gate an object passes before it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from atoll.apiserver.allocate import ServiceAddresses
from atoll.apiserver.call import Call
from atoll.apiserver.machinery.cacher import Cacher
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.generate import Uids
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind, KindRegistry
from atoll.store import Store


class Admission(Protocol):
    """`mutate` may change `new`, the request's own copy; both raise StatusError to refuse. `old` is None on create, `new` on delete."""

    async def mutate(self, call: Call, new: Object, old: Mapping[str, Any] | None) -> None: ...
    async def validate(self, call: Call, new: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> None: ...
    async def connect(self, call: Call, options: Object) -> None:
        """Before streams are opened to what `call` names."""
        ...


@dataclass(slots=True)
class Core:
    registry: KindRegistry
    store: Store
    caches: Caches
    admission: Admission
    addresses: ServiceAddresses
    clock: Callable[[], float] = field(default=time.time)
    new_uid: Callable[[], str] = field(default_factory=Uids)
    slow_checks: asyncio.Lock = field(default_factory=asyncio.Lock)  # one at a time: each that runs has its share of the interpreter

    def cacher(self, kind: Kind) -> Cacher:
        return self.caches.of(kind)

    def find(self, group: str, version: str, plural: str, name: str, namespace: str | None = None) -> Item | None:
        """A stored object by its coordinates, for parts that look at other kinds; None where it or its kind is missing."""
        kind = self.registry.get(group, version, plural)
        return self.caches.of(kind).get(f"{namespace}/{name}" if namespace else name) if kind else None
