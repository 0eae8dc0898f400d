"""Query parameters to options: what a list, a watch, a write or a delete is asked to do. Everything refused here is a 400."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.kinds import rules_for
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.selectors import EVERYTHING, FieldTerm, Selector, parse_fields, parse_labels
from atoll.apiserver.machinery.watcher import WatchPlan
from atoll.apiserver.verbs.read import ListOptions, parse_revision, refuse_options, watch_contradictions
from atoll.errors import InvalidInput
from atoll.http import Query
from atoll.units import NS, parse_duration

REQUEST_S = 60.0  # upstream's --request-timeout
WATCH_MIN_S = 1_800  # upstream's --min-request-timeout: a watch without its own ends after one to two times this


def selector_of(kind: Kind, labels: str | None, fields: str | None, name: str | None = None) -> Selector:
    if not labels and not fields and name is None:
        return EVERYTHING
    terms = parse_fields(fields) if fields else ()
    if name is not None:
        terms = (*terms, FieldTerm("metadata.name", name, True))
    if terms:
        known = rules_for(kind).selectable_fields({"metadata": {}, "spec": {}, "status": {}}).keys()
        for term in terms:
            if term.field not in known and term.field not in ("metadata.name", "metadata.namespace"):
                raise statuses.bad_request(
                    f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match label selector "{labels or ""}", '
                    f'field selector "{fields}": field label not supported: {term.field}'
                )
    return Selector(parse_labels(labels) if labels else (), terms, _reader(kind))


def _reader(kind: Kind) -> Any:
    def read(obj: Mapping[str, Any], field: str) -> str:
        if field == "metadata.name":
            return str(obj["metadata"].get("name") or "")
        if field == "metadata.namespace":
            return str(obj["metadata"].get("namespace") or "")
        return rules_for(kind).selectable_fields(obj).get(field, "")

    return read


def list_options(call: Call, query: Query) -> ListOptions:
    return ListOptions(
        selector_of(call.selected, query.get("labelSelector"), query.get("fieldSelector")),
        number(query, "limit") or 0,
        query.get("continue") or "",
        query.get("resourceVersion") or "",
        query.get("resourceVersionMatch") or "",
    )


def watch_plan(call: Call, query: Query) -> WatchPlan:
    selector = selector_of(call.selected, query.get("labelSelector"), query.get("fieldSelector"), call.name)
    bookmarks = query.flag("allowWatchBookmarks")
    version = query.get("resourceVersion") or ""
    match = query.get("resourceVersionMatch") or ""
    initial = query.get("sendInitialEvents")
    refuse_options(call, watch_contradictions(match, has_initial=initial is not None))
    newest = version in ("", "0")
    wants_initial = query.flag("sendInitialEvents") if initial is not None else newest
    not_older = parse_revision(version or "0")
    since = None if wants_initial or newest else not_older
    timeout = number(query, "timeoutSeconds") or WATCH_MIN_S * (1 + random.random())  # noqa: S311  # spreads reconnects, guards nothing
    return WatchPlan(
        call.namespace,
        selector,
        since,
        bookmarks,
        wants_initial and bookmarks,
        timeout,
        not wants_initial,
        not_older if wants_initial else 0,
    )


def write_options(call: Call, query: Query) -> None:
    """Fill in the call's dryRun, fieldManager and fieldValidation."""
    dry_run = query.getall("dryRun")
    if dry_run:
        if any(value != "All" for value in dry_run):
            raise statuses.bad_request(f'dryRun: Unsupported value: "{dry_run[0]}": supported values: "All"')
        call.dry_run = True
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise statuses.bad_request(f'fieldValidation: Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"')
    call.field_validation = validation  # type: ignore[assignment]
    call.field_manager = query.get("fieldManager") or ""


def timeout(query: Query) -> float | None:
    """Seconds the client gives the request, at most the server's own bound; None for a watch, whose length is another parameter."""
    text = query.get("timeout")
    if not text or query.flag("watch"):
        return None
    try:
        seconds = parse_duration(text) / NS
    except InvalidInput:
        raise statuses.bad_request(f'invalid timeout specified in the request URL - "{text}"') from None
    return min(seconds, REQUEST_S) if seconds > 0 else REQUEST_S


def number(query: Query, name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = -1 << 63
    if not -(1 << 62) < value < 1 << 62:
        raise statuses.bad_request(f'{name}: Invalid value: "{text}": must be a whole number')
    return value
