"""Definitions that are refused, in upstream's words, and formats and junctors as schemas use them."""

from __future__ import annotations

import pytest

from atoll.apiserver.customresources.accept import check_schema, check_versions
from atoll.apiserver.customresources.check import check
from atoll.apiserver.customresources.defaults import fill_defaults
from atoll.apiserver.customresources.formats import format_check
from atoll.apiserver.customresources.nodes import compile_schema
from atoll.apiserver.customresources.prune import prune
from atoll.apiserver.kinds.causes import Causes

OBJECT = {"type": "object"}
STRING = {"type": "string"}


def of(field, **more):
    return {"type": "object", "properties": {"x": field}, **more}


X = "s.properties[x]"
WRONG = [
    ({}, "s.type: Required value: must not be empty at the root"),
    ({"type": "array", "items": STRING}, 's.type: Invalid value: "array": must be object at the root'),
    (of({}), f"{X}.type: Required value: must not be empty for specified object fields"),
    (of({"type": "array"}), f"{X}.items: Required value: must be specified"),
    (of({"type": "array", "items": {}}), f"{X}.items.type: Required value: must not be empty for specified array items"),
    (of({"type": "array", "items": [STRING]}), f"{X}.items: Forbidden: items must be a schema object and not an array"),
    (of({"type": "array", "items": {"properties": 3}}), f'{X}.items: Invalid value: "": json: cannot unmarshal number'),
    (of({"type": "text"}), f'{X}.type: Unsupported value: "text": supported values: "array"'),
    ({**OBJECT, "additionalProperties": STRING}, "s.additionalProperties: Forbidden: must not be used at the root"),
    (
        of({**OBJECT, "additionalProperties": STRING, "properties": {"y": STRING}}),
        f"{X}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
    ),
    (of({**OBJECT, "additionalProperties": False}), f"{X}.additionalProperties: Forbidden: cannot be set to false"),
    (of({"type": "array", "items": STRING, "uniqueItems": True}), f"{X}.uniqueItems: Forbidden: uniqueItems cannot be set to true"),
    (of({"$ref": "#/a", "type": "string"}), f"{X}.$ref: Forbidden: $ref is not supported"),
    (of({**STRING, "anyOf": [{"type": "string"}]}), f"{X}.anyOf[0].type: Forbidden: must be empty to be structural"),
    (of({**STRING, "not": {"default": "a"}}), f"{X}.not.default: Forbidden: must be undefined to be structural"),
    (
        of({**OBJECT, "oneOf": [{"properties": {"y": {"minimum": 1}}}]}),
        f"{X}.properties[y]: Required value: because it is defined in {X}.oneOf[0].properties[y]",
    ),
    (of({"type": "array", "items": STRING, "x-kubernetes-list-type": "map"}), f"{X}.x-kubernetes-list-map-keys: Required value"),
    (
        of({"type": "array", "items": of(STRING), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["x"]}),
        f"{X}.items.properties[x].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default",
    ),
    (of({**STRING, "x-kubernetes-list-type": "set"}), f'{X}.type: Invalid value: "string": must be array if x-kubernetes-list-type'),
    (of({**STRING, "x-kubernetes-int-or-string": True}), f"{X}.type: Forbidden: must be empty if x-kubernetes-int-or-string is true"),
    (of({**STRING, "default": 3}), f'{X}.default: Invalid value: "integer": {X}.default in body must be of type string: "integer"'),
    (of({**of(STRING), "default": {"y": "z"}}), f'{X}.default: Invalid value: {{"y":"z"}}: must not have unknown fields'),
    (of({**STRING, "pattern": "["}), f'{X}.pattern: Invalid value: "[": must be a valid regular expression, but isn\'t: missing ]'),
    (of({**STRING, "x-kubernetes-embedded-resource": True}), f'{X}.type: Invalid value: "string": must be object if'),
    (
        {**OBJECT, "properties": {"metadata": {**OBJECT, "properties": {"labels": OBJECT}}}},
        "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName",
    ),
]


@pytest.mark.parametrize(("raw", "told"), WRONG, ids=range(len(WRONG)))
def test_schemas_that_are_not_structural(raw, told):
    causes = Causes()
    check_schema(raw, "s", causes)
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    assert any(line.startswith(told) for line in lines), lines


def test_integer_or_string_as_written_by_generators():
    causes = Causes()
    either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%?$"}
    check_schema(of(either), "s", causes)
    check_schema(of({"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": either["anyOf"]}]}), "s", causes)
    assert causes == []


def versions(**more):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": of(STRING)}, **more}
    causes = Causes()
    check_versions({"versions": [version]}, causes)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def test_columns_subresources_and_selectable_fields():
    good = {"name": "A", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}
    assert versions(additionalPrinterColumns=[good]) == []
    assert versions(additionalPrinterColumns=[{**good, "jsonPath": ".a[?(@.x > 3)]"}])[0].startswith(
        "spec.versions[0].additionalPrinterColumns[0].jsonPath"
    )
    assert "Unsupported value" in versions(additionalPrinterColumns=[{**good, "type": "text"}])[0]
    scale = {"specReplicasPath": ".status.replicas", "statusReplicasPath": ".status.replicas"}
    assert versions(subresources={"scale": scale}) == [
        'spec.versions[0].subresources.scale.specReplicasPath: Invalid value: ".status.replicas": should be a json path under .spec'
    ]
    assert versions(selectableFields=[{"jsonPath": ".x"}]) == []
    assert "does not refer to a valid field" in versions(selectableFields=[{"jsonPath": ".y"}])[0]
    assert "must not point to fields in metadata" in versions(selectableFields=[{"jsonPath": ".metadata.name"}])[0]
    assert versions(name="V1")[0].startswith('spec.versions[0].name: Invalid value: "V1"')
    assert "schemas are required" in versions(schema=None)[0]
    assert versions(schema={"openAPIV3Schema": {}})[0].startswith("spec.validation.openAPIV3Schema.type: Required value")


