"""One stored object as dict and as encoded bytes, and how the one is made of the other.

Stored bytes carry no resourceVersion: the store hands it out at commit, and it is spliced in as the first field of `metadata`. Neither a
stored dict nor a stored Item is ever changed in place; readers in this process share them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.apiserver.machinery.kind import Kind

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One stored object. `key` is "<namespace>/<name>" or "<name>"; `body` its JSON, resourceVersion included."""

    key: str
    obj: Object
    body: bytes
    revision: int


@dataclass(slots=True)
class Event:
    """One change. For a delete, `item` is the last state under the revision of the deletion."""

    revision: int
    item: Item
    previous: Item | None
    deleted: bool
    encoded: dict[Any, bytes] = field(default_factory=dict)  # by form, so that each is made once for all watchers


class Encoding:
    """The stored form of a kind's objects."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._head = _head(kind.kind, kind.api_version)

    def encode(self, obj: Object, api_version: str = "") -> bytes:
        """The bytes to store: kind, apiVersion and metadata first, no resourceVersion."""
        metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
        head = {"kind": self.kind.kind, "apiVersion": api_version or self.kind.api_version, "metadata": metadata}
        return orjson.dumps({**head, **{name: value for name, value in obj.items() if name not in head}})

    def read(self, stored: bytes) -> tuple[Object, bytes]:
        """What was written as it reads by the kind's schema of today. Of another version's fields the schema knows nothing."""
        obj: Object = orjson.loads(stored)
        restored = self.kind.schema.restored(obj) if obj["apiVersion"] == self.kind.api_version else obj
        return (obj, stored) if restored is obj else (restored, self.encode(restored))

    def differs(self, obj: Object) -> bool:
        """Whether what another schema has made of stored bytes reads otherwise by this one."""
        if obj["apiVersion"] != self.kind.api_version:
            return self.kind.converter is None
        return self.kind.schema.restored(obj) is not obj

    def item(self, key: str, obj: Object, stored: bytes, revision: int) -> Item:
        """`obj` becomes the item's own. Where the kind's versions differ in their schema alone, an object of another one is relabelled."""
        head = self._head
        if not stored.startswith(head):  # it was written when another version of the kind was stored
            if self.kind.converter is None:
                obj = {**obj, "apiVersion": self.kind.api_version}
            head = self._head_of(obj)
            if not stored.startswith(head):
                stored = self.encode(obj, obj["apiVersion"])
        obj["metadata"]["resourceVersion"] = str(revision)
        return Item(key, obj, b'%s"resourceVersion":"%d",%s' % (head, revision, stored[len(head) :]), revision)

    def moved(self, item: Item, revision: int) -> Item:
        """The same object under a later revision, as deletions and departures from a selection are told."""
        head = self._head_of(item.obj)
        before = b'%s"resourceVersion":"%d",' % (head, item.revision)
        obj = {**item.obj, "metadata": {**item.obj["metadata"], "resourceVersion": str(revision)}}
        if not item.body.startswith(before):  # a webhook has made it
            return Item(item.key, obj, orjson.dumps(obj), revision)
        tail = item.body[len(before) :]
        return Item(item.key, obj, b'%s"resourceVersion":"%d",%s' % (head, revision, tail), revision)

    def _head_of(self, obj: Object) -> bytes:
        """The kind's own, but for what a webhook has yet to convert: it stays in the version it was written in."""
        return self._head if obj["apiVersion"] == self.kind.api_version else _head(self.kind.kind, obj["apiVersion"])


def _head(kind: str, api_version: str) -> bytes:
    """How the bytes of an object begin, up to what its metadata holds."""
    return orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": {}})[:-2]
