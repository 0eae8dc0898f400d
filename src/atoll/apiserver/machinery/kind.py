"""What a resource is: one `Kind` value for each, built-in or from a custom resource definition alike.

Every mechanism of the API server (routing, discovery, tables, patches, selectors, storage) reads these values and nothing else about a
resource, so each mechanism is written once. What cannot be said in data (defaults, rules between fields) is a `Rules` object of
`atoll.apiserver.kinds`, found by group and kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class GroupVersionKind(NamedTuple):
    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Cause(NamedTuple):
    """One entry of `Status.details.causes`: what is wrong with one field. `reason` is a CauseType such as FieldValueRequired."""

    reason: str
    message: str
    field: str


Shape = Literal["struct", "map", "list", "scalar", "any"]


class ListMeta(NamedTuple):
    """How patches treat the value at a path: the x-kubernetes-* extensions there. Everything is empty where the schema says nothing.

    `shape` tells what the value is, so that a patch never has to guess from the data; an unknown path is "any".
    """

    shape: Shape = "any"
    patch_strategy: tuple[str, ...] = ()
    merge_key: str = ""
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""


class Outcome(NamedTuple):
    """What the schema says of an object.

    `error`: it cannot be decoded at all (400 BadRequest, the words of Go's decoder); the rest is then empty.
    `object`: the pruned object, with no unknown field, no null, no empty list or map where upstream's encoder omits
    them. The same object as came in when there was nothing to prune; never changed in place.
    `unknown`: the strict decoder's complaints, such as 'unknown field "spec.foo"'.
    """

    object: dict[str, Any]
    error: str = ""
    unknown: tuple[str, ...] = ()


class Converter(Protocol):
    """Turns custom resources from one version into another where that is done outside."""

    async def convert(self, objects: Sequence[dict[str, Any]], api_version: str) -> list[dict[str, Any]]: ...


class Schema(Protocol):
    """The types of an object's fields. Built-in kinds and custom resources each have an implementation."""

    def validate(self, obj: dict[str, Any]) -> Outcome:
        """Decodes and prunes, before defaults are applied."""
        ...

    def missing(self, obj: Mapping[str, Any]) -> list[Cause]:
        """Required fields still absent after defaults, outside of metadata and status; `Rules.validate` asks, no one else need."""
        ...

    def patch_meta(self, path: tuple[str, ...]) -> ListMeta:
        """What stands at a field path. List items and map values are stepped into with "*": ("spec", "containers", "*", "ports")."""
        ...

    def restored(self, obj: dict[str, Any]) -> dict[str, Any]:
        """A stored object as it is read now: the same one, unless the schema has come to other defaults or fields since it was written."""
        ...

    def publish(self, reference: Callable[[str], dict[str, Any]]) -> dict[GroupVersionKind, tuple[str, dict[str, Any]]]:
        """Types OpenAPI has to carry beside the built-in ones, with their full names. `reference` gives a {"$ref": ...} to one of those."""
        ...


@dataclass(frozen=True, slots=True)
class Subresource:
    """`gvk` is the type of the body: for status the resource's own, for scale autoscaling/v1 Scale. `older` are API versions of it that
    are no longer served, but still taken here.
    """

    name: str
    gvk: GroupVersionKind
    verbs: tuple[str, ...]
    older: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a Table. `priority` 0 is always shown, 1 only with -o wide. `path` is a JSONPath, used by custom resources only."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    schema: Schema
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = STANDARD_VERBS
    subresources: tuple[Subresource, ...] = ()
    singular: str = ""
    list_kind: str = ""
    columns: tuple[Column, ...] = ()  # of a custom resource; the built-in kinds have printers in `tables`
    storage_group_version: str = ""  # api version under which objects of this kind are stored when it is not this one
    builtin: bool = True
    deprecation: str = ""  # a warning for whoever uses this version
    digest: str = ""  # of a custom resource's schema: OpenAPI's documents change with it
    converter: Converter | None = field(default=None, compare=False)  # else versions differ in their schema alone
    prefix: str = field(init=False, compare=False, default="")  # of its keys in the store: /registry/<group, or core>/<plural>/

    def __post_init__(self) -> None:
        group = self.storage_group_version.rpartition("/")[0] if self.storage_group_version else self.group
        object.__setattr__(self, "prefix", f"/registry/{group or 'core'}/{self.plural}/")

    @property
    def gvk(self) -> GroupVersionKind:
        return GroupVersionKind(self.group, self.version, self.kind)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The qualified resource as messages write it: pods, deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)

    @property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)


class KindRegistry:
    """The kinds served, in the order in which discovery lists them. Custom resources come and go by `add` and `remove`."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_gvk: dict[GroupVersionKind, Kind] = {}
        self._unserved: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    @classmethod
    def builtin(cls) -> KindRegistry:
        from atoll.apiserver.machinery.builtin import builtin_kinds

        return cls(builtin_kinds())

    def add(self, kind: Kind) -> None:
        """Adds the kind or replaces the one with the same group, version and plural."""
        self.remove(kind.group, kind.version, kind.plural)
        self._by_resource[kind.group, kind.version, kind.plural] = kind
        self._by_gvk[kind.gvk] = kind

    def add_unserved(self, kind: Kind) -> None:
        """A version that nobody may ask for, and that objects of the others are stored as."""
        self.remove(kind.group, kind.version, kind.plural)
        self._unserved[kind.group, kind.version, kind.plural] = kind

    def remove(self, group: str, version: str, plural: str) -> Kind | None:
        self._unserved.pop((group, version, plural), None)
        kind = self._by_resource.pop((group, version, plural), None)
        if kind:
            self._by_gvk.pop(kind.gvk, None)
        return kind

    def get(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_resource.get((group, version, plural))

    def stored_as(self, kind: Kind) -> Kind | None:
        """What the objects of `kind` are stored as: itself, for most. None where it has just gone."""
        if not kind.storage_group_version:
            return kind
        group, _, version = kind.storage_group_version.rpartition("/")
        return self.get(group, version, kind.plural) or self._unserved.get((group, version, kind.plural))

    def by_gvk(self, group: str, version: str, kind: str) -> Kind | None:
        return self._by_gvk.get(GroupVersionKind(group, version, kind))

    def by_api_version(self, api_version: str, kind: str) -> Kind | None:
        """By the two fields every object carries: ("apps/v1", "Deployment")."""
        group, _, version = api_version.rpartition("/")
        return self._by_gvk.get(GroupVersionKind(group, version, kind))

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_resource.values())

    def __len__(self) -> int:
        return len(self._by_resource)

    def groups(self) -> dict[str, dict[str, list[Kind]]]:
        """Group → version → kinds; the core group is "" and comes first; the first version of a group is the preferred one.

        Groups of custom resources alone follow by name, their versions from the most mature on.
        """
        groups: dict[str, dict[str, list[Kind]]] = {}
        custom: dict[str, dict[str, list[Kind]]] = {}
        for kind in self._by_resource.values():
            chosen = groups if kind.builtin or kind.group in groups else custom
            chosen.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
        for group, versions in sorted(custom.items()):
            ordered = sorted(versions, key=maturity)
            groups[group] = {version: sorted(versions[version], key=lambda kind: kind.plural) for version in ordered}
        return groups


_VERSION = re.compile("v([1-9][0-9]{0,17})(?:(alpha|beta)([1-9][0-9]{0,17}))?")


def maturity(version: str) -> tuple[int, int, int, str]:
    """A key by which versions sort as clients prefer them: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name."""
    match = _VERSION.fullmatch(version)
    if not match:
        return 3, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return stage, -int(match[1]), -int(match[3] or 0), version
