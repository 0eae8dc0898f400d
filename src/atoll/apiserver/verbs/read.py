"""GET of an object or a collection, with the semantics of resourceVersion, limit and continue."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Item
from atoll.apiserver.machinery.selectors import EVERYTHING, Selector


@dataclass(frozen=True, slots=True)
class ListOptions:
    selector: Selector = EVERYTHING
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    match: str = ""  # resourceVersionMatch: Exact, NotOlderThan or nothing


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list at one revision. `remaining` is None when the server cannot say (a selector is at work) or nothing remains."""

    items: list[Item]
    revision: int
    continue_: str = ""
    remaining: int | None = None


async def get(core: Core, call: Call, resource_version: str = "") -> Item:
    """The object as stored. Raises StatusError 404, 504."""
    if resource_version:
        await core.caches.reach(parse_revision(resource_version))
    else:
        await core.store.settle()
    item = core.cacher(call.kind).get(call.key)
    if item is None:
        raise statuses.not_found(call.kind, call.name or "")
    return item


async def list_page(core: Core, call: Call, options: ListOptions) -> Page:
    """One page. Raises StatusError 400 for a contradiction in the options, 410 for a revision that is forgotten."""
    cacher = core.cacher(call.kind)
    revision, after = await _start(core, call, options)
    selector = options.selector
    if selector.name is not None and call.namespace and not options.continue_:
        item = cacher.get(f"{call.namespace}/{selector.name}")
        found = [item] if item is not None and selector.matches(item.obj) else []
        return Page(found, cacher.revision)
    if selector:
        items, _ = await cacher.at(revision, call.namespace, after)
        items = [item for item in items if selector.matches(item.obj)]
        page, rest = (items[: options.limit], len(items) - options.limit) if options.limit else (items, 0)
    else:
        page, rest = await cacher.at(revision, call.namespace, after, options.limit)
    if rest <= 0:
        return Page(page, revision)
    return Page(page, revision, _token(revision, page[-1].key, cacher.prefix), None if selector else rest)


async def _start(core: Core, call: Call, options: ListOptions) -> tuple[int, str]:
    """The revision to list at, and the key to begin after."""
    if options.limit < 0:
        raise statuses.bad_request("limit: must be non-negative")
    if options.continue_:
        if options.resource_version not in ("", "0"):
            raise statuses.bad_request("specifying resource version is not allowed when using continue")
        return _parse_token(options.continue_, core.cacher(call.kind).prefix, core.caches.revision)
    if not options.resource_version:
        if options.match:
            raise statuses.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
        await core.store.settle()
        return core.caches.revision, ""
    wanted = parse_revision(options.resource_version)
    if options.match not in ("", "Exact", "NotOlderThan"):
        raise statuses.bad_request(f'resourceVersionMatch: Unsupported value: "{options.match}": supported values: "Exact", "NotOlderThan"')
    if options.match == "Exact" and not wanted:
        raise statuses.bad_request('resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    await core.caches.reach(wanted)
    exact = options.match == "Exact" or (not options.match and options.limit and wanted)
    return wanted if exact else core.caches.revision, ""


def parse_revision(text: str) -> int:
    """Raises StatusError 400."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise statuses.bad_request(f'resourceVersion: Invalid value: "{text}": must be an unsigned integer')
    return int(text)


def _token(revision: int, key: str, prefix: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": key, "of": prefix})).decode().rstrip("=")


def _parse_token(token: str, prefix: str, newest: int) -> tuple[int, str]:
    """What a token says; one that was made elsewhere or tampered with is a 400."""
    try:
        value = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, key, of = int(value["rv"]), str(value["start"]), value["of"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise statuses.bad_request("continue key is not valid: it was not issued by this server") from None
    if of != prefix or not 0 < revision <= newest:
        raise statuses.bad_request("continue key is not valid: it belongs to another list")
    return revision, key
