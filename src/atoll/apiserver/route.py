"""Paths to resources: /api/v1/... and /apis/<group>/<version>/... as every Kubernetes client writes them."""

from __future__ import annotations

from typing import NamedTuple

from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import Kind, KindRegistry
from atoll.http import Request


class Target(NamedTuple):
    """What a path names. `rest` is what follows a proxy subresource."""

    kind: Kind
    namespace: str | None
    name: str | None
    subresource: str
    rest: tuple[str, ...] = ()
    watching: bool = False  # by the old way of asking for a watch: /watch/ after the version


NAMESPACE_SUBRESOURCES = ("status", "finalize")


_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def foreign_attributes(request: Request) -> Attributes:
    """What is asked of a resource that another server serves, by the form of the path alone (apiserver's RequestInfo)."""
    segments = [part for part in request.segments if part]
    if len(segments) < 4 or segments[0] != "apis":
        return Attributes(request.method.lower(), path=request.path)
    group, rest = segments[1], segments[3:]
    verb = _VERBS.get(request.method, "")
    if rest[0] in ("watch", "proxy") and len(rest) > 1:
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2:
            rest = rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    if not name and verb == "get":
        verb = "watch" if request.query.flag("watch") else "list"
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Attributes(verb, group, "/".join((rest[0], *rest[2:3])), namespace, name)


def resource_target(registry: KindRegistry, segments: tuple[str, ...]) -> Target | None:
    """The target of a resource path, None when the path is of another sort (discovery, health). Raises StatusError 404."""
    if segments[0] == "api" and len(segments) > 2:
        group, version, rest = "", segments[1], segments[2:]
    elif segments[0] == "apis" and len(segments) > 3:
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        return None
    if rest[-1] == "":
        rest = rest[:-1]
        if not rest:
            return None
    watching = rest[0] == "watch" and len(rest) > 1
    if watching:
        rest = rest[1:]
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (not group and len(rest) == 3 and rest[2] in NAMESPACE_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    kind = registry.get(group, version, rest[0])
    if kind is None or (namespace is not None and not kind.namespaced):
        raise statuses.no_such_path()
    name = rest[1] if len(rest) > 1 else None
    subresource = rest[2] if len(rest) > 2 else ""
    if name is not None and kind.namespaced and namespace is None:
        raise statuses.no_such_path()
    if subresource and kind.subresource(subresource) is None:
        raise statuses.no_such_path()
    if len(rest) > 3 and subresource != "proxy":
        raise statuses.no_such_path()
    return Target(kind, namespace, name, subresource, rest[3:], watching)
