"""What the scheduler believes is where: nodes and their pods, kept by watch events and by its own assumptions.

A pod that was just placed is assumed on its node until the API says so (or the binding fails), so that the next pod does not get the
same room. Only nodes that changed are reckoned anew for the next snapshot.
"""

from __future__ import annotations

from atoll.client.objects import Object, labels_of, name_of, uid_of
from atoll.scheduler.nominations import Nominations
from atoll.scheduler.requests import PodInfo, pod_info
from atoll.scheduler.snapshot import NodeInfo, Snapshot, Storage, make_node_info


class Cache:
    """Mutable; `snapshot` answers an immutable view."""

    def __init__(self, storage: Storage | None = None) -> None:
        self._storage = storage or Storage()
        self._nodes: dict[str, Object] = {}
        self._pods: dict[str, dict[str, PodInfo]] = {}  # node → uid → pod
        self._places: dict[str, str] = {}  # uid → node
        self._assumed: set[str] = set()
        self._infos: dict[str, NodeInfo] = {}
        self._dirty: set[str] = set()
        self._namespaces: dict[str, dict[str, str]] = {}
        self.nominations = Nominations()

    def __len__(self) -> int:
        """Nodes."""
        return len(self._nodes)

    def put_node(self, node: Object) -> None:
        self._nodes[name_of(node)] = node
        self._dirty.add(name_of(node))

    def remove_node(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._dirty.add(name)

    def put_namespace(self, namespace: Object) -> None:
        self._namespaces = {**self._namespaces, name_of(namespace): labels_of(namespace)}

    def remove_namespace(self, name: str) -> None:
        self._namespaces = {key: value for key, value in self._namespaces.items() if key != name}

    def put_pod(self, pod: Object) -> None:
        """A pod that the API says is on a node; ends its assumption."""
        uid = uid_of(pod)
        self._assumed.discard(uid)
        self._place(pod, pod["spec"]["nodeName"])

    def assume(self, pod: Object, node: str) -> None:
        self._assumed.add(uid_of(pod))
        self._place(pod, node)

    def forget(self, pod: Object) -> None:
        """The binding failed. A pod that the API has placed meanwhile stays."""
        uid = uid_of(pod)
        if uid in self._assumed:
            self._assumed.discard(uid)
            self.remove_pod(pod)
            self.nominations.follow(None, pod)

    def is_placed(self, pod: Object) -> bool:
        return uid_of(pod) in self._places

    def remove_pod(self, pod: Object) -> None:
        uid = uid_of(pod)
        self._assumed.discard(uid)
        node = self._places.pop(uid, None)
        if node is not None:
            self._pods[node].pop(uid, None)
            if not self._pods[node]:
                del self._pods[node]
            self._dirty.add(node)

    def snapshot(self) -> Snapshot:
        if self._dirty:
            infos = dict(self._infos)
            for name in self._dirty:
                node = self._nodes.get(name)
                if node is None:
                    infos.pop(name, None)
                else:
                    infos[name] = make_node_info(node, tuple(self._pods.get(name, {}).values()))
            self._infos = infos
            self._dirty.clear()
        return Snapshot(self._infos, self._storage, self._namespaces, self.nominations.by_node)

    def _place(self, pod: Object, node: str) -> None:
        uid = uid_of(pod)
        self.nominations.remove(pod)
        before = self._places.get(uid)
        if before is not None and before != node:
            self._pods[before].pop(uid, None)
            self._dirty.add(before)
        self._places[uid] = node
        self._pods.setdefault(node, {})[uid] = pod_info(pod)
        self._dirty.add(node)
