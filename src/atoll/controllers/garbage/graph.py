"""Who owns whom, by uid, of every object in the cluster.

A node keeps only what the rules need. An owner that was never seen may still exist (its event is on the way, or its resource is not
watched), so absence here is no proof: the controller asks the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.client.objects import Object, is_deleting, owners_of
from atoll.client.resources import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(slots=True)
class Node:
    """One object. `owners` are its ownerReferences, `dependents` the uids of objects that name it as owner."""

    uid: str
    resource: Resource
    namespace: str | None
    name: str
    owners: list[Object] = field(default_factory=list)
    dependents: set[str] = field(default_factory=set)
    is_deleting: bool = False
    finalizers: frozenset[str] = frozenset()

    @property
    def waits_for_dependents(self) -> bool:
        return self.is_deleting and FOREGROUND in self.finalizers

    @property
    def wants_orphans(self) -> bool:
        return self.is_deleting and ORPHAN in self.finalizers


class Graph:
    """`put` and `remove` answer the uids that should be looked at because of the change."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._waiting: dict[str, set[str]] = {}  # owner's uid not seen yet → dependents

    def get(self, uid: str) -> Node | None:
        return self._nodes.get(uid)

    def __len__(self) -> int:
        return len(self._nodes)

    def dependents(self, node: Node) -> list[Node]:
        return [self._nodes[uid] for uid in node.dependents if uid in self._nodes]

    def blocking_dependents(self, node: Node) -> list[Node]:
        """Dependents whose reference to `node` says blockOwnerDeletion."""
        return [
            each
            for each in self.dependents(node)
            if any(owner["uid"] == node.uid and owner.get("blockOwnerDeletion") for owner in each.owners)
        ]

    def put(self, resource: Resource, obj: Object) -> set[str]:
        meta = obj["metadata"]
        uid = meta["uid"]
        node = self._nodes.get(uid)
        was_there = node is not None
        if node is None:
            node = self._nodes[uid] = Node(uid, resource, meta.get("namespace") or None, meta["name"])
            node.dependents |= self._waiting.pop(uid, set())
        before, was_deleting = node.owners, node.is_deleting
        node.owners = owners_of(obj)
        node.is_deleting = is_deleting(obj)
        node.finalizers = frozenset(meta.get("finalizers") or ())
        owners_changed = before != node.owners
        if owners_changed:
            self._unlink(uid, before)
            self._link(uid, node.owners)
        look: set[str] = set()
        if node.owners and (owners_changed or not was_there):
            look.add(uid)
        if owners_changed and was_there:
            look |= {owner["uid"] for owner in before}  # an owner may be waiting for this very change
        if node.waits_for_dependents or node.wants_orphans:
            look.add(uid)
        if node.is_deleting and not was_deleting:
            look |= {owner["uid"] for owner in node.owners}
        return look

    def remove(self, uid: str) -> set[str]:
        node = self._nodes.pop(uid, None)
        if node is None:
            return set()
        self._unlink(uid, node.owners)
        if node.dependents:
            self._waiting[uid] = set(node.dependents)
        waiting_owners = {owner["uid"] for owner in node.owners if (found := self._nodes.get(owner["uid"])) and found.is_deleting}
        return node.dependents | waiting_owners

    def _link(self, uid: str, owners: list[Object]) -> None:
        for owner in owners:
            found = self._nodes.get(owner["uid"])
            if found is not None:
                found.dependents.add(uid)
            else:
                self._waiting.setdefault(owner["uid"], set()).add(uid)

    def _unlink(self, uid: str, owners: list[Object]) -> None:
        for owner in owners:
            found = self._nodes.get(owner["uid"])
            if found is not None:
                found.dependents.discard(uid)
            waiting = self._waiting.get(owner["uid"])
            if waiting is not None:
                waiting.discard(uid)
                if not waiting:
                    del self._waiting[owner["uid"]]
