"""Whose child is this: adopting orphans that match an owner's selector, releasing children that no longer do.

An object belongs to at most one controller. The rules are upstream's ControllerRefManager: an owner that is being deleted neither
adopts nor releases, and before the first adoption the owner is read again from the server, lest a stale copy adopt for an owner that
was deleted and made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from atoll.client.objects import Object, controller_of, is_deleting, name_of, namespace_of, owner_reference, owners_of, uid_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import Resource
from atoll.errors import Conflict, StatusError


class Claims:
    """Claims children of kind `child_resource` for one owner."""

    def __init__(self, client: Client, owner: Object, owner_resource: Resource, child_resource: Resource) -> None:
        self._client = client
        self._owner = owner
        self._owner_resource = owner_resource
        self._child_resource = child_resource
        self._checked = False

    async def claim(self, children: Iterable[Object], is_match: Callable[[Object], bool]) -> list[Object]:
        """Those of `children` that belong to the owner now. Raises when the server refuses an adoption."""
        return [child for child in children if await self._claim(child, is_match)]

    async def _claim(self, child: Object, is_match: Callable[[Object], bool]) -> bool:
        reference = controller_of(child)
        if reference is not None:
            if reference.get("uid") != uid_of(self._owner):
                return False
            if is_match(child):
                return True
            if not is_deleting(self._owner):
                await self._release(child)
            return False
        if is_deleting(self._owner) or is_deleting(child) or not is_match(child):
            return False
        return await self._adopt(child)

    async def _adopt(self, child: Object) -> bool:
        if not self._checked:
            fresh = await self._client.get(self._owner_resource, name_of(self._owner), namespace_of(self._owner))
            if uid_of(fresh) != uid_of(self._owner) or is_deleting(fresh):
                raise Conflict(f"{self._owner_resource.kind} {name_of(self._owner)} is gone or going: it cannot adopt")
            self._checked = True
        references = [*owners_of(child), owner_reference(self._owner, self._owner_resource)]
        return await self._write(child, references)

    async def _release(self, child: Object) -> None:
        await self._write(child, [reference for reference in owners_of(child) if reference.get("uid") != uid_of(self._owner)])

    async def _write(self, child: Object, references: list[Object]) -> bool:
        # Conditional on uid and version: list fields are replaced whole by a merge patch.
        meta = {"uid": uid_of(child), "resourceVersion": child["metadata"]["resourceVersion"], "ownerReferences": references or None}
        try:
            await self._client.patch(self._child_resource, name_of(child), {"metadata": meta}, namespace_of(child))
        except StatusError as error:
            if is_not_found(error):
                return False
            raise
        return True
