"""Custom resources served as their definitions come, change and go.

Kinds follow the cache of definitions at once, on the announcement of the write itself, so that whoever has been answered can use them. What
has to be written in turn (the conditions, the end of a definition whose objects must go first) is done by one task, which works off the
names of definitions to look at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.api import Api
from atoll.apiserver.bootstrap import SYSTEM
from atoll.apiserver.call import Call
from atoll.apiserver.customresources.conversion import WebhookConversion
from atoll.apiserver.customresources.definition import FINALIZER, kinds_of
from atoll.apiserver.customresources.names import granted_status, is_true, put
from atoll.apiserver.machinery.items import Event, Item, Object
from atoll.apiserver.machinery.kind import Converter, Kind
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.apiserver.verbs.read import ListOptions
from atoll.errors import AtollError
from atoll.units import timestamp_seconds

log = logging.getLogger(__name__)

RETRY_S = 1.0
Forget = Callable[[str, str], None]  # discovery and OpenAPI of a group and version


class _Served(NamedTuple):
    spec: bytes
    stored: Kind
    kinds: tuple[Kind, ...]


class CustomResources:
    """`await load()` at start serves what is established, `run()` keeps at it until cancelled. `forget` is told of group versions that have
    changed.
    """

    def __init__(self, api: Api, forget: Forget) -> None:
        self._core = api.core
        self._api = api
        self._forget = forget
        definitions = self._core.registry.get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert definitions is not None
        self._kind = definitions
        self._definitions = self._core.cacher(definitions)
        self._served: dict[str, _Served] = {}
        self._terminating: set[str] = set()
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        for item in list(self._definitions.items()):
            # Established or not: it is served before its status can say so, and there may be objects.
            if not self._is_taken(item.obj):
                await self._core.caches.open(kinds_of(item.obj, lambda: False, self._converter(item.obj))[0])
            self._follow(item)
        self._definitions.listen(self._on_change)

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for name in sorted(self._dirty):
                self._dirty.discard(name)
                try:
                    await self._settle(name)
                except AtollError as error:
                    log.warning("custom resource definition %s: %s", name, error)
                    asyncio.get_running_loop().call_later(RETRY_S, self._look_at, name)

    # --- at once

    def _on_change(self, event: Event) -> None:
        try:
            if event.deleted:
                self._terminating.discard(event.item.key)
                self._withdraw(event.item.key)
                self._look_at_group(event.item.obj["spec"]["group"])
            else:
                self._follow(event.item)
        except Exception:
            log.exception("custom resource definition %s", event.item.key)

    def _follow(self, item: Item) -> None:
        definition = item.obj
        if definition["metadata"].get("deletionTimestamp"):
            self._terminating.add(item.key)
        status = granted_status(definition, self._others(definition), "")
        if is_true({"status": status}, "Established") and not self._is_taken(definition):
            self._serve(item.key, definition)
        self._look_at(item.key)

    def _others(self, definition: Object) -> list[Object]:
        """The names granted to the others of the group: those told in status, or those served before status could be written."""
        granted = []
        for item in self._definitions.items():
            if item.obj["spec"]["group"] == definition["spec"]["group"] and item.key != definition["metadata"]["name"]:
                told = (item.obj.get("status") or {}).get("acceptedNames") or {}
                granted.append(item.obj["spec"]["names"] if item.key in self._served and not told.get("plural") else told)
        return granted

    def _is_taken(self, definition: Object) -> bool:
        """A built-in kind has this group and plural: it stays what it is."""
        spec = definition["spec"]
        return any(kind.builtin and (kind.group, kind.plural) == (spec["group"], spec["names"]["plural"]) for kind in self._core.registry)

    def _serve(self, name: str, definition: Object) -> None:
        spec = orjson.dumps(definition["spec"])
        before = self._served.get(name)
        if before is not None and before.spec == spec:
            return
        stored, kinds = kinds_of(definition, lambda: name in self._terminating, self._converter(definition))
        self._core.caches.replace(before.stored if before else None, stored)
        self._core.cacher(stored).listen(lambda event: self._look_at(name) if event.deleted and name in self._terminating else None)
        registry = self._core.registry
        versions = {kind.version for kind in kinds}
        for kind in {*before.kinds, before.stored} if before else ():
            if kind.version not in versions:
                registry.remove(kind.group, kind.version, kind.plural)
        for kind in kinds:
            registry.add(kind)
        if stored not in kinds:
            registry.add_unserved(stored)
        if before is None or {kind.version for kind in before.kinds} != versions:
            self._core.cacher(stored).end_watches()
        self._served[name] = _Served(spec, stored, kinds)
        for kind in {*kinds, *(before.kinds if before else ())}:
            self._forget(kind.group, kind.version)

    def _converter(self, definition: Object) -> Converter | None:
        conversion = definition["spec"].get("conversion") or {}
        return WebhookConversion(self._core, conversion.get("webhook") or {}) if conversion.get("strategy") == "Webhook" else None

    def _withdraw(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is None:
            return
        for kind in {*served.kinds, served.stored}:
            self._core.registry.remove(kind.group, kind.version, kind.plural)
            self._forget(kind.group, kind.version)
        self._core.caches.close(served.stored)

    def _look_at(self, name: str) -> None:
        self._dirty.add(name)
        self._wake.set()

    def _look_at_group(self, group: str) -> None:
        for item in self._definitions.items():
            if item.obj["spec"]["group"] == group:
                self._look_at(item.key)

    # --- in turn

    async def _settle(self, name: str) -> None:
        item = self._definitions.get(name)
        if item is None:
            return
        if item.obj["metadata"].get("deletionTimestamp"):
            if FINALIZER in (item.obj["metadata"].get("finalizers") or ()):
                await self._clean_up(name)
            return
        await self._write_status(name, self._grant)

    def _grant(self, definition: Object) -> Object:
        return granted_status(definition, self._others(definition), self._now())

    def _now(self) -> str:
        return timestamp_seconds(self._core.clock())

    async def _write_status(self, name: str, compute: Callable[[Object], Object]) -> None:
        before = self._definitions.get(name)

        async def with_status(item: Item) -> Object:
            obj: Object = orjson.loads(item.body)
            obj["status"] = compute(item.obj)
            return obj

        after = await change(self._core, Call(SYSTEM, "update", self._kind, None, name, "status"), with_status)
        if before is not None and after.revision != before.revision:
            self._look_at_group(after.obj["spec"]["group"])  # a name may have become free, or taken

    async def _clean_up(self, name: str) -> None:
        """Delete the objects; when none is left, let the definition go. Those held by finalizers call us again when they go."""
        served = self._served.get(name)
        remaining = 0
        if served is not None:
            told = "CustomResource deletion is in progress"
            await self._tell(name, "True", "InstanceDeletionInProgress", told)
            call = Call(SYSTEM, "deletecollection", served.stored)
            await self._api.delete_collection(call, ListOptions(), DeleteOptions())
            remaining = len(self._core.cacher(served.stored))
        if remaining:
            return
        await self._tell(name, "False", "InstanceDeletionCompleted", "removed all instances")

        async def released(item: Item) -> Object:
            obj: Object = orjson.loads(item.body)
            obj["metadata"]["finalizers"] = [each for each in obj["metadata"].get("finalizers") or () if each != FINALIZER]
            return obj

        await change(self._core, Call(SYSTEM, "update", self._kind, None, name), released)

    async def _tell(self, name: str, status: str, reason: str, message: str) -> None:
        def with_condition(definition: Object) -> Object:
            told: dict[str, Any] = dict(definition.get("status") or {})
            told["conditions"] = put(list(told.get("conditions") or ()), "Terminating", status, reason, message, self._now())
            return told

        await self._write_status(name, with_condition)