def told(raw, value):
    causes = Causes()
    check(compile_schema(raw), value, "x", causes)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def test_junctors():
    one = {**OBJECT, "properties": {"a": STRING, "b": STRING}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert told(one, {"a": ""}) == []
    assert 'x: Invalid value: "": "x" must validate one and only one schema (oneOf). Found none valid' in told(one, {})
    assert told(one, {"a": "", "b": ""})[0].endswith("(oneOf). Found 2 valid alternatives")
    assert '"x" must validate at least one schema (anyOf)' in told({**STRING, "anyOf": [{"minLength": 3}]}, "ab")[1]
    assert told({**STRING, "not": {"enum": ["a"]}}, "a") == ['x: Invalid value: "": "x" must not validate the schema (not)']
    assert "None validated" in told({**STRING, "allOf": [{"minLength": 3}]}, "ab")[1]


def test_numbers_nulls_and_sets():
    assert told({"type": "integer"}, 1.0) == []
    assert told({"type": "integer"}, True) == ['x: Invalid value: "boolean": x in body must be of type integer: "boolean"']
    assert told({"type": "number", "exclusiveMaximum": True, "maximum": 2}, 2) == ["x: Invalid value: 2: x in body should be less than 2"]
    assert told({"type": "number", "multipleOf": 0.5}, 1.25) == ["x: Invalid value: 1.25: x in body should be a multiple of 0.5"]
    assert told({**STRING, "nullable": True}, None) == []
    assert told(STRING, None) == ['x: Invalid value: "null": x in body must be of type string: "null"']
    assert told({"type": "array", "items": STRING, "x-kubernetes-list-type": "set"}, ["a", "a"]) == ['x[1]: Duplicate value: "a"']
    assert told({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"]) == ["x: Too many: 2: must have at most 1 item"]
    assert told({"type": "integer", "enum": [1, 2]}, 3) == ['x: Unsupported value: 3: supported values: "1", "2"']


FORMATS = [
    ("ipv4", "10.0.0.1", "10.0.0.256"),
    ("ipv6", "::1", "1.2.3.4"),
    ("cidr", "10.0.0.0/8", "10.0.0.0"),
    ("uuid", "6fa459ea-ee8a-3ca4-894e-db77e160355e", "6fa459ea"),
    ("date-time", "2024-02-29T10:00:00.5Z", "2023-02-29T10:00:00Z"),
    ("date", "2024-02-29", "2024-2-29"),
    ("duration", "1h30m", "1 hour"),
    ("byte", "aGk=", "?"),
    ("uri", "https://a.b/c", "a b"),
    ("hostname", "a-b.c", "-a"),
    ("email", "a@b.c", "a"),
    ("mac", "00:1b:63:84:45:e6", "00:1b:63"),
    ("int32", 1 << 30, 1 << 31),
]


@pytest.mark.parametrize(("name", "right", "wrong"), FORMATS, ids=[name for name, _, _ in FORMATS])
def test_formats(name, right, wrong):
    has_format = format_check(name)
    assert has_format is not None
    assert has_format(right)
    assert not has_format(wrong)
    assert format_check("unheard-of") is None


def test_embedded_resources_and_unknown_fields():
    raw = of({**OBJECT, "x-kubernetes-embedded-resource": True, "properties": {"spec": of(STRING)}})
    value = {"x": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "odd": 1}, "spec": {"x": "y", "z": 1}, "more": 2}, "y": 1}
    unknown: list[str] = []
    pruned = prune(compile_schema(raw), value, "", unknown)
    assert pruned == {"x": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"x": "y"}}}
    assert unknown == ['unknown field "x.metadata.odd"', 'unknown field "x.spec.z"', 'unknown field "x.more"', 'unknown field "y"']
    assert told(raw["properties"]["x"], {"kind": "Pod"}) == ["x.apiVersion: Required value: must not be empty"]


def test_defaults_go_in_where_nothing_is_and_where_null_may_not_be():
    inner = {**OBJECT, "default": {}, "properties": {"y": {"type": "integer", "default": 7}}}
    raw = {**OBJECT, "properties": {"x": inner, "m": {**OBJECT, "additionalProperties": inner}, "l": {"type": "array", "items": inner}}}
    node = compile_schema(raw)
    value = {"m": {"a": {}, "b": None}, "l": [{}, {"y": 1}]}
    fill_defaults(node, value)
    assert value == {"x": {"y": 7}, "m": {"a": {"y": 7}, "b": {"y": 7}}, "l": [{"y": 7}, {"y": 1}]}
    value["x"]["y"] = 8
    other: dict[str, object] = {}
    fill_defaults(node, other)
    assert other == {"x": {"y": 7}}
