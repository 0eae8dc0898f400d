"""The API as calls: each verb with decoded objects, for the HTTP pipeline and for clients in the same process alike.

Here it is decided which code serves a call: the verb common to all kinds, a subresource's own, or a review that is answered and not
stored. Whether the caller may, has been settled before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import orjson

from atoll.apiserver.auth.reviews import Reviews
from atoll.apiserver.auth.serviceaccounts import ServiceAccountTokens
from atoll.apiserver.call import Call
from atoll.apiserver.components import Components
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.versions import from_stored, shown, to_stored
from atoll.apiserver.machinery.watcher import Delivery, WatchPlan, watch
from atoll.apiserver.subresources.binding import bind
from atoll.apiserver.subresources.eviction import evict
from atoll.apiserver.subresources.finalize import finalize
from atoll.apiserver.subresources.scale import scale_of, set_scale
from atoll.apiserver.verbs.create import create
from atoll.apiserver.verbs.delete import DeleteOptions, delete, delete_collection
from atoll.apiserver.verbs.patch import Patch, apply, patch
from atoll.apiserver.verbs.prepare import check_schema, typed
from atoll.apiserver.verbs.read import ListOptions, Page, get, list_page
from atoll.apiserver.verbs.update import update

Door = Callable[[Call, Object], Awaitable[Object]]
_COMPONENTS = "componentstatuses"
_RETURNED = {"pods", "persistentvolumeclaims", "persistentvolumes", "services", "serviceaccounts", "resourcequotas", "storageclasses"}


class Api:
    def __init__(self, core: Core, reviews: Reviews, tokens: ServiceAccountTokens | None) -> None:
        self.core = core
        self.components = Components(core)
        self._reviews = reviews
        self._tokens = tokens
        self._doors: dict[tuple[str, str], Door] = {
            ("pods", "binding"): lambda call, obj: bind(core, call, obj),
            ("pods", "eviction"): lambda call, obj: evict(core, call, obj),
            ("serviceaccounts", "token"): self._token,
        }

    async def get(self, call: Call, resource_version: str = "") -> Item:
        if call.kind.plural == _COMPONENTS and not call.kind.group:
            return plain(self.components.get(call.kind, call.name or ""))
        item = await get(self.core, call, resource_version)
        if call.subresource == "scale":
            [seen] = await shown(call.face, [item])
            return plain(scale_of(call.face, from_stored(call.face, seen.obj)))
        return item

    async def page(self, call: Call, options: ListOptions) -> Page:
        if "list" not in call.face.verbs:
            raise statuses.method_not_allowed()
        if call.kind.plural == _COMPONENTS and not call.kind.group:
            return Page(self.components.list(options.selector, plain), self.core.caches.revision)
        return await list_page(self.core, call, options)

    def watch(self, call: Call, plan: WatchPlan) -> AsyncIterator[list[Delivery]]:
        if "watch" not in call.face.verbs:
            raise statuses.method_not_allowed()
        face = call.face
        convert = partial(shown, face) if face.converter is not None and plan.selector.judges_content else None
        deliveries = watch(self.core.cacher(call.kind), plan, convert)
        return self._once_reached(plan.not_older, deliveries) if plan.not_older else deliveries

    async def _once_reached(self, revision: int, deliveries: AsyncIterator[list[Delivery]]) -> AsyncIterator[list[Delivery]]:
        await self.core.caches.reach(revision)
        async for batch in deliveries:
            yield batch

    async def create(self, call: Call, obj: Object, duplicates: tuple[str, ...] = ()) -> Item:
        """`obj` is the call's own copy."""
        if call.subresource:
            door = self._doors.get((call.kind.plural, call.subresource))
            if door is None:
                raise statuses.method_not_allowed()
            body = self._checked_body(call, obj, duplicates)
            await self.core.admission.mutate(call, body, None)
            await self.core.admission.validate(call, body, None)
            return plain(await door(call, body))
        if "create" not in call.face.verbs:
            raise statuses.method_not_allowed()
        if call.kind.plural == "bindings" and not call.kind.group:
            call.name = str((obj.get("metadata") or {}).get("name") or "")
            return plain(await bind(self.core, call, obj))
        checked = check_schema(call, call.face, typed(call.face, obj), duplicates)
        if self._reviews.serves(call.kind.kind):
            return plain(await self._reviews.answer(call, checked))
        return await create(self.core, call, to_stored(call.face, checked))

    async def update(self, call: Call, obj: Object, duplicates: tuple[str, ...] = ()) -> Item:
        """`obj` is the call's own copy."""
        if call.subresource == "scale":
            given = self._checked_body(call, obj, duplicates)
            return plain(await set_scale(self.core, call, lambda _: given))
        checked = check_schema(call, call.face, typed(call.face, obj), duplicates)
        if call.subresource == "finalize":
            return await finalize(self.core, call, checked)
        return await update(self.core, call, to_stored(call.face, checked))

    async def patch(self, call: Call, given: Patch) -> tuple[Item, bool]:
        """The patched object, and whether an apply has created it."""
        if call.subresource == "scale":
            return plain(await set_scale(self.core, call, lambda scale: apply(call, scale, given))), False
        return await patch(self.core, call, given)

    async def delete(self, call: Call, options: DeleteOptions) -> tuple[Item, bool]:
        """The object's last or new state, or a Status when it has gone and its kind answers so; and whether it has gone."""
        item, gone = await delete(self.core, call, options)
        if gone and call.kind.plural not in _RETURNED:
            details = {"name": call.name, "group": call.kind.group, "kind": call.kind.plural, "uid": item.obj["metadata"]["uid"]}
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            return plain({**status, "details": {key: value for key, value in details.items() if value}}), True
        return item, gone

    async def delete_collection(self, call: Call, selection: ListOptions, options: DeleteOptions) -> Page:
        if "deletecollection" not in call.face.verbs:
            raise statuses.method_not_allowed()
        items = await delete_collection(self.core, call, selection, options)
        return Page(items, self.core.caches.revision)

    async def _token(self, call: Call, obj: Object) -> Object:
        if self._tokens is None:
            raise statuses.not_supported("this server has no service-account key: give it one to issue tokens")
        return self._tokens.request(call, obj)

    def _checked_body(self, call: Call, obj: Object, duplicates: tuple[str, ...]) -> Object:
        """The body of a subresource with a type of its own, checked against that type's schema where there is one."""
        sub = call.face.subresource(call.subresource)
        if sub is None:
            raise statuses.no_such_path()
        kind = self.core.registry.by_gvk(*sub.gvk) or body_kind(call.face, sub.gvk)
        if isinstance(obj, dict) and obj.get("apiVersion") in sub.older:
            obj = {**obj, "apiVersion": kind.api_version}
        return check_schema(call, kind, typed(kind, obj), duplicates)


def body_kind(face: Kind, gvk: tuple[str, str, str]) -> Kind:
    """A Kind for a type that is no resource of its own, such as Scale or TokenRequest."""
    from atoll.apiserver.machinery.schemas import BuiltinSchema

    return Kind(gvk[0], gvk[1], face.plural, gvk[2], face.namespaced, BuiltinSchema(*gvk))


def plain(obj: Object) -> Item:
    """An item for an object that is not stored."""
    return Item("", obj, orjson.dumps(obj), 0)
