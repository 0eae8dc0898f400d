"""Manifests on their way in: what kind of document, what it refers to, what it is about.

Stored byte for byte as it came, a manifest is read only here, once. A document that is both an image and an index is refused: which of the
two it is would depend on who reads it (CVE-2021-41190).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from atoll.images.manifest import CHOICES_MAX, INDEXES, LAYERS_MAX, MANIFESTS, SIZE_MAX
from atoll.registry import names
from atoll.registry.errors import Code, Refused

BODY_MAX = 4 << 20  # bytes; the specification wants at least four megabytes
TEXT_MAX = 4096  # bytes of a media or artifact type
_FOREIGN = ("nondistributable", ".foreign.")  # layers that stay at their vendor's address


@dataclass(frozen=True, slots=True)
class Pointer:
    """Content the manifest refers to. `required`: it must be in the repository before the manifest is taken."""

    digest: str
    size: int
    is_manifest: bool
    required: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    media_type: str
    pointers: tuple[Pointer, ...]
    subject: str | None
    artifact_type: str
    annotations: dict[str, str]

    def referrer(self, digest: str, size: int) -> bytes:
        """The descriptor that the referrers of the subject are listed by."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": digest, "size": size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = self.annotations
        return orjson.dumps(value)


def read(body: bytes, content_type: str | None) -> Document:
    """Raises Refused MANIFEST_INVALID."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        raise _invalid("a manifest is an object of schemaVersion 2; schema 1 is not taken: push again with a current client")
    media_type = _media_type(value, (content_type or "").partition(";")[0].strip())
    if media_type in INDEXES:
        pointers = tuple(_pointer(one, is_manifest=True) for one in _list(value, "manifests", CHOICES_MAX))
        artifact_type = _text(value, "artifactType")
    else:
        config = _pointer(value.get("config"), is_manifest=False)
        pointers = (config, *(_pointer(one, is_manifest=False) for one in _list(value, "layers", LAYERS_MAX)))
        artifact_type = _text(value, "artifactType") or _text(value["config"], "mediaType")
    subject = value.get("subject")
    return Document(
        media_type, pointers, None if subject is None else _pointer(subject, is_manifest=True).digest, artifact_type, _annotations(value)
    )


def _media_type(value: dict[str, Any], stated: str) -> str:
    own = value.get("mediaType")
    if own is not None and stated and own != stated:
        raise _invalid(f"its mediaType is {own!r}, its Content-Type {stated!r}")
    media_type = own or stated
    if media_type not in (*MANIFESTS, *INDEXES):
        raise _invalid(f"manifests of type {media_type!r} are not taken")
    wrong = ("layers", "config") if media_type in INDEXES else ("manifests",)
    for field in wrong:
        if field in value:
            raise _invalid(f"a {media_type} has no {field!r}")
    return str(media_type)


def _list(value: dict[str, Any], field: str, limit: int) -> list[Any]:
    items = value.get(field)
    if not isinstance(items, list) or len(items) > limit:
        raise _invalid(f"{field!r} is no list of at most {limit}")
    return items


def _pointer(value: Any, *, is_manifest: bool) -> Pointer:
    if not isinstance(value, dict):
        raise _invalid("a descriptor is missing or no object")
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= SIZE_MAX:
        raise _invalid(f"a descriptor has the size {size!r}")
    digest = value.get("digest")
    if not isinstance(digest, str):
        raise _invalid("a descriptor has no digest")
    media_type = _text(value, "mediaType")
    elsewhere = bool(value.get("urls")) and any(word in media_type for word in _FOREIGN)
    return Pointer(names.digest(digest), size, is_manifest, required=not elsewhere)


def _text(value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if text is None:
        return ""
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise _invalid(f"{field!r} is no text of at most {TEXT_MAX} bytes")
    return text


def _annotations(value: dict[str, Any]) -> dict[str, str]:
    annotations = value.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
        raise _invalid("annotations are texts by name")
    return annotations


def _invalid(why: str) -> Refused:
    return Refused(Code.MANIFEST_INVALID, f"manifest invalid: {why}")
