"""The API for parts in the same process: the shape of `atoll.client.Client`, without sockets and without encoding.

What it hands out from get, list and watch are the stored objects themselves, shared by all: copy before you change one. What it is given is
copied on the way in. Custom resources that a webhook converts are handed out as they are stored: what runs here reads their metadata alone,
and must go on where the webhook does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson

from atoll.apiserver.aggregation.remote import Remote
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.bootstrap import SYSTEM
from atoll.apiserver.call import Call, User, Verb
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.versions import from_stored
from atoll.apiserver.machinery.watcher import INITIAL_EVENTS_END, WatchPlan
from atoll.apiserver.parameters import WATCH_MIN_S, selector_of
from atoll.apiserver.server import ApiServer
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.apiserver.verbs.patch import Patch, PatchKind
from atoll.apiserver.verbs.read import ListOptions, parse_revision
from atoll.errors import StatusError


class Resource(Protocol):
    """What of `atoll.client.Resource` is read here."""

    @property
    def group(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def namespaced(self) -> bool: ...
    def path(self, namespace: str | None = None, name: str | None = None) -> str: ...


class InProcessClient:
    """`user` is who the calls are made as; RBAC applies unless it is in system:masters, as the default is."""

    def __init__(self, server: ApiServer, user: User = SYSTEM, field_manager: str = "") -> None:
        self._server = server
        self._user = user
        self._manager = field_manager

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        call = self._call("get", resource, namespace, name)
        return _shown(call, await self._server.api.get(call))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        remote = self._remote("list", resource, namespace)
        if remote is not None:
            query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": limit, "continue": continue_}
            return await remote.ask("GET", _target(resource.path(namespace), query | {"resourceVersion": resource_version}), self._user)
        call = self._call("list", resource, namespace, fields=field_selector)
        selector = selector_of(call.selected, label_selector, field_selector)
        page = await self._server.api.page(call, ListOptions(selector, limit or 0, continue_ or "", resource_version or ""))
        metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
        if page.continue_:
            metadata["continue"] = page.continue_
        kind = call.face
        return {
            "kind": kind.list_kind,
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": [_shown(call, item) for item in page.items],
        }

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncIterator[tuple[str, Object]]:
        call = self._call("watch", resource, namespace, fields=field_selector)
        selector = selector_of(call.selected, label_selector, field_selector)
        since = None if resource_version in ("", "0") else parse_revision(resource_version)
        plan = WatchPlan(call.namespace, selector, since, bookmarks, False, timeout_seconds or WATCH_MIN_S)
        async for batch in self._server.api.watch(call, plan):
            for delivery in batch:
                if delivery.item is not None:
                    yield delivery.type, _shown(call, delivery.item)
                    continue
                metadata: dict[str, Any] = {"resourceVersion": str(delivery.revision)}
                if delivery.initial_end:
                    metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
                yield delivery.type, {"kind": call.face.kind, "apiVersion": call.face.api_version, "metadata": metadata}

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, *, name: str | None = None, subresource: str | None = None
    ) -> Object:
        namespace = namespace or (obj.get("metadata") or {}).get("namespace")
        call = self._call("create", resource, namespace, name, subresource)
        return _shown(call, await self._server.api.create(call, _copy(obj)))

    async def update(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        metadata = obj["metadata"]
        call = self._call("update", resource, metadata.get("namespace"), metadata["name"], subresource)
        return _shown(call, await self._server.api.update(call, _copy(obj)))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
        force: bool = False,
    ) -> Object:
        call = self._call("patch", resource, namespace, name, subresource)
        call.field_manager = field_manager or self._manager
        item, _ = await self._server.api.patch(call, Patch(kind, patch, force))
        return _shown(call, item)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        remote = self._remote("delete", resource, namespace, name)
        if remote is not None:
            if uid or resource_version:
                raise statuses.not_supported("preconditions of a deletion are not passed on to aggregated API servers")
            query = {"propagationPolicy": propagation, "gracePeriodSeconds": grace_seconds}
            return await remote.ask("DELETE", _target(resource.path(namespace, name), query), self._user)
        call = self._call("delete", resource, namespace, name)
        item, _ = await self._server.api.delete(call, DeleteOptions(grace_seconds, propagation or "", uid or "", resource_version or ""))
        return _shown(call, item)

    async def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str | None = None, field_selector: str | None = None
    ) -> Object:
        remote = self._remote("deletecollection", resource, namespace)
        if remote is not None:
            query = {"labelSelector": label_selector, "fieldSelector": field_selector}
            return await remote.ask("DELETE", _target(resource.path(namespace), query), self._user)
        call = self._call("deletecollection", resource, namespace, fields=field_selector)
        selection = ListOptions(selector_of(call.selected, label_selector, field_selector))
        page = await self._server.api.delete_collection(call, selection, DeleteOptions())
        metadata = {"resourceVersion": str(page.revision)}
        items = [item.obj for item in page.items]
        return {"kind": call.kind.list_kind, "apiVersion": call.kind.api_version, "metadata": metadata, "items": items}

    async def close(self) -> None:
        """Nothing to let go of: the server is its owner's."""

    def _remote(self, verb: Verb, resource: Resource, namespace: str | None, name: str | None = None) -> Remote | None:
        """The server of a resource that is aggregated: its objects can be listed and deleted from here."""
        remote = self._server.aggregator.find(("apis", resource.group, resource.version))
        wanted = Attributes(verb, resource.group, resource.plural, namespace or "", name or "")
        if remote is not None and not self._server.authorizer.allows(self._user, wanted):
            raise StatusError(403, "Forbidden", f"{resource.plural}.{resource.group} is forbidden: cannot {verb} it", {})
        return remote

    def _call(
        self,
        verb: Verb,
        resource: Resource,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        fields: str | None = None,
    ) -> Call:
        api = self._server.api
        kind = api.core.registry.get(resource.group, resource.version, resource.plural)
        if kind is None or (subresource and kind.subresource(subresource) is None):
            raise statuses.no_such_path()
        call = Call(self._user, verb, kind, namespace if kind.namespaced else None, name, subresource or "", field_manager=self._manager)
        if kind.storage_group_version:
            stored = api.core.registry.stored_as(kind)
            if stored is not None:
                call.kind, call.served = stored, kind
        wanted = Attributes.of(call, fields)
        if not self._server.authorizer.allows(self._user, wanted):
            raise statuses.forbidden(kind, name, self._server.authorizer.refusal(self._user, wanted))
        return call


def _target(path: str, query: Mapping[str, str | int | None]) -> str:
    said = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(said)}" if said else path


def _copy(obj: Object) -> Object:
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied


def _shown(call: Call, item: Item) -> Object:
    return item.obj if not item.key else from_stored(call.face, item.obj)
