"""What the garbage collector and the end of a namespace have to look after: every resource served, custom ones as they come and go."""

from __future__ import annotations

from atoll.apiserver.machinery.kind import KindRegistry
from atoll.client.resources import EVENTS, Resource

_NEEDED = frozenset({"delete", "list", "watch"})


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
