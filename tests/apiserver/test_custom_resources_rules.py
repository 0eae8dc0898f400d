"""CEL rules of custom resources: what they may say, cost and see, and how their refusals read."""

from __future__ import annotations

import pytest

from atoll.apiserver.customresources.accept import check_schema
from atoll.apiserver.customresources.cel_rules import RuleRunner
from atoll.apiserver.customresources.check import ABSENT
from atoll.apiserver.customresources.nodes import compile_schema
from atoll.apiserver.kinds.causes import Causes

FIELDS = {
    "a": {"type": "integer"},
    "b": {"type": "integer"},
    "name": {"type": "string", "maxLength": 20},
    "namespace": {"type": "string", "maxLength": 20},
    "dash-ed": {"type": "boolean"},
    "ratio": {"type": "number"},
    "list": {"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 20}},
    "numbers": {"type": "array", "maxItems": 20, "items": {"type": "integer"}},
    "map": {"type": "object", "maxProperties": 20, "additionalProperties": {"type": "string", "maxLength": 20}},
    "either": {"x-kubernetes-int-or-string": True},
    "at": {"type": "string", "format": "date-time"},
    "parts": {
        "type": "array",
        "maxItems": 20,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 20}, "size": {"type": "integer"}},
        },
    },
}


def schema(*rules, fields=None, **more):
    spec = {"type": "object", "properties": fields or FIELDS, "x-kubernetes-validations": list(rules), **more}
    return {"type": "object", "properties": {"spec": spec}}


def accepted(raw):
    """The messages with which a definition of this schema is refused."""
    causes = Causes()
    check_schema(raw, "schema", causes)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def judged(rule, spec, old=None, **more):
    """The messages with which a rule refuses an object."""
    entry = {"rule": rule, **more}
    raw = schema(entry)
    assert accepted(raw) == []
    causes = Causes()
    RuleRunner(compile_schema(raw)).run({"spec": spec}, causes, ABSENT if old is None else {"spec": old})
    return [f"{cause.field}: {cause.message}" for cause in causes]


TRUE = [
    ("self.a > self.b", {"a": 2, "b": 1}),
    ("!has(self.a) || self.a == 1", {}),
    ("self.__namespace__ == 'x'", {"namespace": "x"}),
    ("self.dash__dash__ed", None),
    ("self.list.all(x, x.startsWith('a'))", {"list": ["ab", "ac"]}),
    ("self.list.exists_one(x, x == 'a')", {"list": ["a", "b"]}),
    ("self.map.all(k, self.map[k] != '')", {"map": {"x": "y"}}),
    ("self.map.x == 'y'", {"map": {"x": "y"}}),
    ("self.ratio == 2.0 && self.ratio / 4.0 == 0.5", {"ratio": 2}),
    ("type(self.either) == string ? self.either == 'http' : self.either < 10", {"either": 3}),
    ("self.parts.map(p, p.size).sum() == 5", {"parts": [{"name": "a", "size": 2}, {"name": "b", "size": 3}]}),
    ("self.numbers.isSorted() && self.numbers.max() == 3 && self.numbers.min() == 1", {"numbers": [1, 2, 3]}),
    ("self.numbers.all(i, v, v == i)", {"numbers": [0, 1]}),
    ("sets.contains(self.list, ['a'])", {"list": ["b", "a"]}),
    ("self.name.matches('^[a-z]+$') && self.name.find('[x-z]+') == 'xy'", {"name": "abxy"}),
    ("self.name.findAll('[0-9]') == ['1', '2'] && self.name.findAll('([0-9])', 1) == ['1']", {"name": "a1b2"}),
    ("self.?name.orValue('none') == 'none'", {}),
    ("quantity(self.name).isGreaterThan(quantity('500Mi')) && quantity('1').add(2).asInteger() == 3", {"name": "1Gi"}),
    ("isQuantity(self.name) == false", {"name": "x"}),
    ("url(self.name).getHost() == 'a.b:80' && url(self.name).getPort() == '80' && isURL('x') == false", {"name": "http://a.b:80/c"}),
    ("cidr('10.0.0.0/8').containsIP(self.name) && ip(self.name).family() == 4 && !isIP('x')", {"name": "10.1.2.3"}),
    ("cidr('10.0.0.0/8').ip() == ip('10.0.0.0')", {}),
    ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').prefixLength() == 8", {}),
    ("duration('1h') > duration('30m') && timestamp(self.at) > timestamp('2020-01-01T00:00:00Z')", {"at": "2024-01-01T00:00:00Z"}),
    ("self.name.split(',').size() == 2 && ['a', 'b'].join('-') == 'a-b'", {"name": "x,y"}),
]


