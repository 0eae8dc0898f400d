"""Stored items to the bytes a client asked for: objects, lists, tables, metadata only, watch events.

The plain JSON of an object is never made here: it is the item's own bytes, put together into lists and events. Other forms are computed
from the dict; those of watch events are kept on the event, so that fifty watchers of one form cost one encoding.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson

from atoll.apiserver.machinery import tables
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.negotiate import Form
from atoll.apiserver.machinery.protobuf_encode import encode_frame, encode_list, encode_object
from atoll.apiserver.machinery.versions import served_body, served_object
from atoll.apiserver.machinery.watcher import INITIAL_EVENTS_END, Delivery
from atoll.apiserver.verbs.read import Page
from atoll.errors import StatusError

OBJECT_SHAPES = frozenset({"Table", "PartialObjectMetadata"})
LIST_SHAPES = frozenset({"Table", "PartialObjectMetadataList"})
META_V1 = "meta.k8s.io/v1"


def encode_item(kind: Kind, item: Item, form: Form, include: str = "Metadata") -> bytes:
    """`include` is what a table's rows carry of their objects: None, Metadata or Object."""
    if form.shape == "Table":
        return orjson.dumps(_table(kind, [item], {"resourceVersion": item.obj["metadata"].get("resourceVersion", "")}, include))
    if form.shape:
        return orjson.dumps(_metadata_of(item))
    if form.media == "json":
        return served_body(kind, item)
    obj = served_object(kind, item)
    return encode_object(obj) if form.media == "protobuf" else _yaml(obj)


def encode_page(kind: Kind, page: Page, form: Form, include: str = "Metadata") -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.continue_:
        metadata["continue"] = page.continue_
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    if form.shape == "Table":
        return orjson.dumps(_table(kind, page.items, metadata, include))
    if form.shape:
        head = {"kind": "PartialObjectMetadataList", "apiVersion": META_V1, "metadata": metadata}
        return orjson.dumps({**head, "items": [_metadata_of(item) for item in page.items]})
    head = {"kind": kind.list_kind or f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
    if form.media == "yaml":
        return _yaml({**head, "items": [served_object(kind, item) for item in page.items]})
    if form.media == "protobuf":
        return encode_list(head, kind.kind, [served_object(kind, item) for item in page.items])
    bodies = [item.body for item in page.items] if not kind.storage_group_version else [served_body(kind, item) for item in page.items]
    return b'%s,"items":[%s]}' % (orjson.dumps(head)[:-1], b",".join(bodies))


def encode_delivery(kind: Kind, delivery: Delivery, form: Form, include: str, first: bool) -> bytes:
    """One line of a watch. A table's first event carries the column definitions, as upstream."""
    item = delivery.item
    if item is None:
        bookmark = _bookmark(kind, delivery, form)
        if form.media == "protobuf":
            return encode_frame("BOOKMARK", bookmark)
        return orjson.dumps({"type": "BOOKMARK", "object": bookmark}) + b"\n"
    event = delivery.event
    key = (delivery.type, form, include, first, kind.version)
    if event is not None and key in event.encoded:
        return event.encoded[key]
    if form.media == "protobuf":
        line = encode_frame(delivery.type, served_object(kind, item))
    elif not form.shape:
        line = b'{"type":"%s","object":%s}\n' % (delivery.type.encode(), served_body(kind, item))
    else:
        obj = _table(kind, [item], {}, include, columns=first) if form.shape == "Table" else _metadata_of(item)
        line = orjson.dumps({"type": delivery.type, "object": obj}) + b"\n"
    if event is not None:
        event.encoded[key] = line
    return line


def encode_watch_error(error: StatusError, form: Form) -> bytes:
    if form.media == "protobuf":
        return encode_frame("ERROR", error.status())
    return orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n"


def _bookmark(kind: Kind, delivery: Delivery, form: Form) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(delivery.revision), "creationTimestamp": None}
    if delivery.initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    if form.shape == "Table":
        row = {"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": META_V1, "metadata": metadata}}
        return {"kind": "Table", "apiVersion": META_V1, "metadata": {"resourceVersion": str(delivery.revision)}, "rows": [row]}
    if form.shape:
        return {"kind": "PartialObjectMetadata", "apiVersion": META_V1, "metadata": metadata}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


def _table(kind: Kind, items: Iterable[Item], metadata: dict[str, Any], include: str, *, columns: bool = True) -> dict[str, Any]:
    now = time.time()
    rows = []
    for item in items:
        row: dict[str, Any] = {"cells": tables.cells(kind, served_object(kind, item), now)}
        if include == "Object":
            row["object"] = orjson.Fragment(served_body(kind, item))
        elif include != "None":
            row["object"] = _metadata_of(item)
        rows.append(row)
    definitions = tables.column_definitions(kind) if columns else []
    return {"kind": "Table", "apiVersion": META_V1, "metadata": metadata, "columnDefinitions": definitions, "rows": rows}


def _metadata_of(item: Item) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": META_V1, "metadata": item.obj["metadata"]}


def _yaml(obj: Any) -> bytes:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    # Through JSON first: dicts that appear twice in one object would be written as anchors.
    encoded: bytes = yaml.dump(orjson.loads(orjson.dumps(obj)), Dumper=dumper, default_flow_style=False, encoding="utf-8")
    return encoded
