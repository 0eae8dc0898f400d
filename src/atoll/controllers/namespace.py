"""Deleting namespaces: empty them, say what remains, then let go.

A namespace with a deletionTimestamp keeps the finalizer `kubernetes` in spec.finalizers until all its content is gone. Content is
counted on the server, not in informers: an object made a moment before would be forgotten. What ends later (pods in their grace period,
objects with finalizers) brings the key back by its own DELETED event.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.informer import Handler
from atoll.client.objects import Object, copy_of, is_deleting, name_of, namespace_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import EVENTS, NAMESPACES, PODS, Resource
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import Conditions, condition
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds

FINALIZER = "kubernetes"
RECHECK_S = 15.0  # for content of resources that no informer here follows, those of aggregated API servers first of all

Remaining = dict[Resource, list[Object]]


def make_conditions(old: Conditions | None, remaining: Remaining, failures: list[str], silent: Sequence[str], now: str) -> Conditions:
    """The five conditions of a terminating namespace, with upstream's reasons. `silent` are the group versions that were not discovered."""
    finalizers: dict[str, int] = {}
    for objects in remaining.values():
        for obj in objects:
            for finalizer in obj["metadata"].get("finalizers") or ():
                finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
    left = ", ".join(
        f"{resource.plural}.{resource.group} has {len(objects)} resource instances"
        for resource, objects in sorted(remaining.items(), key=lambda item: item[0].plural)
    )
    held = ", ".join(f"{finalizer} in {count} resource instances" for finalizer, count in sorted(finalizers.items()))
    problems = "; ".join(sorted(failures))
    rows = (
        (
            "NamespaceDeletionDiscoveryFailure",
            "DiscoveryFailed",
            f"Discovery failed for some groups, {len(silent)} failing: unable to retrieve the complete list of server APIs: "
            + ", ".join(f"{each}: stale GroupVersion discovery: {each}" for each in sorted(silent))
            if silent
            else "",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        ("NamespaceDeletionGroupVersionParsingFailure", "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed",
            f"Failed to delete all resource types, {len(failures)} remaining: {problems}" if failures else "",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            "SomeResourcesRemain",
            f"Some resources are remaining: {left}" if left else "",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {held}" if held else "",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    )
    entries = list(old or ())
    for kind, bad_reason, bad_message, good_reason, good_message in rows:
        if bad_message:
            made = condition(kind, "True", bad_reason, bad_message, now)
            before = conditions.find(entries, kind)
            if before is not None and before["status"] == "True":
                made["lastTransitionTime"] = before["lastTransitionTime"]  # the message may tell a new count
            entries = [*conditions.without(entries, kind), made]
        else:
            entries = conditions.put(entries, condition(kind, "False", good_reason, good_message, now))
    return entries


async def empty(client: Client, namespace: str, resources: list[Resource]) -> tuple[Remaining, list[str]]:
    """Deletes all content; returns what is still there and what went wrong."""
    remaining: Remaining = {}
    failures: list[str] = []
    for resource in resources:
        try:
            found = (await client.list(resource, namespace)).get("items")
            if not found:
                continue
            try:
                await client.delete_collection(resource, namespace)
            except StatusError as error:
                if error.code != 405:
                    raise
                await _delete_each(client, resource, found)
            left = (await client.list(resource, namespace)).get("items")
        except AtollError as error:
            if not (is_not_found(error) or (isinstance(error, StatusError) and error.code == 405)):
                failures.append(f"{resource.plural}: {error}")
            continue
        if left:
            remaining[resource] = left
    return remaining, failures


async def _delete_each(client: Client, resource: Resource, found: list[Object]) -> None:
    """For a server that deletes no collections."""
    for obj in found:
        try:
            await client.delete(resource, name_of(obj), namespace_of(obj))
        except StatusError as error:
            if not is_not_found(error):
                raise


class NamespaceController(Controller):
    name = "namespace-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.informer(NAMESPACES, handler=self.enqueue)
        self._followed: set[Resource] = set()

    async def reconcile(self, key: str) -> None:
        namespace = self._namespaces.get(key)
        if namespace is None or not is_deleting(namespace):
            return
        if FINALIZER not in (namespace["spec"].get("finalizers") or ()):
            return
        resources = [resource for resource in self.config.resources() if resource.namespaced and resource != EVENTS]
        self._follow(resources)
        foreign = self.config.aggregated()
        # Pods first (KEP-5080): nothing that one may depend on, a network policy say, goes while it still runs.
        remaining, failures = await empty(self.client, key, [PODS])
        if not remaining and not failures:
            remaining, failures = await empty(self.client, key, [*(each for each in resources if each != PODS), *foreign.resources])
        if remaining or failures or foreign.silent:
            await self._tell(namespace, remaining, failures, foreign.silent)
            self.queue.add_after(key, RECHECK_S)
            return
        await empty(self.client, key, [EVENTS])  # last, since the end of the others wrote some
        await self._tell(namespace, remaining, failures, ())
        await self._finalize(key)

    def _follow(self, resources: list[Resource]) -> None:
        self._followed &= set(resources)
        for resource in resources:
            if resource not in self._followed:
                self._followed.add(resource)
                self._factory.informer(resource).add_handler(self._on_deleted())

    def _on_deleted(self) -> Handler:
        def handler(old: Object | None, new: Object | None) -> None:
            if old is not None and new is None:
                namespace = self._namespaces.get(namespace_of(old) or "")
                if namespace is not None and is_deleting(namespace):
                    self.queue.add(name_of(namespace))

        return handler

    async def _tell(self, namespace: Object, remaining: Remaining, failures: list[str], silent: Sequence[str]) -> None:
        status = dict(namespace.get("status") or {})
        now = timestamp_seconds(self.clock())
        status |= {"phase": "Terminating", "conditions": make_conditions(status.get("conditions"), remaining, failures, silent, now)}
        if status != namespace.get("status"):
            await self.client.patch(NAMESPACES, name_of(namespace), {"status": status}, subresource="status")

    async def _finalize(self, name: str) -> None:
        try:
            fresh = copy_of(await self.client.get(NAMESPACES, name))
            fresh["spec"]["finalizers"] = [each for each in fresh["spec"].get("finalizers") or () if each != FINALIZER]
            await self.client.update(NAMESPACES, fresh, subresource="finalize")
        except StatusError as error:
            if not is_not_found(error):
                raise
