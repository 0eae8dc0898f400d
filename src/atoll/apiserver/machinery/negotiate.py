"""Which form an answer takes: the Accept header read once for each text, then looked up.

Who would rather have protobuf gets JSON as long as JSON is accepted at all (client-go sends `application/vnd.kubernetes.protobuf, */*`):
that is at hand as bytes. Protobuf goes to those that take nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from atoll.apiserver.machinery import statuses

SERVED = "application/json, application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class Form(NamedTuple):
    """`media` is "json", "yaml" or "protobuf"; `shape` is "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList" or
    "APIGroupDiscoveryList"; `version` that of the shape.
    """

    media: str = "json"
    shape: str = ""
    version: str = ""

    @property
    def content_type(self) -> str:
        return PROTOBUF if self.media == "protobuf" else f"application/{self.media}"


PLAIN = Form()
BINARY = Form("protobuf")
_MEDIA = {
    "application/json": "json",
    "application/yaml": "yaml",
    "application/x-yaml": "yaml",
    "text/yaml": "yaml",
    "*/*": "json",
    "application/*": "json",
}
_SHAPES = {
    "Table": ("v1",),
    "PartialObjectMetadata": ("v1",),
    "PartialObjectMetadataList": ("v1",),
    "APIGroupDiscoveryList": ("v2", "v2beta1"),
}


@lru_cache(maxsize=256)
def negotiate(accept: str | None, shapes: frozenset[str], *, binary: bool = False) -> Form:
    """The first form of the header that is served; `shapes` are those the resource offers, `binary` tells whether it has a protobuf form.
    Raises StatusError 406.
    """
    if not accept:
        return PLAIN
    last = None
    for media, parameters in sorted((_clause(part) for part in accept.split(",")), key=lambda clause: -_quality(clause[1])):
        if media == PROTOBUF and binary and "as" not in parameters:
            last = BINARY
        if media not in _MEDIA:
            continue
        shape = parameters.get("as", "")
        if not shape:
            return Form(_MEDIA[media])
        if shape in shapes and parameters.get("v") in _SHAPES[shape] and _MEDIA[media] == "json":
            return Form("json", shape, parameters["v"])
    if last is None:
        raise statuses.not_acceptable(f"{SERVED}, {PROTOBUF}" if binary else SERVED)
    return last


def _clause(text: str) -> tuple[str, dict[str, str]]:
    media, *parameters = (part.strip() for part in text.split(";"))
    return media.lower(), {name: value for name, _, value in (parameter.partition("=") for parameter in parameters)}


def _quality(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
