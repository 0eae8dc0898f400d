"""What the garbage collector and the end of a namespace have to look after: every resource served, custom ones as they come and go."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.apiserver.machinery.discovery import Foreign
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.client.resources import EVENTS, Resource
from atoll.controllers.base import Aggregated

_NEEDED = frozenset({"delete", "list", "watch"})
_DELETED = frozenset({"delete", "list"})


def collected_resources(registry: KindRegistry) -> list[Resource]:
    """Each kind once, in its group's preferred version. Events stay out, as upstream: nothing owns them and they end by themselves."""
    found: dict[tuple[str, str], Resource] = {}
    for versions in registry.groups().values():
        for kinds in versions.values():
            for kind in kinds:
                resource = Resource(kind.group, kind.version, kind.plural, kind.namespaced, kind.kind)
                if set(kind.verbs) >= _NEEDED and not (kind.builtin and kind.plural == EVENTS.plural):
                    found.setdefault((kind.group, kind.plural), resource)
    return list(found.values())


def aggregated_resources(foreign: Iterable[Foreign]) -> Aggregated:
    """Those in namespaces that can be listed and deleted, each in the version heard of first."""
    found: dict[tuple[str, str], Resource] = {}
    silent = []
    for each in foreign:
        if not each.is_fresh:
            silent.append(f"{each.group}/{each.version}")
            continue
        for row in each.resources:
            if row.get("scope") == "Namespaced" and set(row.get("verbs") or ()) >= _DELETED:
                kind = str((row.get("responseKind") or {}).get("kind") or "")
                found.setdefault((each.group, row["resource"]), Resource(each.group, each.version, row["resource"], True, kind))
    return Aggregated(tuple(found.values()), tuple(silent))
