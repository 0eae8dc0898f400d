"""Which group versions other servers serve, kept as APIService objects come, change and go; and an APIService for each one served here.

Each remote one is looked at by a task of its own: at once when its APIService, its service or its endpoints change, and every half minute.
What is found stands in its Available condition, in discovery (fresh or stale) and in the index of OpenAPI.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from atoll.apiserver.aggregation.health import Health, examine
from atoll.apiserver.aggregation.registered import GROUP, GroupVersion, is_managed, name_of, wanted
from atoll.apiserver.aggregation.remote import Remote
from atoll.apiserver.api import Api
from atoll.apiserver.bootstrap import SYSTEM
from atoll.apiserver.call import Call, Verb
from atoll.apiserver.customresources.names import put
from atoll.apiserver.kinds.apiservice import local_condition
from atoll.apiserver.machinery.discovery import Discovery, Foreign
from atoll.apiserver.machinery.items import Event, Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.openapi import OpenApi
from atoll.apiserver.services import SERVICE_LABEL
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds

log = logging.getLogger(__name__)

RECHECK_S = 30.0  # upstream's resync
RETRY_MIN_S = 1.0  # after a check that failed; doubled each time up to RECHECK_S


class Aggregator:
    """`start()` follows what is there, `run()` registers what is served here until cancelled, `close()` ends all checks and connections.

    `certificate` is this server's as a front proxy; without one, other servers cannot know the users it names.
    """

    def __init__(self, api: Api, certificate: tuple[Path, Path] | None) -> None:
        self._api = api
        self._core = core = api.core
        self._certificate = certificate
        self._kind = self._found(GROUP, "apiservices")
        self._services = core.cacher(self._kind)
        self._remotes: dict[GroupVersion, Remote] = {}
        self._known: dict[GroupVersion, Foreign] = {}
        self._openapi_urls: dict[GroupVersion, str] = {}
        self._touched: dict[GroupVersion, asyncio.Event] = {}
        self._checks: dict[GroupVersion, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._documents: tuple[Discovery, OpenApi] | None = None

    def find(self, segments: tuple[str, ...]) -> Remote | None:
        """The remote server of a path: of a resource, of a group version's discovery, or of its OpenAPI document."""
        if not self._remotes:
            return None
        if segments[:2] == ("openapi", "v3"):
            segments = segments[2:]
        return self._remotes.get((segments[1], segments[2])) if len(segments) > 2 and segments[0] == "apis" else None

    def foreign(self) -> Iterable[Foreign]:
        return self._known.values()

    def start(self, discovery: Discovery, openapi: OpenApi) -> None:
        self._documents = discovery, openapi
        for item in list(self._services.items()):
            self._follow(item)
        self._services.listen(self._on_change)
        self._core.cacher(self._found("", "services")).listen(self._on_service)
        self._core.cacher(self._found("discovery.k8s.io", "endpointslices")).listen(self._on_slice)
        self._wake.set()

    def look_again(self) -> None:
        """The kinds served here have changed."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._register()
            except AtollError as error:
                log.warning("APIServices of what is served here: %s", error)
                asyncio.get_running_loop().call_later(RETRY_MIN_S, self._wake.set)

    async def close(self) -> None:
        for where in list(self._remotes):
            self._drop(where)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _found(self, group: str, plural: str) -> Kind:
        kind = self._core.registry.get(group, "v1", plural)
        assert kind is not None
        return kind

    # --- those served here

    async def _register(self) -> None:
        objects = dict(wanted(self._core.registry))
        names = {name_of(*where) for where in objects}
        for item in list(self._services.items()):
            if is_managed(item.obj) and item.key not in names:
                await self._settle(self._api.delete(self._call("delete", item.key), DeleteOptions(uid=item.obj["metadata"]["uid"])))
        await asyncio.gather(*(self._ensure(where, obj) for where, obj in objects.items()))

    async def _ensure(self, where: GroupVersion, obj: Object) -> None:
        name = name_of(*where)
        item = self._services.get(name)
        if item is None:
            await self._settle(self._api.create(self._call("create", name), orjson.loads(orjson.dumps(obj))))
            return
        if item.obj["spec"] != obj["spec"] and (is_managed(item.obj) or self._is_builtin(where)):
            labels = {**(item.obj["metadata"].get("labels") or {}), **obj["metadata"]["labels"]}
            restored = {**item.obj, "metadata": {**item.obj["metadata"], "labels": labels}, "spec": obj["spec"]}
            await self._settle(self._api.update(self._call("update", name), orjson.loads(orjson.dumps(restored))))
        if not item.obj["spec"].get("service"):
            await self._tell(name, local_condition(self._now()))

    async def _settle(self, write: Any) -> None:
        """A write that another server, or a user, may have been before: what it left is looked at again."""
        try:
            await write
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def _is_builtin(self, where: GroupVersion) -> bool:
        return any(kind.builtin and (kind.group, kind.version) == where for kind in self._core.registry)

    # --- those served elsewhere

    def _on_change(self, event: Event) -> None:
        try:
            spec = event.item.obj["spec"]
            if event.deleted or not spec.get("service"):
                self._drop((spec.get("group") or "", spec["version"]))
            else:
                self._follow(event.item)
            if event.deleted or event.previous is None or event.previous.obj["spec"] != spec:
                self._wake.set()
        except Exception:
            log.exception("APIService %s", event.item.key)

    def _on_service(self, event: Event) -> None:
        self._touch(*event.item.key.split("/", 1))

    def _on_slice(self, event: Event) -> None:
        if self._remotes:
            metadata = event.item.obj["metadata"]
            self._touch(metadata["namespace"], (metadata.get("labels") or {}).get(SERVICE_LABEL) or "")

    def _touch(self, namespace: str, service: str) -> None:
        for where, remote in self._remotes.items():
            if (remote.namespace, remote.service) == (namespace, service):
                self._touched[where].set()

    def _follow(self, item: Item) -> None:
        spec = item.obj["spec"]
        if not spec.get("service"):
            return
        where = spec.get("group") or "", spec["version"]
        if self._is_builtin(where):
            return  # Kubernetes' own groups are served here, whatever is said of them
        present = self._remotes.get(where)
        if present is not None and present.spec == spec:
            present.conditions = (item.obj.get("status") or {}).get("conditions") or []
            return
        before = self._known.get(where)
        self._drop(where)
        self._remotes[where] = remote = Remote(self._core, item, self._certificate)
        known = before.resources if before is not None else ()
        self._known[where] = Foreign(*where, spec["groupPriorityMinimum"], spec["versionPriority"], known)
        self._touched[where] = asyncio.Event()
        self._checks[where] = asyncio.create_task(self._watch_over(where, remote), name=f"APIService {item.key}")
        self._publish()

    def _drop(self, where: GroupVersion) -> None:
        remote = self._remotes.pop(where, None)
        if remote is None:
            return
        del self._known[where], self._touched[where]
        self._openapi_urls.pop(where, None)
        check = self._checks.pop(where)
        check.cancel()
        for ending in (check, asyncio.create_task(remote.close(), name=f"connections of {remote.name}")):
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._publish()

    async def _watch_over(self, where: GroupVersion, remote: Remote) -> None:
        pause = RETRY_MIN_S
        while True:
            self._touched[where].clear()
            try:
                health = await examine(remote)
                self._learn(where, health)
                await self._tell(remote.name, self._condition(health))
                pause = RECHECK_S if health.status == "True" else min(pause * 2, RECHECK_S)
            except AtollError as error:
                log.warning("APIService %s: %s", remote.name, error)
            except Exception:
                log.exception("APIService %s", remote.name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._touched[where].wait()
                    pause = RETRY_MIN_S

    def _learn(self, where: GroupVersion, health: Health) -> None:
        known = self._known[where]
        resources = known.resources if health.resources is None else health.resources
        after = known._replace(resources=resources, is_fresh=health.status == "True")
        url = health.openapi if health.status == "True" else self._openapi_urls.get(where, "")
        if after == known and url == self._openapi_urls.get(where, ""):
            return
        self._known[where], self._openapi_urls[where] = after, url
        self._publish()

    def _publish(self) -> None:
        if self._documents is not None:
            discovery, openapi = self._documents
            discovery.forget()
            openapi.set_foreign({f"apis/{group}/{version}": url for (group, version), url in self._openapi_urls.items() if url})

    def _condition(self, health: Health) -> Object:
        told = {"status": health.status, "reason": health.reason, "message": health.message}
        return {"type": "Available", **told, "lastTransitionTime": self._now()}

    async def _tell(self, name: str, condition: Object) -> None:
        """Write the condition where it is not what the object says already."""
        item = self._services.get(name)
        if item is None:
            return

        def told(obj: Object) -> list[Object]:
            wanted = (condition[field] for field in ("type", "status", "reason", "message", "lastTransitionTime"))
            return put(list((obj.get("status") or {}).get("conditions") or ()), *wanted)

        if told(item.obj) == ((item.obj.get("status") or {}).get("conditions") or []):
            return

        async def with_condition(item: Item) -> Object:
            obj: Object = orjson.loads(item.body)
            obj["status"] = {**(obj.get("status") or {}), "conditions": told(obj)}
            return obj

        await self._settle(change(self._core, self._call("update", name, "status"), with_condition))

    def _call(self, verb: Verb, name: str, subresource: str = "") -> Call:
        return Call(SYSTEM, verb, self._kind, None, name, subresource)

    def _now(self) -> str:
        return timestamp_seconds(self._core.clock())
