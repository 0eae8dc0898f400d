"""Keeps the status of every ResourceQuota true: what is allowed, and what is in use.

The API server charges a quota when an object comes; what goes, ends or was refused after all is found here, by counting again. While
charges come the count waits: the object a charge was made for may not be there yet, and a count without it would give its share away twice.
A count too high for as long does no harm, since at the limit nothing is charged any more. Only resources that quotas name are watched.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from atoll.client import quota
from atoll.client.factory import BY_NAMESPACE
from atoll.client.informer import Handler, Informer
from atoll.client.objects import Object, copy_of, key_of, namespace_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import PODS, RESOURCE_QUOTAS, Resource
from atoll.controllers.base import Context, Controller
from atoll.errors import StatusError

CHARGE_SETTLES_S = 0.5


class ResourceQuotaController(Controller):
    name = "resourcequota-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._quotas = self.informer(RESOURCE_QUOTAS, BY_NAMESPACE, handler=self._quota_changed)
        self._followed: dict[tuple[str, str], Informer] = {}
        self._charged: dict[str, float] = {}  # quota → loop time of the last change of its status

    async def reconcile(self, key: str) -> None:
        found = self._quotas.get(key)
        if found is None:
            self._charged.pop(key, None)
            return
        left = self._charged.get(key, 0.0) + CHARGE_SETTLES_S - asyncio.get_running_loop().time()
        if left > 0 and found.get("status"):
            self.queue.add_after(key, left)
            return
        hard = (found.get("spec") or {}).get("hard") or {}
        used = await self._used(found)
        status = found.get("status") or {}
        if status.get("hard") == hard and quota.parse(status.get("used")) == used:
            return
        changed = copy_of(found)
        changed["status"] = {"hard": hard, "used": {name: quota.written(name, amount) for name, amount in used.items()}}
        try:
            await self.client.update(RESOURCE_QUOTAS, changed, subresource="status")
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _used(self, found: Object) -> quota.Usage:
        hard, namespace, now = (found.get("spec") or {}).get("hard") or {}, namespace_of(found), self.clock()
        usages: list[quota.Usage] = []
        for group, plural in sorted(quota.resources_counted(hard)):
            informer = await self._follow(group, plural)
            objects = informer.by_index(BY_NAMESPACE, namespace or "") if informer else ()
            usages += [quota.usage_of(group, plural, obj, now) for obj in objects if quota.in_scopes(found, group, plural, obj)]
        counted = quota.total(usages)
        return {name: counted.get(name, Decimal()) for name in hard}

    async def _follow(self, group: str, plural: str) -> Informer | None:
        """The informer of a resource that some quota counts; None when there is no such resource."""
        if (group, plural) not in self._followed:
            resource = next((each for each in self.config.resources() if (each.group, each.plural) == (group, plural)), None)
            if resource is None:
                return None
            informer = self._followed[group, plural] = self._factory.informer(resource, BY_NAMESPACE)
            informer.add_handler(self._counting(resource))
            await informer.wait_synced()
        return self._followed[group, plural]

    def _counting(self, resource: Resource) -> Handler:
        def handler(old: Object | None, new: Object | None) -> None:
            if old is not None and new is not None and resource != PODS and old.get("spec") == new.get("spec"):
                return
            if old is not None and new is not None and resource == PODS and quota.is_over(old, 0) == quota.is_over(new, 0):
                return
            obj = new or old
            assert obj is not None
            for found in self._quotas.by_index(BY_NAMESPACE, namespace_of(obj) or ""):
                self.queue.add(key_of(found))

        return handler

    def _quota_changed(self, old: Object | None, new: Object | None) -> None:
        found = new or old
        assert found is not None
        if old is not None and old.get("status") != found.get("status"):
            self._charged[key_of(found)] = asyncio.get_running_loop().time()
        self.queue.add(key_of(found))