@pytest.mark.parametrize(("rule", "spec"), [case for case in TRUE if case[1] is not None])
def test_what_rules_can_say(rule, spec):
    assert judged(rule, spec) == []


def test_refusals_read_as_upstreams():
    assert judged("self.a > self.b", {"a": 1, "b": 2}) == ['spec: Invalid value: "object": failed rule: self.a > self.b']
    assert judged("self.a > 1", {"a": 1}, message="a must be more") == ['spec: Invalid value: "object": a must be more']
    made = judged("self.a > 1", {"a": 1}, messageExpression="'a is ' + string(self.a)", message="unused")
    assert made == ['spec: Invalid value: "object": a is 1']
    assert judged("self.a > 1", {"a": 1}, reason="FieldValueForbidden", fieldPath=".a") == ["spec.a: Forbidden: failed rule: self.a > 1"]
    assert judged("self.a > 1", {"a": 1}, reason="FieldValueRequired") == ["spec: Required value: failed rule: self.a > 1"]
    assert judged("self.a > 1", {}) == ['spec: Invalid value: "object": no such key: a evaluating rule: failed rule: self.a > 1']
    assert "divide by zero" in judged("1 / self.a == 1", {"a": 0})[0]


def test_refusals_of_scalars_show_the_value():
    raw = schema(
        fields={"kind": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}]}}
    )
    del raw["properties"]["spec"]["x-kubernetes-validations"]
    causes = Causes()
    RuleRunner(compile_schema(raw)).run({"spec": {"kind": "b"}}, causes, {"spec": {"kind": "a"}})
    assert [tuple(cause) for cause in causes] == [("FieldValueInvalid", 'Invalid value: "b": Value is immutable', "spec.kind")]


def test_rules_as_published_definitions_have_them():
    text = {"type": "string"}
    toleration = {"type": "object", "properties": dict.fromkeys(("effect", "key", "operator", "value"), text)}
    toleration["properties"]["tolerationSeconds"] = {"type": "integer", "format": "int64"}
    fields = {
        "nodeLabels": {"type": "object", "maxProperties": 8, "additionalProperties": text, "x-kubernetes-map-type": "atomic"},
        "tolerations": {
            "type": "array",
            "maxItems": 8,
            "items": toleration,
            "x-kubernetes-validations": [
                {"rule": "self.all(x, !has(x.key) ? x.operator == 'Exists' : true)"},
                {"rule": "self.all(x, has(x.tolerationSeconds) ? x.effect == 'NoExecute' : true)"},
                {
                    "rule": "self.all(x, !has(x.effect) || x.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])",
                    "message": "effects",
                },
            ],
        },
        "topologyName": {"type": "string", "maxLength": 253},
    }
    rules = [
        {"rule": "!has(self.topologyName) || self.nodeLabels.size() >= 1"},
        {"rule": "!has(oldSelf.topologyName) || self == oldSelf", "message": "immutable"},
    ]
    raw = schema(*rules, fields=fields)
    assert accepted(raw) == []
    causes = Causes()
    spec = {"topologyName": "t", "nodeLabels": {"a": "b"}, "tolerations": [{"key": "k", "effect": "Never"}]}
    RuleRunner(compile_schema(raw)).run({"spec": spec}, causes, {"spec": {**spec, "topologyName": "u"}})
    assert [f"{cause.field}: {cause.message}" for cause in causes] == ['spec: Invalid value: "object": immutable']
    causes = Causes()
    RuleRunner(compile_schema(raw)).run({"spec": spec}, causes)
    assert [f"{cause.field}: {cause.message}" for cause in causes] == ['spec.tolerations: Invalid value: "array": effects']


