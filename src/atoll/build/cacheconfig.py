"""A build cache as others can have it: the cache configuration of BuildKit (moby/buildkit, cache/remotecache/v1), records of our own in it.

The configuration lists layers, each above a parent, and records, each a key with the layer it leads to. Our keys are not BuildKit's, which
digest its own graph of operations, so neither finds anything in what the other wrote; each of our records says that it is ours, and a cache
without any is told apart and left alone. Layers are believed for what they unpack to, never for what a record calls them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.build.trail import Passed
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Descriptor, Layer
from atoll.images.model import chain_id
from atoll.images.reference import is_digest

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
INLINE = "moby.buildkit.cache.v0"  # the field of an image's configuration that has records of its own layers
OURS = "dev.atoll.step.v1"
ALGORITHM = "sha256:"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
FOREIGN = "it was written by another builder, whose keys are not this one's: export it anew with this builder"


@dataclass(frozen=True, slots=True)
class Record:
    """A step: `layer` is the number of the one it ends with, None where it has none."""

    instruction: str
    created: str
    layer: int | None


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer as it travels; `parent` is the number of the one beneath, -1 for none. `chain` follows from what it unpacks to."""

    blob: Descriptor
    diff_id: str
    parent: int
    chain: str


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """`records` by key."""

    records: Mapping[str, Record]
    layers: Sequence[Packed]


def write(steps: Sequence[Passed], layers: Sequence[Layer], blobs: Sequence[Descriptor]) -> bytes:
    """The configuration of STEPS, whose layers are LAYERS, each after its parent, packed as BLOBS."""
    numbers = {layer.chain_id: number for number, layer in enumerate(layers)}
    listed = [
        {"blob": blob.digest, "parent": numbers[layer.parent] if layer.parent else -1} for layer, blob in zip(layers, blobs, strict=True)
    ]
    return orjson.dumps({"layers": listed, "records": _records(steps, numbers)})


def write_inline(steps: Sequence[Passed], layers: Sequence[Layer]) -> str:
    """What INLINE says of an image of LAYERS."""
    numbers = {layer.chain_id: number for number, layer in enumerate(layers)}
    return base64.b64encode(orjson.dumps(_records(steps, numbers))).decode()


def _records(steps: Sequence[Passed], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    links = {passed.entry.key: number for number, passed in enumerate(steps)}
    records = []
    for passed in steps:
        entry = passed.entry
        ours = {"instruction": passed.instruction, "created": entry.created}
        record: dict[str, Any] = {"digest": ALGORITHM + entry.key, OURS: ours}
        if entry.chain is not None:
            record["layers"] = [{"layer": numbers[entry.chain], "createdAt": entry.created}]
        if passed.parent in links:
            record["inputs"] = [[{"link": links[passed.parent]}]]
        records.append(record)
    return records


def read(value: Mapping[str, Any], blobs: Mapping[str, tuple[Descriptor, str]]) -> CacheConfig:
    """A configuration, BLOBS being packed layers with their diff ids, by digest.

    Raises NotSupported for another builder's, InvalidInput.
    """
    listed = value.get("layers") or []
    if not isinstance(listed, list):
        raise InvalidInput("the cache configuration has no list of layers")
    records = _read_records(value.get("records"), len(listed))
    layers: list[Packed] = []
    for one in listed:
        packed = blobs.get(str(one.get("blob"))) if isinstance(one, dict) else None
        if packed is None:
            raise InvalidInput("the cache configuration names a layer that its manifest has not")
        layers.append(_packed(*packed, one.get("parent", 0), layers))
    return CacheConfig(records, layers)


def read_inline(config: Mapping[str, Any], blobs: Sequence[Descriptor]) -> CacheConfig:
    """The cache in an image's configuration, BLOBS being its layers. Raises as `read`, NotSupported for an image without a cache."""
    text = config.get(INLINE)
    if not isinstance(text, str):
        raise NotSupported("the image has no inline cache: build it with --cache-to type=inline")
    try:
        records = _read_records(orjson.loads(base64.b64decode(text, validate=True)), len(blobs))
    except (binascii.Error, orjson.JSONDecodeError) as error:
        raise InvalidInput(f"the image's inline cache cannot be read: {error}") from None
    layers: list[Packed] = []
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(blobs):
        raise InvalidInput("the image's configuration has other layers than its manifest")
    for number, (blob, diff_id) in enumerate(zip(blobs, diff_ids, strict=True)):
        layers.append(_packed(blob, diff_id, number - 1, layers))
    return CacheConfig(records, layers)


def _packed(blob: Descriptor, diff_id: object, parent: object, before: Sequence[Packed]) -> Packed:
    if not isinstance(diff_id, str) or not is_digest(diff_id):
        raise InvalidInput(f"the cache has a layer {blob.digest} without the digest of what it unpacks to")
    if not isinstance(parent, int) or not -1 <= parent < len(before):
        raise InvalidInput(f"the cache has a layer {blob.digest} that stands on none before it")
    return Packed(blob, diff_id, parent, chain_id(before[parent].chain if parent >= 0 else None, diff_id))


def _read_records(value: object, layers: int) -> dict[str, Record]:
    if not isinstance(value, list):
        raise InvalidInput("the cache configuration has no list of records")
    found = {}
    for one in value:
        ours = one.get(OURS) if isinstance(one, dict) else None
        if isinstance(ours, dict):
            found[str(one.get("digest")).removeprefix(ALGORITHM)] = _read_record(ours, one.get("layers"), layers)
    if value and not found:
        raise NotSupported(FOREIGN)
    return found


def _read_record(ours: Mapping[str, Any], results: object, layers: int) -> Record:
    created = str(ours.get("created"))
    if not TIME.fullmatch(created):
        raise InvalidInput(f"the cache has a record of {created[:40]!r}, which is no time")
    if not results:
        return Record(str(ours.get("instruction")), created, None)
    first = results[0] if isinstance(results, list) else None
    number = first.get("layer") if isinstance(first, dict) else None
    if not isinstance(number, int) or not 0 <= number < layers:
        raise InvalidInput(f"the cache has a record that leads to layer {number!r} of {layers}")
    return Record(str(ours.get("instruction")), created, number)
