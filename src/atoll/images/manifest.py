"""Manifests and indexes, OCI's and Docker's: read with suspicion, written for OCI.

A document names other content by descriptors; sizes and depths are bounded here, before anything is fetched for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.errors import InvalidInput, NotFound, NotSupported
from atoll.images.model import DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from atoll.images.reference import is_digest

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = (*MANIFESTS, *INDEXES)
LAYERS_MAX = 500
CHOICES_MAX = 1000
DEPTH_MAX = 3  # an index of indexes is legal; more is a trap
SIZE_MAX = 1 << 46  # 64 TiB: no layer is larger, and sums stay exact


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of an index."""

    descriptor: Descriptor
    platform: Platform | None
    annotations: Mapping[str, str]


def document(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput naming `what`."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is not a JSON object")
    return value


def media_type(value: dict[str, Any], stated: str = "") -> str:
    """What a document is: by its own word, the server's, or its shape (OCI lets both be missing)."""
    if value.get("schemaVersion") == 1:
        raise NotSupported("the image has a schema 1 manifest, which Docker gave up in 2023: push it anew with a current client")
    for name in (value.get("mediaType"), stated.partition(";")[0].strip()):
        if name in ACCEPT:
            return str(name)
    if "manifests" in value:
        return OCI_INDEX
    if "layers" in value and "config" in value:
        return OCI_MANIFEST
    raise InvalidInput(f"unknown manifest type {stated or value.get('mediaType')!r}")


def parse_manifest(value: dict[str, Any]) -> Manifest:
    """Raises InvalidInput; NotSupported for what is no container image and for layers that lie elsewhere (foreign layers)."""
    layers = value.get("layers")
    if not isinstance(layers, list) or len(layers) > LAYERS_MAX:
        raise InvalidInput(f"the manifest has no list of at most {LAYERS_MAX} layers")
    for layer in layers:
        if isinstance(layer, dict) and layer.get("urls"):
            raise NotSupported(f"layer {layer.get('digest')} lies at a foreign address: refused")
    config = descriptor(value.get("config"))
    return Manifest(config, tuple(descriptor(layer) for layer in layers))


def parse_index(value: dict[str, Any]) -> list[Choice]:
    lines = value.get("manifests")
    if not isinstance(lines, list) or len(lines) > CHOICES_MAX:
        raise InvalidInput(f"the index has no list of at most {CHOICES_MAX} manifests")
    choices = []
    for line in lines:
        pointer = descriptor(line)
        platform = line.get("platform")
        annotations = line.get("annotations")
        choices.append(
            Choice(
                pointer,
                Platform(str(platform.get("os", "")), str(platform.get("architecture", "")), str(platform.get("variant", "")))
                if isinstance(platform, dict)
                else None,
                annotations if isinstance(annotations, dict) else {},
            )
        )
    return choices


def choose(choices: Iterable[Choice], wanted: Platform, name: str) -> Descriptor:
    """The manifest for a platform. Raises NotFound with Docker's words."""
    candidates = [
        one for one in choices if one.platform is None or (one.platform.os, one.platform.architecture) == (wanted.os, wanted.architecture)
    ]
    exact = [one for one in candidates if one.platform and one.platform.variant == wanted.variant]
    best = exact or [one for one in candidates if one.platform] or candidates
    if not best:
        raise NotFound(f"no matching manifest for {wanted} in the manifest list entries of {name}")
    return best[0].descriptor


def descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidInput("a manifest lacks a descriptor")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidInput(f"a manifest points to {digest!r}, which is no sha256 digest")
    if not isinstance(size, int) or not 0 <= size <= SIZE_MAX:
        raise InvalidInput(f"a manifest gives {digest} the size {size!r}")
    return Descriptor(str(value.get("mediaType", "")), digest, size)


def new_manifest(config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor(OCI_CONFIG, config.digest, config.size).wire(),
            "layers": [layer.wire() for layer in layers],
        }
    )
