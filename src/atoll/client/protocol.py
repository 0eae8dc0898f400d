"""The one face of the API server that controllers, scheduler and kubelet know.

Two implementations: `atoll.client.http.HttpClient` over TLS, and the API server's own in-process client, which hands out the stored
dicts without encoding them. Callers therefore never change what they receive. Every failure the server reports is a `StatusError`; a
server that cannot be reached is `Unavailable`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

from atoll.client.objects import Object
from atoll.client.resources import Resource
from atoll.errors import StatusError

PatchKind = Literal["merge", "strategic", "json", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]
WatchEvent = tuple[str, Object]  # type (ADDED, MODIFIED, DELETED, BOOKMARK) and object


class Client(Protocol):
    """Reads and writes of Kubernetes objects. `namespace=None` on list and watch means every namespace."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...

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
        """The List object: `items`, and in `metadata` the resourceVersion and, when cut by `limit`, `continue`."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version`. Ends when the server ends it; raises StatusError 410 `Expired` when the version is too old."""
        ...

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, *, name: str | None = None, subresource: str | None = None
    ) -> Object:
        """`name` with `subresource` posts to a subresource: pods/NAME/binding, serviceaccounts/NAME/token, pods/NAME/eviction."""
        ...

    async def update(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """Replaces; StatusError 409 `Conflict` unless metadata.resourceVersion is the stored one (or absent)."""
        ...

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
        """`patch` is a dict, or for kind "json" a list of operations. metadata.resourceVersion inside makes it conditional."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """The deleted or terminating object, or a Status. `uid` and `resource_version` are preconditions (409)."""
        ...

    async def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str | None = None, field_selector: str | None = None
    ) -> Object: ...


def is_not_found(error: BaseException) -> bool:
    return isinstance(error, StatusError) and error.code == 404


def is_already_exists(error: BaseException) -> bool:
    return isinstance(error, StatusError) and error.reason == "AlreadyExists"


def is_conflict(error: BaseException) -> bool:
    """An optimistic write lost a race (409 `Conflict`); reading again and retrying is right."""
    return isinstance(error, StatusError) and error.reason == "Conflict"


def is_expired(error: BaseException) -> bool:
    """The resourceVersion or continue token is too old (410): list again."""
    return isinstance(error, StatusError) and error.code == 410
