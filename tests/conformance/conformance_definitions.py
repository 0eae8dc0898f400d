"""CustomResourceDefinitions as the tests make them, each in a group of its own."""

from __future__ import annotations

from itertools import count

from atoll.client.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource

NUMBERS = count(1)
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class Definitions:
    """Makes definitions and takes them away again."""

    def __init__(self, api) -> None:
        self.door = api.at(CUSTOM_RESOURCE_DEFINITIONS)
        self._made = []

    def group(self):
        return f"g{next(NUMBERS)}.example.com"

    def body(self, group, kind, versions, *, scope="Namespaced", names=None, **spec):
        """`versions` maps a name to what its entry has beside served and storage; the first is stored."""
        plural = f"{kind.lower()}s"
        entries = []
        for name, fields in versions.items():
            entry = {"name": name, "served": True, "storage": not entries, "schema": {"openAPIV3Schema": ANYTHING}, **fields}
            entries.append(entry)
        described = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List", **(names or {})}
        return self.door.make(f"{plural}.{group}", spec={"group": group, "scope": scope, "names": described, "versions": entries, **spec})

    def new(self, kind="Foo", versions=("v1",), *, group=None, **options):
        """The resources served, one a version, once the definition is established."""
        group = group or self.group()
        if not isinstance(versions, dict):
            versions = {name: {} for name in versions}
        body = self.door.create(self.body(group, kind, versions, **options))
        self.established(body["metadata"]["name"])
        namespaced = body["spec"]["scope"] == "Namespaced"
        return [Resource(group, name, body["spec"]["names"]["plural"], namespaced, kind) for name in versions]

    def established(self, name):
        self._made.append(name)
        return self.door.until(name, is_established)

    def close(self):
        for name in self._made:
            if not self.door.gone(name):
                self.door.delete(name)
                self.door.until_gone(name)  # another test may read all of discovery


def is_established(definition):
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def name_of_definition(resource):
    return f"{resource.plural}.{resource.group}"


def schema(**properties):
    """A version's entry whose spec has these properties."""
    spec = {"type": "object", "properties": properties}
    return {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}
