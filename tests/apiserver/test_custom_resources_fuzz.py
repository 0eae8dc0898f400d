"""Any schema and any object: a typed refusal or a stored object, never an unexpected error, in bounded time."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.apiserver.customresources.accept import check_schema
from atoll.apiserver.customresources.cel_rules import RuleRunner
from atoll.apiserver.customresources.check import ABSENT, check
from atoll.apiserver.customresources.definition import kinds_of
from atoll.apiserver.customresources.nodes import compile_schema
from atoll.apiserver.customresources.structure import typed_schema
from atoll.apiserver.kinds import rules_for
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.machinery import tables
from atoll.apiserver.machinery.kind import GroupVersionKind, KindRegistry
from atoll.apiserver.machinery.openapi import OpenApi
from atoll.apiserver.machinery.schemas import BuiltinSchema
from atoll.errors import StatusError

QUICK = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
NAMES = st.sampled_from(["a", "b", "spec", "metadata", "kind", "apiVersion", "name", "status", "x.y", "in", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)
PATTERNS = st.sampled_from(["^a", "[", "(a+)+$", "(?=x)", "a{1000}", "\\d"]) | st.text(max_size=6)
RULES = st.sampled_from(
    [
        "self == oldSelf",
        "has(self.a)",
        "self.a > 1",
        "self.all(x, x)",
        "self.b.exists(k, k == 'a')",
        "size(self) < 3",
        "self.matches('(')",
        "1",
    ]
) | st.text(max_size=12)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "", "null"])


def schemas():
    leaf = st.fixed_dictionaries({"type": TYPES}, optional={"default": VALUES, "enum": st.lists(SCALARS, max_size=3)})

    def grow(inner):
        return st.fixed_dictionaries(
            {"type": TYPES},
            optional={
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "items": inner | VALUES,
                "additionalProperties": inner | st.booleans(),
                "required": st.lists(NAMES, max_size=2),
                "nullable": st.booleans(),
                "default": VALUES,
                "pattern": PATTERNS,
                "minimum": st.integers(-5, 5),
                "maximum": st.floats(allow_nan=False, allow_infinity=False),
                "multipleOf": st.integers(-1, 3),
                "maxLength": st.integers(-1, 5),
                "maxItems": st.integers(0, 5),
                "format": st.sampled_from(["date-time", "byte", "ipv4", "int32", "duration", "odd"]),
                "anyOf": st.lists(inner, max_size=2),
                "oneOf": st.lists(inner, max_size=2),
                "not": inner,
                "x-kubernetes-int-or-string": st.booleans(),
                "x-kubernetes-preserve-unknown-fields": st.booleans(),
                "x-kubernetes-embedded-resource": st.booleans(),
                "x-kubernetes-list-type": st.sampled_from(["map", "set", "atomic", "odd"]),
                "x-kubernetes-list-map-keys": st.lists(NAMES, max_size=2),
                "x-kubernetes-validations": st.lists(
                    st.fixed_dictionaries({"rule": RULES}, optional={"optionalOldSelf": st.booleans(), "messageExpression": RULES}),
                    max_size=2,
                ),
            },
        )

    return st.recursive(leaf, grow, max_leaves=8)


def _accepted(raw):
    causes = Causes()
    check_schema(raw, "s", causes)
    return not causes


def _definition(raw):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": raw}}
    names = {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"}
    return {"spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}}


@QUICK
@given(schemas(), VALUES, VALUES)
def test_any_schema_judges_any_value(raw, value, old):
    started = time.monotonic()
    if not _accepted(raw):
        # Most are refused; one that is not meant to be structural must still be read without a fault.
        raw = typed_schema({"type": "object", "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}}, "s", Causes())
    node = compile_schema(raw)
    causes = Causes()
    check(node, value, "", causes)
    if not causes:
        RuleRunner(node).run(value, causes, ABSENT)
        RuleRunner(node).run(value, causes, old)
    assert time.monotonic() - started < 1


STRUCTURAL = st.recursive(
    st.sampled_from(
        [
            {"type": "string", "maxLength": 5, "default": "a"},
            {"type": "integer", "minimum": 0, "default": 1},
            {"type": "number"},
            {"type": "boolean", "nullable": True},
            {"x-kubernetes-int-or-string": True},
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": "^[a-z]*$"},
            {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        ]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "in"]), inner, max_size=3).map(lambda found: {"type": "object", "properties": found}),
        inner.map(lambda found: {"type": "object", "additionalProperties": found}),
        inner.map(lambda found: {"type": "array", "items": found}),
    ),
    max_leaves=6,
)


@QUICK
@given(STRUCTURAL, VALUES, VALUES)
def test_any_object_of_a_good_schema_is_stored_or_refused(inner, value, changed):
    raw = {"type": "object", "properties": {"spec": inner, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    assert _accepted(raw)
    kind = kinds_of(_definition(raw), lambda: False)[0]
    rules = rules_for(kind)

    def made(spec):
        outcome = kind.schema.validate({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {"name": "a"}, "spec": spec})
        obj = outcome.object
        rules.default(obj)
        rules.default(obj)
        rules.prepare_for_create(kind, obj)
        return obj

    obj = made(value)
    if not rules.validate(kind, obj):
        again = kind.schema.validate(obj)
        assert again.object == obj
        assert again.unknown == ()
        new = made(changed)
        rules.prepare_for_update(kind, new, obj)
        rules.validate_update(kind, new, obj)
        tables.cells(kind, obj, 0.0)
        kind.schema.patch_meta(("spec", "a", "*"))


@QUICK
@given(schemas())
def test_any_definition_is_answered(raw):
    definition = _definition(raw)
    definition.update(kind="CustomResourceDefinition", apiVersion="apiextensions.k8s.io/v1", metadata={"name": "things.example.com"})
    outcome = BuiltinSchema("apiextensions.k8s.io", "v1", "CustomResourceDefinition").validate(definition)
    if outcome.error:
        return
    registry = KindRegistry.builtin()
    kind = registry.by_gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert kind is not None
    rules = rules_for(kind)
    rules.default(outcome.object)
    try:
        causes = rules.validate(kind, outcome.object)
    except StatusError as error:
        assert error.code < 500  # noqa: PT017 (what it says is what is tested)
        return
    if not causes:
        for each in kinds_of(outcome.object, lambda: False)[1]:
            registry.add(each)
        document = OpenApi(registry).document("apis/example.com/v1")
        assert document is not None
        assert GroupVersionKind("example.com", "v1", "Thing").kind in document.body.decode()
