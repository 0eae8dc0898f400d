"""One informer a resource, shared by all who ask: twenty controllers cost one watch of pods, not twenty.

Ask before or after `run`; an informer asked for later starts at once. The usual indexes are here, so that shared informers agree on
their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from atoll.client.informer import Informer
from atoll.client.objects import Object, controller_of, labels_of, owners_of
from atoll.client.protocol import Client
from atoll.client.resources import Resource

BY_NAMESPACE = "namespace"
BY_OWNER = "owner"  # the uid of each owner
BY_ORPHAN = "orphan"  # the namespace, of objects that have no controller
BY_NODE = "node"  # spec.nodeName
BY_LABEL = "label"  # namespace/key=value


def namespace_index(obj: Object) -> Iterable[str]:
    namespace = obj["metadata"].get("namespace")
    return (namespace,) if namespace else ()


def owner_index(obj: Object) -> Iterable[str]:
    return [reference["uid"] for reference in owners_of(obj)]


def orphan_index(obj: Object) -> Iterable[str]:
    return () if controller_of(obj) else namespace_index(obj)


def node_index(obj: Object) -> Iterable[str]:
    node = (obj.get("spec") or {}).get("nodeName")
    return (node,) if node else ()


def label_index(obj: Object) -> Iterable[str]:
    namespace = obj["metadata"].get("namespace", "")
    return [f"{namespace}/{key}={value}" for key, value in labels_of(obj).items()]


INDEXERS = {BY_NAMESPACE: namespace_index, BY_OWNER: owner_index, BY_ORPHAN: orphan_index, BY_NODE: node_index, BY_LABEL: label_index}


class InformerFactory:
    """Informers over one client. `run` owns their tasks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Resource, Informer] = {}
        self._group: asyncio.TaskGroup | None = None

    def informer(self, resource: Resource, *indexes: str) -> Informer:
        """The informer of all namespaces, with the named indexes of `INDEXERS` added."""
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = Informer(self._client, resource)
            if self._group is not None:
                self._start(informer)
        for index in indexes:
            informer.add_index(index, INDEXERS[index])
        return informer

    def forget(self, resource: Resource) -> None:
        """The resource is served no more: its informer ends, and whoever asks again gets a new one."""
        informer = self._informers.pop(resource, None)
        if informer is not None:
            informer.stop()

    async def wait_synced(self) -> None:
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    async def run(self) -> None:
        """Runs every informer until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for informer in list(self._informers.values()):
                    self._start(informer)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def _start(self, informer: Informer) -> None:
        assert self._group is not None
        self._group.create_task(informer.run(), name=f"informer/{informer.resource.plural}")
