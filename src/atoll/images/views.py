"""Images in the shapes the Docker Engine API gives them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from atoll.errors import InvalidInput, NotFound
from atoll.images.model import Image
from atoll.images.reference import parse, parse_canonical
from atoll.units import NS, timestamp

EPOCH = "0001-01-01T00:00:00Z"  # what Go prints for no time at all
UNKNOWN = -1  # "not computed" in the API
_TRUE = ("1", "true", "True", "TRUE", "t", "T")
_FILTERS = ("reference", "dangling", "label", "before", "since", "until")


def inspect(image: Image) -> dict[str, Any]:
    """GET /images/{name}/json, ImageInspect."""
    config = image.config
    lowers = [str(layer.directory) for layer in reversed(image.layers)]
    data = {"UpperDir": lowers[0], "MergedDir": "", "WorkDir": ""} if lowers else {}
    if len(lowers) > 1:
        data["LowerDir"] = ":".join(lowers[1:])
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent or "",
        "Comment": _comment(config),
        "Created": config.get("created") or EPOCH,
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": {"Env": None, "Cmd": None, "Entrypoint": None, "Labels": None, "WorkingDir": "", "User": "", **image.runtime_config},
        "Architecture": config.get("architecture", ""),
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": config.get("os", ""),
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": data},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": timestamp(image.tagged_ns)},
        **({"Descriptor": image.manifest.wire()} if image.manifest else {}),
    }


def summary(image: Image, *, shared: int = UNKNOWN, containers: int = UNKNOWN) -> dict[str, Any]:
    """One of GET /images/json, ImageSummary."""
    return {
        "Id": image.id,
        "ParentId": image.parent or "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": created_ns(image) // NS,
        "Size": image.size,
        "SharedSize": shared,
        "Labels": image.runtime_config.get("Labels"),
        "Containers": containers,
    }


def manifests(image: Image, content: int, containers: Sequence[str]) -> list[dict[str, Any]]:
    """ManifestSummary (API 1.47). One at most: of an index the manifest of one platform is kept. `content`: bytes of its blobs here."""
    if image.manifest is None:
        return []
    platform = image.platform.wire()
    return [
        {
            "ID": image.manifest.digest,
            "Descriptor": {**image.manifest.wire(), "platform": platform},
            "Available": True,
            "Size": {"Content": content, "Total": content + image.size},
            "Kind": "image",
            "ImageData": {"Platform": platform, "Containers": list(containers), "Size": {"Unpacked": image.size}},
        }
    ]


def history(image: Image) -> list[dict[str, Any]]:
    """GET /images/{name}/history, newest first. Only the top has an id: the steps beneath it are no images."""
    sizes = iter([layer.size for layer in image.layers])
    rows: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": parse_time_ns(step.get("created") or "") // NS,
            "CreatedBy": step.get("created_by", ""),
            "Tags": None,
            "Size": 0 if step.get("empty_layer") else next(sizes, 0),
            "Comment": step.get("comment", ""),
        }
        for step in image.config.get("history") or [{} for _ in image.layers]
    ]
    rows.reverse()
    if rows:
        rows[0].update(Id=image.id, Tags=list(image.repo_tags) or None)
    return rows


def select(
    images: Sequence[Image], filters: dict[str, list[str]], *, resolve: Callable[[str], Image], now_ns: int
) -> list[tuple[Image, list[str]]]:
    """The images that pass Docker's list filters, each with the names to show. Raises InvalidInput, NotFound for before and since."""
    for key in filters:
        if key not in _FILTERS:
            raise InvalidInput(f"invalid filter '{key}'")
    low, high = None, None
    for name in filters.get("before", ()):
        high = min(filter(None, (high, created_ns(_known(resolve, name)))))
    for name in filters.get("since", ()):
        low = max(filter(None, (low, created_ns(_known(resolve, name)))))
    for text in filters.get("until", ()):
        until = until_ns(text, now_ns)
        high = until if high is None else min(high, until)
    chosen = []
    for image in images:
        created = created_ns(image)
        if (high is not None and created >= high) or (low is not None and created <= low):
            continue
        if not has_labels(image, filters.get("label", ())):
            continue
        if filters.get("dangling") and (not image.repo_tags) is not any(value in _TRUE for value in filters["dangling"]):
            continue
        names = [*image.repo_tags]
        if patterns := filters.get("reference"):
            names = [name for name in names if any(matches(name, pattern) for pattern in patterns)]
            if not names:
                continue
        chosen.append((image, names))
    return chosen


def matches(name: str, pattern: str) -> bool:
    """reference=PATTERN: a glob against the familiar name, with or without its tag; "*" stays within a path component."""
    repository = parse_canonical(str(parse(name))).familiar_name
    return any(_glob(candidate, pattern) for candidate in (name, repository))


def has_labels(image: Image, wanted: Sequence[str]) -> bool:
    """label=KEY and label=KEY=VALUE, all of them."""
    labels = image.runtime_config.get("Labels") or {}
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def until_ns(text: str, now_ns: int) -> int:
    """A time, unix seconds, or a duration before now. Raises InvalidInput."""
    from atoll.units import parse_duration

    if text.replace(".", "", 1).isdigit():
        return int(float(text) * NS)
    if parsed := parse_time_ns(text):
        return parsed
    return now_ns - parse_duration(text)


def created_ns(image: Image) -> int:
    return parse_time_ns(image.config.get("created") or "")


def parse_time_ns(text: str) -> int:
    """RFC 3339 to unix nanoseconds; 0 for what is no time, and for Go's zero time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(text + "T00:00:00Z" if "T" not in text else text + "Z")
    return max(0, int(moment.timestamp()) * NS + moment.microsecond * 1000)


def _comment(config: dict[str, Any]) -> str:
    steps = config.get("history") or []
    return str(config.get("comment") or (steps[-1].get("comment", "") if steps else ""))


def _known(resolve: Callable[[str], Image], name: str) -> Image:
    try:
        return resolve(name)
    except NotFound:
        raise NotFound(f"No such image: {name}") from None


def _glob(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatch.fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))
