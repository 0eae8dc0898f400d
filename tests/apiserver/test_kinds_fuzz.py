"""Whatever the schema lets through, the rules of every kind answer with causes and never with a traceback."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from kinds_samples import REGISTRY

from atoll.apiserver.kinds import rules_for
from atoll.apiserver.machinery import tables
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.schema_types import List, Map, Node, Struct

ROUNDS = 25
SCALARS: dict[str, list[Any]] = {
    "string": [
        "",
        "a",
        "A b",
        "x" * 300,
        "-",
        "..",
        "Always",
        "None",
        "ClusterIP",
        "NodePort",
        "Indexed",
        "10.0.0.1",
        "*/5 * * * *",
        "a/b/c",
    ],
    "bool": [True, False],
    "int32": [0, 1, -1, 80, 70000],
    "int64": [0, 1, -1, 2**40],
    "float64": [0, 1.5],
    "[]uint8": ["", "aGk="],
    "resource.Quantity": ["0", "1", "-1", "1Gi", "500m"],
    "intstr.IntOrString": [0, -1, "http", "25%", "101%", ""],
    "v1.Time": ["2026-01-01T00:00:00Z"],
    "v1.MicroTime": ["2026-01-01T00:00:00.000000Z"],
}


def value(node: Node, rng: random.Random, depth: int) -> Any:
    if isinstance(node, Struct):
        chance = 0.6 if depth < 4 else 0.15
        return {name: value(field, rng, depth + 1) for name, field in node.fields.items() if rng.random() < chance and depth < 9}
    if isinstance(node, List):
        return [value(node.item, rng, depth + 1) for _ in range(rng.randint(0, 2))]
    if isinstance(node, Map):
        return {rng.choice(["cpu", "memory", "storage", "a b", "x/y"]): value(node.value, rng, depth + 1) for _ in range(rng.randint(0, 2))}
    return rng.choice(SCALARS.get(node.go_type, [{}]))


def some(kind: Kind, rng: random.Random) -> dict[str, Any]:
    obj = value(kind.schema.type, rng, 0)  # type: ignore[attr-defined]
    metadata = obj.get("metadata") or {}
    metadata |= {"name": rng.choice(["x", "Bad Name"]), "uid": "u"} | ({"namespace": "d"} if kind.namespaced else {})
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


KINDS = [kind for kind in REGISTRY if "update" in kind.verbs and not kind.storage_group_version]  # rules are of the stored version


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.resource}.{kind.version}")
def test_rules_and_rows_stand_anything_the_schema_accepts(kind: Kind) -> None:
    rng = random.Random(kind.resource)
    rules = rules_for(kind)
    for _ in range(ROUNDS):
        outcome = kind.schema.validate(some(kind, rng))
        assert (outcome.error, outcome.unknown) == ("", ())
        new = outcome.object
        rules.default(new)
        rules.prepare_for_create(kind, new)
        rules.default(new)
        for cause in rules.validate(kind, new):
            assert cause.reason.startswith("FieldValue")
        again = kind.schema.validate(new)
        assert (again.error, again.unknown) == ("", ())
        tables.cells(kind, new, 0)
        assert all(isinstance(field, str) for field in rules.selectable_fields(new).values())
        for subresource in ("", *(sub.name for sub in kind.subresources if "update" in sub.verbs)):
            other = kind.schema.validate(some(kind, rng)).object
            rules.default(other)
            rules.prepare_for_update(kind, other, copy.deepcopy(new), subresource)
            rules.default(other)
            rules.validate_update(kind, other, new, subresource)
