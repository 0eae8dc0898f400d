"""What the pipeline asks: the flow of a request, and a seat for it.

Schemas and levels are read anew when one of their objects has changed; which flow a user's requests belong to is remembered until then.
A request that finds a seat costs two additions and two look-ups. Levels keep their seats over a change of the configuration where their
specification stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.call import Call, User
from atoll.apiserver.core import Core
from atoll.apiserver.fairness.bootstrap import GROUP, LEVELS, SCHEMAS, objects
from atoll.apiserver.fairness.flows import Asked, FlowSchema
from atoll.apiserver.fairness.level import Level, Pool
from atoll.http.response import HeaderPairs

log = logging.getLogger(__name__)

OBJECTS_A_SEAT = 100  # a list takes a seat for so many objects, ten at most: upstream's estimate
SEATS_MAX = 10
FLOWS_MAX = 20_000


JSON_UNCACHED: HeaderPairs = (("Content-Type", "application/json"), ("Cache-Control", "no-cache, private"))


class Flow(NamedTuple):
    """`headers` tell the client which schema and level its request fell under, `json_headers` beside the usual ones of an answer."""

    level: Level
    key: bytes
    headers: HeaderPairs
    json_headers: HeaderPairs


class Fairness:
    def __init__(self, core: Core, seats: int = 600, clock: Callable[[], float] | None = None) -> None:
        self._core = core
        self._seats = seats
        self._clock = clock or asyncio.get_running_loop().time
        kinds = [core.registry.get(GROUP, "v1", plural) for plural in (SCHEMAS, LEVELS)]
        self._cachers = [core.cacher(kind) for kind in kinds if kind is not None]
        self._stale = True
        self.masters: Flow | None = None  # of all that masters ask, where it is known
        self._schemas: list[FlowSchema] = []
        self.levels: dict[str, Level] = {}
        self._specs: dict[str, bytes] = {}
        self._flows: dict[tuple[str, tuple[str, ...], Asked], Flow] = {}
        for cacher in self._cachers:
            cacher.listen(self._changed)

    def flow(self, user: User, asked: Asked) -> Flow:
        key = (user.name, user.groups, asked)
        found = None if self._stale else self._flows.get(key)
        if found is None:
            found = self._find(user, asked)
            if len(self._flows) >= FLOWS_MAX:
                self._flows.clear()
            self._flows[key] = found
        return found

    def seats(self, call: Call, limit: int) -> int:
        """How wide a request is."""
        if call.verb != "list":
            return 1
        count = len(self._core.cacher(call.kind))
        return min(max(1, (min(count, limit) if limit else count) // OBJECTS_A_SEAT), SEATS_MAX)

    def _changed(self, _: Any) -> None:
        self._stale = True
        self.masters = None

    def _find(self, user: User, asked: Asked) -> Flow:
        if self._stale:
            self._read()
        for schema in self._schemas:
            if schema.level in self.levels and schema.matches(user, asked):
                level = self.levels[schema.level]
                told = (("X-Kubernetes-PF-FlowSchema-UID", schema.uid), ("X-Kubernetes-PF-PriorityLevel-UID", level.uid))
                found = Flow(level, f"{schema.name}\0{schema.flow(user, asked)}".encode(), told, (*JSON_UNCACHED, *told))
                if schema.name == "exempt":  # it covers all that masters ask, and comes first, whatever else there is
                    self.masters = found
                return found
        return Flow(self.levels["catch-all"], b"", (), JSON_UNCACHED)  # its schema has been changed away

    def _read(self) -> None:
        self._stale = False
        self.masters = None
        self._flows.clear()
        schemas, levels = ([item.obj for item in cacher.in_order()] for cacher in self._cachers)
        self._schemas = sorted((FlowSchema.parse(obj) for obj in schemas), key=lambda schema: (schema.precedence, schema.name))
        found = {obj["metadata"]["name"]: obj for obj in levels}
        for plural, obj in objects():  # the two that must be there are, whatever has been deleted
            if plural == LEVELS and obj["metadata"]["name"] in ("exempt", "catch-all"):
                found.setdefault(obj["metadata"]["name"], obj)
        kept: dict[str, Level] = {}
        specs = {name: orjson.dumps(obj.get("spec"), option=orjson.OPT_SORT_KEYS) for name, obj in found.items()}
        for name, obj in found.items():
            kept[name] = self.levels[name] if self._specs.get(name) == specs[name] else Level(name, obj.get("spec") or {}, self._clock)
            kept[name].uid = obj["metadata"].get("uid", "")
        self.levels, self._specs = kept, specs  # together: one deleted and made again is new
        total = sum(level.shares for level in kept.values())
        pool = Pool(list(kept.values()))
        for level in pool.levels:
            level.share(self._seats, total, pool)
