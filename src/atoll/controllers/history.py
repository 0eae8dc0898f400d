"""Revisions of a template as ControllerRevision objects: what daemon sets and stateful sets roll to, and `kubectl rollout undo` rolls
back to.

A revision holds a strategic-merge patch that would bring the template back. Equal data is the same revision; an old one that comes back
gets a new number.
"""

from __future__ import annotations

import orjson

from atoll.client.factory import BY_OWNER
from atoll.client.informer import Informer
from atoll.client.objects import Object, copy_of, is_controlled_by, labels_of, name_of, namespace_of, owner_reference, uid_of
from atoll.client.protocol import Client, is_already_exists, is_not_found
from atoll.client.resources import CONTROLLER_REVISIONS, Resource
from atoll.controllers.deployment.revisions import template_hash
from atoll.errors import Conflict, StatusError

HASH_LABEL = "controller-revision-hash"
HISTORY_LIMIT = 10  # spec.revisionHistoryLimit's default


def revision_data(owner: Object) -> Object:
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    """The pod template the revision stands for."""
    return {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}


def hash_of(revision: Object) -> str:
    return labels_of(revision).get(HASH_LABEL, "")


class History:
    """The revisions of objects of one kind."""

    def __init__(self, client: Client, resource: Resource, revisions: Informer) -> None:
        self._client = client
        self._resource = resource
        self._revisions = revisions

    def of(self, owner: Object) -> list[Object]:
        """Oldest number first."""
        found = [each for each in self._revisions.by_index(BY_OWNER, uid_of(owner)) if is_controlled_by(each, owner)]
        return sorted(found, key=lambda each: (each["revision"], name_of(each)))

    async def current(self, owner: Object, collisions: int | None = None) -> Object:
        """The revision of the owner's template now, made or renumbered when need be.

        Raises Conflict when the name belongs to other data: count the collision and come again.
        """
        known = self.of(owner)
        data = revision_data(owner)
        following = max((each["revision"] for each in known), default=0) + 1
        same = [each for each in known if each.get("data") == data]
        if same:
            newest = same[-1]
            if newest["revision"] == following - 1:
                return newest
            renumbered = copy_of(newest)
            renumbered["revision"] = following
            return await self._client.update(CONTROLLER_REVISIONS, renumbered)
        return await self._create(owner, data, following, collisions)

    async def _create(self, owner: Object, data: Object, number: int, collisions: int | None) -> Object:
        digest = template_hash(data, collisions)
        labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        made = {
            "apiVersion": CONTROLLER_REVISIONS.api_version,
            "kind": CONTROLLER_REVISIONS.kind,
            "metadata": {
                "name": f"{name_of(owner)}-{digest}",
                "namespace": namespace_of(owner),
                "labels": {**labels, HASH_LABEL: digest},
                "ownerReferences": [owner_reference(owner, self._resource)],
            },
            "data": data,
            "revision": number,
        }
        try:
            return await self._client.create(CONTROLLER_REVISIONS, made, namespace_of(owner))
        except StatusError as error:
            if not is_already_exists(error):
                raise
        found = await self._client.get(CONTROLLER_REVISIONS, f"{name_of(owner)}-{digest}", namespace_of(owner))
        if orjson.dumps(found.get("data"), option=orjson.OPT_SORT_KEYS) == orjson.dumps(data, option=orjson.OPT_SORT_KEYS):
            return found
        raise Conflict(f"controller revision {name_of(found)} holds another template: another hash will be tried")

    async def trim(self, owner: Object, in_use: set[str]) -> None:
        """Deletes the oldest revisions beyond the limit that no pod carries; `in_use` are names."""
        limit = owner["spec"].get("revisionHistoryLimit", HISTORY_LIMIT)
        unused = [each for each in self.of(owner) if name_of(each) not in in_use]
        for each in unused[: max(len(unused) - limit, 0)]:
            try:
                await self._client.delete(CONTROLLER_REVISIONS, name_of(each), namespace_of(each), uid=uid_of(each))
            except StatusError as error:
                if not is_not_found(error):
                    raise
