"""Discovery: which groups, versions and resources are served, one by one and all at once (aggregated, v2 and v2beta1).

Documents are made when first asked for and kept as bytes with their hash as ETag, so a client that has them is answered 304.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.machinery.kind import Kind, KindRegistry, Subresource, maturity

CUSTOM_PRIORITY = 1_000  # groupPriorityMinimum of custom resources
AGGREGATED_SHAPES = frozenset({"APIGroupDiscoveryList"})


class Document(NamedTuple):
    body: bytes
    etag: str
    content_type: str = "application/json"


class Foreign(NamedTuple):
    """A group version that another server serves: its resources in the aggregated form, as they were last heard of."""

    group: str
    version: str
    group_priority: int
    version_priority: int
    resources: tuple[dict[str, Any], ...] = ()
    is_fresh: bool = False


Versions = dict[str, list[Kind] | Foreign]


class Discovery:
    """`foreign` tells what other servers serve of what is discovered here."""

    def __init__(self, registry: KindRegistry, address: str, foreign: Callable[[], Iterable[Foreign]] = tuple) -> None:
        self._registry = registry
        self._address = address
        self._foreign = foreign
        self._kept: dict[tuple[str, ...], Document | None] = {}

    def forget(self) -> None:
        """The kinds have changed."""
        self._kept.clear()

    def document(self, segments: tuple[str, ...], aggregated: str = "") -> Document | None:
        """The document of a path below /api or /apis; `aggregated` is the version of the aggregated form, if that is wanted."""
        parts = tuple(part for part in segments if part)
        key = (aggregated, *parts)
        if key not in self._kept:
            self._kept[key] = self._make(parts, aggregated)
        return self._kept[key]

    def _groups(self) -> dict[str, Versions]:
        """Built-in groups first, then the others by priority and name."""
        own = self._registry.groups()
        groups: dict[str, Versions] = {name: dict(versions) for name, versions in own.items()}
        foreign = sorted(self._foreign(), key=lambda each: (-each.version_priority, maturity(each.version)))
        if not foreign:
            return groups
        priorities = dict.fromkeys(groups, CUSTOM_PRIORITY)
        for each in foreign:
            groups.setdefault(each.group, {})[each.version] = each
            priorities[each.group] = max(priorities.get(each.group, 0), each.group_priority)
        first = {kind.group for kind in self._registry if kind.builtin}
        last = sorted(groups.keys() - first, key=lambda name: (-priorities[name], name))
        return {name: groups[name] for name in (*(name for name in groups if name in first), *last)}

    def _make(self, parts: tuple[str, ...], aggregated: str) -> Document | None:
        groups = self._groups()
        if aggregated and len(parts) == 1:
            chosen = {name: versions for name, versions in groups.items() if (not name) == (parts[0] == "api")}
            body = {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"apidiscovery.k8s.io/{aggregated}",
                "metadata": {},
                "items": [_aggregated_group(name, versions) for name, versions in chosen.items()],
            }
            return _document(body, f"application/json;g=apidiscovery.k8s.io;v={aggregated};as=APIGroupDiscoveryList")
        match parts:
            case ("api",):
                addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
                versions = list(groups.get("", {}))
                return _document({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses})
            case ("apis",):
                listed = [_group(name, versions) for name, versions in groups.items() if name]
                return _document({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
            case ("apis", group) if group in groups:
                return _document({"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])})
            case ("api", version):
                group = ""
            case ("apis", group, version):
                pass
            case _:
                return None
        kinds = groups.get(group, {}).get(version)
        return _document(_resource_list(kinds)) if isinstance(kinds, list) else None  # a foreign one's is asked of its server


def _document(body: dict[str, Any], content_type: str = "application/json") -> Document:
    encoded = orjson.dumps(body)
    return Document(encoded, hashlib.sha512(encoded).hexdigest().upper(), content_type)


def _group(name: str, versions: Versions) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resource_list(kinds: list[Kind]) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for kind in kinds:
        entry: dict[str, Any] = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        resources.append(entry)
        resources += [_subresource(kind, sub) for sub in kind.subresources]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version, "resources": resources}


def _subresource(kind: Kind, sub: Subresource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.gvk.kind,
        "verbs": list(sub.verbs),
    }
    if (sub.gvk.group, sub.gvk.version) != (kind.group, kind.version):
        entry["group"], entry["version"] = sub.gvk.group, sub.gvk.version
    return entry


def _aggregated_group(name: str, versions: Versions) -> dict[str, Any]:
    listed = [_aggregated_version(version, served) for version, served in versions.items()]
    return {"metadata": {"name": name, "creationTimestamp": None}, "versions": listed}


def _aggregated_version(version: str, served: list[Kind] | Foreign) -> dict[str, Any]:
    if isinstance(served, Foreign):
        return {"version": version, "freshness": "Current" if served.is_fresh else "Stale", "resources": list(served.resources)}
    return {"version": version, "freshness": "Current", "resources": [_aggregated_resource(kind) for kind in served]}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": kind.gvk._asdict(),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [
            {"subresource": sub.name, "responseKind": sub.gvk._asdict(), "verbs": list(sub.verbs)} for sub in kind.subresources
        ]
    return entry