def test_transition_rules():
    rule = "self.a >= oldSelf.a"
    assert judged(rule, {"a": 1}) == []
    assert judged(rule, {"a": 2}, {"a": 1}) == []
    assert judged(rule, {"a": 1}, {"a": 2}) == ['spec: Invalid value: "object": failed rule: self.a >= oldSelf.a']
    optional = "oldSelf.hasValue() ? self.a == oldSelf.value().a : self.a == 1"
    assert judged(optional, {"a": 1}, optionalOldSelf=True) == []
    assert len(judged(optional, {"a": 2}, optionalOldSelf=True)) == 1
    assert judged(optional, {"a": 2}, {"a": 2, "b": 1}, optionalOldSelf=True) == []


def test_items_of_list_maps_meet_their_old_selves():
    item = {**FIELDS["parts"]["items"], "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "may not shrink"}]}
    raw = schema(fields={"parts": {**FIELDS["parts"], "items": item}})
    raw["properties"]["spec"].pop("x-kubernetes-validations")
    assert accepted(raw) == []
    causes = Causes()
    new = {"spec": {"parts": [{"name": "b", "size": 1}, {"name": "a", "size": 1}]}}
    old = {"spec": {"parts": [{"name": "a", "size": 2}]}}
    RuleRunner(compile_schema(raw)).run(new, causes, old)
    assert [cause.field for cause in causes] == ["spec.parts[1]"]


REFUSED = [
    ("self.a >", "compilation failed: ERROR: <input>:1:9: Syntax error"),
    ("self.nothing == 1", "compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing == 1\n | ....^"),
    ("self.parts.all(p, p.weight > 1)", "undefined field 'weight'"),
    ("nobody == 1", "undeclared reference to 'nobody'"),
    ("self.list == 'x'", None),
    ("'yes'", "must evaluate to a bool"),
    ("self.at > timestamp('2020-01-01T00:00:00Z')", "must be wrapped in timestamp(...)"),
    ("1 == 'a'", "found no matching overload for '_==_'"),
    ("(" * 100 + "true" + ")" * 100, "recursion"),
    ("", "rule is not specified"),
]


@pytest.mark.parametrize(("rule", "told"), [case for case in REFUSED if case[1] is not None])
def test_rules_that_are_refused(rule, told):
    problems = accepted(schema({"rule": rule}))
    assert len(problems) == 1
    assert problems[0].startswith("schema.properties[spec].x-kubernetes-validations[0].rule: ")
    assert told in problems[0]


def test_types_are_checked_where_the_schema_has_them():
    fields = {"list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}, "x-kubernetes-validations": []}}
    fields["list"]["x-kubernetes-validations"] = [{"rule": "self.all(x, x > 3)"}]
    raw = schema(fields=fields)
    del raw["properties"]["spec"]["x-kubernetes-validations"]
    assert "found no matching overload for '_>_' applied to '(string, int)'" in accepted(raw)[0]


def test_cost_is_bounded_before_any_object_comes():
    unbounded = {"list": {"type": "array", "items": {"type": "string"}}}
    rule = {"rule": "self.list.all(x, self.list.all(y, x != y))"}
    problems = accepted(schema(rule, fields=unbounded))
    assert len(problems) == 2
    assert "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems" in problems[0]
    assert "for entire OpenAPIv3 schema" in problems[1]
    bounded = {"list": {"type": "array", "maxItems": 50, "items": {"type": "string", "maxLength": 50}}}
    assert accepted(schema(rule, fields=bounded)) == []


def test_patterns_take_linear_time_and_go_syntax():
    raw = schema(fields={"name": {"type": "string", "pattern": "(a+)+$"}})
    del raw["properties"]["spec"]["x-kubernetes-validations"]
    assert accepted(raw) == []
    raw["properties"]["spec"]["properties"]["name"]["pattern"] = "(?=a)"
    assert "must be a valid regular expression, but isn't: invalid perl operator: (?=" in accepted(raw)[0]
