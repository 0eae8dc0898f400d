"""GET of an object or a collection, with the semantics of resourceVersion, limit and continue."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.machinery.kind import Cause
from atoll.apiserver.machinery.selectors import EVERYTHING, Selector
from atoll.apiserver.machinery.versions import shown
from atoll.store import Compacted

_NEWEST = -1  # in a token: the list's own revision is forgotten, go on with what there is now; upstream writes it so
CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue "
    "parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token "
    "results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and "
    "now may show up in the list."
)


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
    """One page. Raises StatusError 422 for a contradiction in the options, 410 for a revision that is forgotten."""
    cacher = core.cacher(call.kind)
    revision, after = await _start(core, call, options)
    selector = options.selector
    if selector.name is not None and (call.namespace or not call.kind.namespaced) and not after and revision >= cacher.revision:
        item = cacher.get(f"{call.namespace}/{selector.name}" if call.namespace else selector.name)
        return Page(await _selected(call, selector, [item] if item is not None else []), cacher.revision)
    try:
        items, rest = await cacher.at(revision, call.namespace, after, 0 if selector else options.limit)
    except Compacted:
        if not options.continue_:
            raise statuses.expired("The resourceVersion for the provided list is too old.") from None
        raise statuses.expired(CONTINUE_EXPIRED, continue_=_token(_NEWEST, after, cacher.prefix)) from None
    if selector:
        selected = await _selected(call, selector, items)
        items, rest = (selected[: options.limit], len(selected) - options.limit) if options.limit else (selected, 0)
    if rest <= 0:
        return Page(items, revision)
    return Page(items, revision, _token(revision, items[-1].key, cacher.prefix), None if selector else rest)


async def _selected(call: Call, selector: Selector, items: list[Item]) -> list[Item]:
    """What matches, by the version served: a webhook may have its say in labels as in fields."""
    if selector.judges_content and call.face.converter is not None:
        items = await shown(call.face, items)
    return [item for item in items if selector.matches(item.obj)]


async def _start(core: Core, call: Call, options: ListOptions) -> tuple[int, str]:
    """The revision to list at, and the key to begin after."""
    if options.limit < 0:
        raise statuses.bad_request("limit: must be non-negative")
    if options.match:
        refuse_options(call, _contradictions(options))
    if options.continue_:
        if options.resource_version not in ("", "0"):
            raise statuses.bad_request("specifying resource version is not allowed when using continue")
        return _parse_token(options.continue_, core.cacher(call.kind).prefix, core.caches.revision)
    if not options.resource_version:
        await core.store.settle()
        return core.caches.revision, ""
    wanted = parse_revision(options.resource_version)
    await core.caches.reach(wanted)
    exact = options.match == "Exact" or (not options.match and options.limit and wanted)
    return wanted if exact else core.caches.revision, ""


def _contradictions(options: ListOptions) -> Iterator[Cause]:
    """What upstream refuses of resourceVersionMatch (apimachinery, meta/internalversion/validation)."""
    if not options.resource_version:
        yield _forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if options.continue_:
        yield _forbidden("resourceVersionMatch is forbidden when continue is provided")
    if options.match not in ("Exact", "NotOlderThan"):
        told = f'Unsupported value: "{options.match}": supported values: "Exact", "NotOlderThan", ""'
        yield Cause("FieldValueNotSupported", told, "resourceVersionMatch")
    if options.match == "Exact" and options.resource_version == "0":
        yield _forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')


def watch_contradictions(match: str, *, has_initial: bool) -> Iterator[Cause]:
    """The same for a watch; `has_initial`: it says whether it wants the present objects first."""
    if has_initial and match != "NotOlderThan":
        yield _forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if match and not has_initial:
        yield _forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    if match not in ("", "NotOlderThan"):
        told = f'Unsupported value: "{match}": supported values: "NotOlderThan"'
        yield Cause("FieldValueNotSupported", told, "resourceVersionMatch")


def refuse_options(call: Call, causes: Iterable[Cause]) -> None:
    """Raises StatusError 422 where there are causes."""
    told = list(causes)
    if told:
        raise statuses.invalid(replace(call.kind, kind="ListOptions", group="meta.k8s.io"), "", told)


def _forbidden(why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", "resourceVersionMatch")


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
    if of != prefix or not (revision == _NEWEST or 0 < revision <= newest):
        raise statuses.bad_request("continue key is not valid: it belongs to another list")
    return newest if revision == _NEWEST else revision, key
