"""The garbage collector's writes. Keys are uids.

Watches every resource that `Config.resources` names, and looks again when a custom resource definition comes. Before anything is
deleted the object and its owners are read from the server: the graph may lag, and a wrong deletion cannot be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from atoll.client.informer import Handler
from atoll.client.objects import Object, owners_of, uid_of
from atoll.client.protocol import is_conflict, is_not_found
from atoll.client.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from atoll.controllers.base import Context, Controller
from atoll.controllers.garbage.decide import Delete, Keep, OwnerState, decide
from atoll.controllers.garbage.graph import FOREGROUND, ORPHAN, Graph, Node
from atoll.errors import StatusError

ABSENT_MAX = 500  # remembered uids of owners that do not exist, upstream's absentOwnerCache

logger = logging.getLogger(__name__)


class GarbageCollector(Controller):
    name = "garbage-collector-controller"
    workers = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._graph = Graph()
        self._watched: dict[tuple[str, str], Resource] = {}  # group and kind
        self._absent: OrderedDict[tuple[str, str | None], None] = OrderedDict()
        self._follow_all()

    async def start(self, group: asyncio.TaskGroup) -> None:
        if any(resource == CUSTOM_RESOURCE_DEFINITIONS for resource in self.config.resources()):
            self.informer(CUSTOM_RESOURCE_DEFINITIONS).add_handler(lambda _old, _new: self._follow_all())

    async def reconcile(self, key: str) -> None:
        node = self._graph.get(key)
        if node is None:
            return
        if node.wants_orphans:
            await self._orphan_dependents(node)
        elif node.waits_for_dependents:
            await self._end_dependents(node)
        elif not node.is_deleting and node.owners:
            await self._check(node)

    # The three things that can happen to an object

    async def _check(self, node: Node) -> None:
        """Deletes the object when no owner lives; drops references to dead owners when one does."""
        live = await self._read(node)
        if live is None:
            return
        owners = owners_of(live)
        states = {owner["uid"]: await self._state_of(owner, node.namespace) for owner in owners}
        dependents = self._graph.dependents(node)
        decision = decide(
            owners,
            states,
            frozenset(live["metadata"].get("finalizers") or ()),
            has_dependents=bool(dependents),
            waiting_dependents=any(each.waits_for_dependents for each in dependents),
        )
        match decision:
            case Keep(owners=None):
                return
            case Keep(owners=kept):
                version = live["metadata"]["resourceVersion"]
                await self._patch(node, {"uid": node.uid, "resourceVersion": version, "ownerReferences": kept})
            case Delete(propagation=propagation, release_dependents=release):
                if release:
                    for dependent in dependents:
                        await self._edit_reference(dependent, node.uid, block=False)
                logger.info("deleting %s %s/%s: its owners are gone", node.resource.kind, node.namespace, node.name)
                await self._delete(node, live, propagation)

    async def _end_dependents(self, node: Node) -> None:
        """Foreground deletion: the object goes when no dependent blocks it any more."""
        blocking = self._graph.blocking_dependents(node)
        if not blocking:
            await self._remove_finalizer(node, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.is_deleting:
                self.queue.add(dependent.uid)

    async def _orphan_dependents(self, node: Node) -> None:
        for dependent in self._graph.dependents(node):
            await self._edit_reference(dependent, node.uid)
        await self._remove_finalizer(node, ORPHAN)

    # Questions

    async def _read(self, node: Node) -> Object | None:
        """The object as the server has it; None, and forgotten, when it is another or none."""
        try:
            live = await self.client.get(node.resource, node.name, node.namespace)
        except StatusError as error:
            if not is_not_found(error):
                raise
            self._enqueue(self._graph.remove(node.uid))
            return None
        if uid_of(live) != node.uid:
            self._enqueue(self._graph.remove(node.uid))
            return None
        return live

    async def _state_of(self, owner: Object, namespace: str | None) -> OwnerState:
        resource = self._watched.get((owner["apiVersion"].rpartition("/")[0], owner["kind"]))
        if resource is None:
            return OwnerState.SOLID  # of a kind we cannot look up: never delete on a guess
        where = namespace if resource.namespaced else None
        if resource.namespaced and namespace is None:
            return OwnerState.ABSENT  # an object of cluster scope cannot have an owner in a namespace
        known = self._graph.get(owner["uid"])
        if known is not None and known.namespace == where:
            return OwnerState.WAITING if known.waits_for_dependents else OwnerState.SOLID
        if (owner["uid"], where) in self._absent:
            return OwnerState.ABSENT
        try:
            live = await self.client.get(resource, owner["name"], where)
        except StatusError as error:
            if not is_not_found(error):
                raise
        else:
            if uid_of(live) == owner["uid"]:
                meta = live["metadata"]
                waits = meta.get("deletionTimestamp") and FOREGROUND in (meta.get("finalizers") or ())
                return OwnerState.WAITING if waits else OwnerState.SOLID
        self._absent[owner["uid"], where] = None
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)
        return OwnerState.ABSENT

    # Writes

    async def _delete(self, node: Node, live: Object, propagation: str) -> None:
        version = live["metadata"]["resourceVersion"]
        try:
            await self.client.delete(
                node.resource,
                node.name,
                node.namespace,
                propagation=propagation,  # type: ignore[arg-type]
                uid=node.uid,
                resource_version=version,
            )
        except StatusError as error:
            if is_conflict(error):
                self.queue.add_rate_limited(node.uid)
            elif not is_not_found(error):
                raise

    async def _edit_reference(self, dependent: Node, owner_uid: str, *, block: bool | None = None) -> None:
        """Removes the dependent's reference to the owner, or with `block` sets its blockOwnerDeletion."""
        live = await self._read(dependent)
        if live is None:
            return
        references = []
        for reference in owners_of(live):
            if reference["uid"] != owner_uid:
                references.append(reference)
            elif block is not None:
                references.append({**reference, "blockOwnerDeletion": block})
        if references != owners_of(live):
            meta = {"uid": dependent.uid, "resourceVersion": live["metadata"]["resourceVersion"], "ownerReferences": references or None}
            await self._patch(dependent, meta)

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        live = await self._read(node)
        if live is None:
            return
        finalizers = [each for each in live["metadata"].get("finalizers") or () if each != finalizer]
        await self._patch(node, {"uid": node.uid, "resourceVersion": live["metadata"]["resourceVersion"], "finalizers": finalizers or None})

    async def _patch(self, node: Node, metadata: Object) -> None:
        try:
            await self.client.patch(node.resource, node.name, {"metadata": metadata}, node.namespace)
        except StatusError as error:
            if not is_not_found(error):
                raise

    # Feeding the graph

    def _follow_all(self) -> None:
        present = {(resource.group, resource.kind): resource for resource in self.config.resources()}
        for key, resource in list(self._watched.items()):
            if present.get(key) != resource:  # its definition has gone, or serves it under another version
                del self._watched[key]
                self._factory.forget(resource)
        for key, resource in present.items():
            if key not in self._watched:
                self._watched[key] = resource
                self.informer(resource, handler=self._feeder(resource))

    def _feeder(self, resource: Resource) -> Handler:
        def handler(old: Object | None, new: Object | None) -> None:
            if new is not None:
                self._enqueue(self._graph.put(resource, new))
            elif old is not None:
                self._enqueue(self._graph.remove(uid_of(old)))

        return handler

    def _enqueue(self, uids: set[str]) -> None:
        for uid in uids:
            self.queue.add(uid)
