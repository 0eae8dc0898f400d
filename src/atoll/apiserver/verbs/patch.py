"""PATCH: the four kinds of patch, computed on the stored object and written by the compare-and-swap loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.apply import apply_configuration
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Cause
from atoll.apiserver.machinery.patch_json import apply_json_patch, apply_merge_patch
from atoll.apiserver.machinery.patch_strategic import apply_strategic_patch
from atoll.apiserver.machinery.versions import from_stored, to_stored
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.create import create
from atoll.apiserver.verbs.prepare import check_schema, typed
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

PatchKind = Literal["json", "merge", "strategic", "apply"]


@dataclass(frozen=True, slots=True)
class Patch:
    """`value` is decoded and never changed. `force` takes fields from other managers (apply only)."""

    kind: PatchKind
    value: Any
    force: bool = False
    duplicates: tuple[str, ...] = ()


async def patch(core: Core, call: Call, given: Patch) -> tuple[Item, bool]:
    """The patched object, and whether an apply has created it. Raises StatusError 400, 404, 409, 413, 415, 422."""
    if given.kind == "apply":
        return await _server_side_apply(core, call, given)
    warned = False

    async def patched(item: Item) -> Object:
        nonlocal warned
        result = apply(call, from_stored(call.face, orjson.loads(item.body)), given)
        metadata = result.get("metadata")
        if not isinstance(metadata, dict) or metadata.get("name") != call.name:
            raise statuses.bad_request("metadata.name: a patch may not change the name of the object")
        kept = call.warnings[:]
        checked = check_schema(call, call.face, result, given.duplicates, verb="patch")
        if warned:  # said at the first try
            call.warnings[:] = kept
        warned = True
        return to_stored(call.face, checked)

    return await change(core, call, patched), False


async def _server_side_apply(core: Core, call: Call, given: Patch) -> tuple[Item, bool]:
    kind = call.face
    if not call.field_manager:
        cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
        raise statuses.invalid(replace(kind, kind="PatchOptions", group="meta.k8s.io"), "", [cause])
    if not isinstance(given.value, dict) or not given.value.get("kind") or not given.value.get("apiVersion"):
        raise statuses.bad_request("an apply patch must be an object with apiVersion and kind")
    configuration = orjson.dumps(check_schema(call, kind, typed(kind, given.value), given.duplicates, verb="patch"))
    now = timestamp_seconds(core.clock())

    def applied() -> Object:
        fresh: Object = orjson.loads(configuration)
        if fresh["metadata"].setdefault("name", call.name) != call.name:
            raise statuses.bad_request("metadata.name: the name of the object does not match the name on the URL")
        if call.namespace is not None:
            fresh["metadata"].setdefault("namespace", call.namespace)
        return fresh

    def merged(live: Object | None) -> Object:
        return apply_configuration(kind, live, applied(), call.field_manager, call.subresource, now, force=given.force)

    async def over(item: Item) -> Object:
        return to_stored(kind, merged(from_stored(kind, orjson.loads(item.body))))

    if core.cacher(call.kind).get(call.key) is None and not call.subresource:
        try:
            return await create(core, call, to_stored(kind, merged(None))), True
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
    return await change(core, call, over, follow=False), False


def apply(call: Call, document: Object, given: Patch) -> Object:
    """`document`, the call's own copy, with the patch applied."""
    if given.kind == "json":
        result = apply_json_patch(document, given.value)
    elif given.kind == "merge":
        if not isinstance(given.value, dict):
            raise statuses.bad_request("error decoding patch: a merge patch is an object")
        result = apply_merge_patch(document, orjson.loads(orjson.dumps(given.value)))
    elif given.kind == "strategic":
        if not call.kind.builtin:
            raise statuses.unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
                "application/merge-patch+json, application/apply-patch+yaml"
            )
        result = apply_strategic_patch(document, orjson.loads(orjson.dumps(given.value)), call.face.schema.patch_meta)
    else:
        raise statuses.not_supported(f"server-side apply is not served for {call.kind.plural}/{call.subresource}")
    if not isinstance(result, dict):
        raise statuses.bad_request("the patch does not leave an object")
    return result
