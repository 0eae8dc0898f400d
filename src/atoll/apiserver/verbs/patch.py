"""PATCH: the four kinds of patch, computed on the stored object and written by the compare-and-swap loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Item, Object
from atoll.apiserver.machinery.patch_json import apply_json_patch, apply_merge_patch
from atoll.apiserver.machinery.patch_strategic import apply_strategic_patch
from atoll.apiserver.machinery.versions import from_stored, to_stored
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.prepare import check_schema

PatchKind = Literal["json", "merge", "strategic", "apply"]


@dataclass(frozen=True, slots=True)
class Patch:
    """`value` is decoded and never changed. `force` takes fields from other managers (apply only)."""

    kind: PatchKind
    value: Any
    force: bool = False
    duplicates: tuple[str, ...] = ()


async def patch(core: Core, call: Call, given: Patch) -> Item:
    """The patched object. Raises StatusError 400, 404, 409, 413, 415, 422."""
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

    return await change(core, call, patched)


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
        raise statuses.not_supported("server-side apply is not served yet: use client-side apply")
    if not isinstance(result, dict):
        raise statuses.bad_request("the patch does not leave an object")
    return result
