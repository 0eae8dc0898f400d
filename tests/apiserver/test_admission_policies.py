"""Admission policies in CEL: what they deny, warn of, note and change; where their bindings let them; and what no policy may say."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from apiserver_tools import Pki

from atoll.apiserver import InProcessClient
from atoll.apiserver.admission.policies.language import Language
from atoll.apiserver.admission.policies.source import bind_variables, literals_to_maps
from atoll.apiserver.call import Call, User
from atoll.apiserver.customresources.cel import CelError
from atoll.apiserver.server import ApiServer
from atoll.client.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, Resource
from atoll.errors import StatusError

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(GROUP, "v1", "validatingadmissionpolicies", False, "ValidatingAdmissionPolicy")
BINDINGS = Resource(GROUP, "v1", "validatingadmissionpolicybindings", False, "ValidatingAdmissionPolicyBinding")
MUTATIONS = Resource(GROUP, "v1", "mutatingadmissionpolicies", False, "MutatingAdmissionPolicy")
MUTATION_BINDINGS = Resource(GROUP, "v1", "mutatingadmissionpolicybindings", False, "MutatingAdmissionPolicyBinding")
MAPS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}


def run(tmp_path, scenario):
    async def whole():
        server = ApiServer(Pki(tmp_path).config())
        await server.start()
        try:
            await scenario(InProcessClient(server), server)
        finally:
            await server.close()

    asyncio.run(whole())


def policy(name="p", rules=(MAPS,), **spec):
    return {"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": list(rules)}, **spec}}


def binding(name="p", actions=("Deny",), **spec):
    return {"metadata": {"name": f"{name}-binding"}, "spec": {"policyName": name, "validationActions": list(actions), **spec}}


def config(name="c", labels=None, **data):
    return {"metadata": {"name": name, **({"labels": labels} if labels else {})}, "data": data}


async def refused(what, code=422):
    with pytest.raises(StatusError) as told:
        await what
    assert told.value.code == code, told.value
    return told.value


async def add(client, policies, bindings, made, *bound):
    await client.create(policies, made)
    for one in bound:
        await client.create(bindings, one)


def test_denies_in_upstreams_words(tmp_path):
    async def scenario(client, server):
        rules = [
            {"expression": "object.data.size == 'small'"},
            {"expression": "!has(object.data.colour)", "messageExpression": "'not ' + object.data.colour", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'bad'", "message": "a bad name"},
        ]
        await add(client, POLICIES, BINDINGS, policy(validations=rules), binding())
        error = await refused(client.create(CONFIG_MAPS, config(size="big"), "default"))
        small = "failed expression: object.data.size == 'small'"
        denied = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: "
        assert error.message == f'configmaps "c" is forbidden: {denied}{small}'
        assert (error.reason, error.details["causes"]) == ("Invalid", [{"message": f"{denied}{small}"}])
        error = await refused(client.create(CONFIG_MAPS, config(size="small", colour="red"), "default"), 403)
        assert error.message.endswith(f"{denied}not red")
        error = await refused(client.create(CONFIG_MAPS, config("bad", size="small"), "default"))
        assert error.message.endswith("a bad name")
        error = await refused(client.create(CONFIG_MAPS, config(), "default"))
        assert error.message.endswith("expression 'object.data.size == 'small'' resulted in error: no such key: data")
        await client.create(CONFIG_MAPS, config(size="small"), "default")
        await refused(client.patch(CONFIG_MAPS, "c", {"data": {"size": "big"}}, "default"))
        await client.delete(POLICIES, "p")
        await client.patch(CONFIG_MAPS, "c", {"data": {"size": "big"}}, "default")

    run(tmp_path, scenario)


def test_warns_and_notes(tmp_path):
    async def scenario(client, server):
        notes = [{"key": "size", "valueExpression": "'size ' + object.data.size"}]
        made = policy(validations=[{"expression": "object.data.size == 'small'"}], auditAnnotations=notes)
        await add(client, POLICIES, BINDINGS, made, binding(actions=("Warn", "Audit")))
        kind = server.api.core.registry.get("", "v1", "configmaps")
        call = Call(User("ann", ("system:masters",)), "create", kind, "default")
        await server.api.create(call, config(size="big"))
        told = (
            "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': failed expression: object.data.size == 'small'"
        )
        assert call.warnings == [told]
        assert call.annotations["p/size"] == "size big"
        failures = json.loads(call.annotations["validation.policy.admission.k8s.io/validation_failure"])
        assert failures[0]["expressionIndex"] == 0
        assert failures[0]["validationActions"] == ["Warn", "Audit"]

    run(tmp_path, scenario)


def test_parameters(tmp_path):
    async def scenario(client, server):
        made = policy(paramKind={"apiVersion": "v1", "kind": "ConfigMap"}, validations=[{"expression": "object.data.n <= params.data.max"}])
        made["spec"]["matchConditions"] = [{"name": "no-params", "expression": "!object.metadata.name.startsWith('limit')"}]
        await client.create(NAMESPACES, {"metadata": {"name": "limits"}})
        named = {"name": "limit", "namespace": "limits", "parameterNotFoundAction": "Deny"}
        await add(client, POLICIES, BINDINGS, made, binding(paramRef=named))
        error = await refused(client.create(CONFIG_MAPS, config(n="5"), "default"))
        assert error.message.endswith("no params found for policy binding with `Deny` parameterNotFoundAction")
        await client.delete(POLICIES, "p")
        for name, most in (("limit", "4"), ("limit-2", "6")):
            await client.create(CONFIG_MAPS, config(name, {"limit": "yes"}, max=most), "limits")
        await client.create(POLICIES, made)
        await refused(client.create(CONFIG_MAPS, config(n="5"), "default"))
        await client.create(CONFIG_MAPS, config(n="3"), "default")
        selected = {"selector": {"matchLabels": {"limit": "none"}}, "parameterNotFoundAction": "Allow"}
        await client.patch(BINDINGS, "p-binding", {"spec": {"paramRef": {"name": None, "namespace": None, **selected}}})
        await client.create(CONFIG_MAPS, config("d", n="9"), "default")

    run(tmp_path, scenario)


def test_where_a_policy_holds(tmp_path):
    async def scenario(client, server):
        await client.create(NAMESPACES, {"metadata": {"name": "prod", "labels": {"env": "prod"}}})
        made = policy(validations=[{"expression": "namespaceObject.metadata.labels.env != 'prod'"}])
        made["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {"env": "prod"}}
        bound = binding(matchResources={"objectSelector": {"matchExpressions": [{"key": "exempt", "operator": "DoesNotExist"}]}})
        await add(client, POLICIES, BINDINGS, made, bound)
        await client.create(CONFIG_MAPS, config(), "default")
        await refused(client.create(CONFIG_MAPS, config(), "prod"))
        await client.create(CONFIG_MAPS, config("d", {"exempt": "yes"}), "prod")
        excluded = [{**MAPS, "resourceNames": ["free"]}]
        await client.patch(POLICIES, "p", {"spec": {"matchConstraints": {"excludeResourceRules": excluded}}})
        await client.create(CONFIG_MAPS, config("free"), "prod")
        await client.patch(POLICIES, "p", {"spec": {"failurePolicy": "Ignore", "validations": [{"expression": "object.missing.field"}]}})
        await client.create(CONFIG_MAPS, config("open"), "prod")

    run(tmp_path, scenario)


def test_variables_request_and_authorizer(tmp_path):
    async def scenario(client, server):
        variables = [
            {"name": "when", "expression": "timestamp(object.data.when)"},
            {"name": "late", "expression": "variables.when > timestamp('2030-01-01T00:00:00Z')"},
        ]
        rules = [
            {"expression": "!variables.late", "messageExpression": "string(variables.when) + ' is late'"},
            {"expression": "request.userInfo.username == 'ann' && request.operation == 'CREATE' && request.kind.kind == 'ConfigMap'"},
            {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"},
            {"expression": "authorizer.requestResource.check('create').allowed()"},
            {"expression": "!authorizer.serviceAccount('default', 'x').path('/metrics').check('get').allowed()"},
            {"expression": "oldObject == null"},
        ]
        await add(client, POLICIES, BINDINGS, policy(variables=variables, validations=rules), binding())
        ann = InProcessClient(server, User("ann", ("system:masters",)))
        await ann.create(CONFIG_MAPS, config(when="2020-01-01T00:00:00Z"), "default")
        error = await refused(ann.create(CONFIG_MAPS, config("d", when="2031-01-01T00:00:00Z"), "default"))
        assert error.message.endswith("2031-01-01T00:00:00Z is late")
        await refused(client.create(CONFIG_MAPS, config("e", when="2020-01-01T00:00:00Z"), "default"))

    run(tmp_path, scenario)


def test_mutations(tmp_path):
    async def scenario(client, server):
        labels = "Object{metadata: Object.metadata{labels: {'made-by': variables.who}}, data: {'a': 'b'}}"
        patch = (
            "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'x/y': 'z'}}, "
            "JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('p/q'), value: 'r'}]"
        )
        steps = [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": labels}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
        ]
        variables = [{"name": "who", "expression": "request.userInfo.username.replace(':', '-')"}]
        made = policy(
            variables=variables, mutations=steps, matchConditions=[{"name": "new", "expression": "request.operation == 'CREATE'"}]
        )
        bound = {"metadata": {"name": "b"}, "spec": {"policyName": "p"}}
        await add(client, MUTATIONS, MUTATION_BINDINGS, made, bound)
        found = await client.create(CONFIG_MAPS, config(c="d"), "default")
        assert found["metadata"]["labels"] == {"made-by": "system-apiserver"}
        assert found["metadata"]["annotations"] == {"x/y": "z", "p/q": "r"}
        assert found["data"] == {"a": "b", "c": "d"}
        assert "managedFields" not in found["metadata"]

        containers = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: "
        containers += "object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{name: c.name, env: "
        containers += "[Object.spec.template.spec.containers.env{name: 'E', value: 'v'}]})}}}}"
        rules = [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]
        step = [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": containers}}]
        await add(
            client,
            MUTATIONS,
            MUTATION_BINDINGS,
            policy("q", rules, mutations=step),
            {**bound, "metadata": {"name": "c"}, "spec": {"policyName": "q"}},
        )
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "x", "image": "i", "env": [{"name": "F", "value": "w"}]}]},
        }
        deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
        found = await client.create(DEPLOYMENTS, deployment, "default")
        container = found["spec"]["template"]["spec"]["containers"][0]
        assert container["image"] == "i"
        assert sorted(each["name"] for each in container["env"]) == ["E", "F"]

    run(tmp_path, scenario)


def test_a_mutation_that_cannot_be_made_denies(tmp_path):
    async def scenario(client, server):
        step = [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/data/none'}]"}}]
        bound = {"metadata": {"name": "b"}, "spec": {"policyName": "p"}}
        await add(client, MUTATIONS, MUTATION_BINDINGS, policy(mutations=step), bound)
        error = await refused(client.create(CONFIG_MAPS, config(a="b"), "default"))
        assert "policy 'p' with binding 'b' denied request" in error.message
        await client.patch(MUTATIONS, "p", {"spec": {"failurePolicy": "Ignore"}})
        await client.create(CONFIG_MAPS, config(a="b"), "default")

    run(tmp_path, scenario)


REFUSED = (
    ({"validations": [{"expression": "object."}]}, 'spec.validations[0].expression: Invalid value: "object.": compilation failed: ERROR'),
    ({"validations": [{"expression": "'a'"}]}, "spec.validations[0].expression: Invalid value: \"'a'\": must evaluate to bool"),
    ({"validations": [{"expression": "x > 1"}]}, "undeclared reference to 'x' (in container '')"),
    ({"validations": [{"expression": "variables.x > 1"}]}, "undeclared reference to 'variables.x'"),
    ({}, "spec.validations: Required value: validations or auditAnnotations must be non-empty"),
    ({"validations": [{"expression": "true", "reason": "Because"}]}, 'spec.validations[0].reason: Unsupported value: "Because"'),
    ({"validations": [{"expression": "true", "messageExpression": "1"}]}, "must evaluate to string"),
    ({"validations": [{"expression": "true"}], "variables": [{"name": "1", "expression": "1"}]}, "not a valid CEL identifier"),
    ({"validations": [{"expression": "true"}], "matchConditions": [{"name": "a", "expression": "1"}]}, "must evaluate to bool"),
)


def test_what_no_policy_may_say(tmp_path):
    async def scenario(client, server):
        for spec, told in REFUSED:
            error = await refused(client.create(POLICIES, policy(**spec)))
            assert told in error.message, error.message

    run(tmp_path, scenario)


def test_what_no_binding_may_say(tmp_path):
    async def scenario(client, server):
        error = await refused(client.create(BINDINGS, binding(actions=("Deny", "Warn"))))
        assert "must not contain both Deny and Warn" in error.message
        error = await refused(client.create(BINDINGS, binding(actions=())))
        assert "spec.validationActions: Required value" in error.message
        error = await refused(client.create(BINDINGS, binding(paramRef={"parameterNotFoundAction": "Deny"})))
        assert "one of name or selector must be specified" in error.message

    run(tmp_path, scenario)


def test_rewriting():
    assert (
        literals_to_maps('Object{a: b ? {c: d} : Object.e{`f-g`: 1, ?h: "Object{x: y}"}}')
        == '{"a": b ? {c: d} : {"f-g": 1, ?"h": "Object{x: y}"}}'
    )
    assert literals_to_maps("object.Object{a: b}") == "object.Object{a: b}"
    assert bind_variables("variables.a // variables.b", {"a": "1", "b": "2"}).count("cel.bind(") == 1
    assert bind_variables("x.variables.a", {"a": "1"}) == "x.variables.a"
    program = Language().program("variables.b + variables.a", {"a": "1", "unused": "1 / 0", "b": "variables.a * 10"})
    assert (program.returns, program.evaluate({})) == ("INT", 11)


def test_type_checking_warns_in_the_status(tmp_path):
    async def scenario(client, server):
        rules = [{**MAPS, "apiGroups": ["apps"], "resources": ["deployments"]}]
        checks = [
            {"expression": "object.spec.replicas > '1'"},
            {"expression": "has(object.spec.replicas) && object.spec.replicas < 9"},
            {"expression": "object.spec.nothing == 1", "messageExpression": "object.metadata.name + object.spec.paused"},
        ]
        await client.create(POLICIES, policy(rules=rules, validations=checks))
        for _ in range(300):
            status = (await client.get(POLICIES, "p")).get("status") or {}
            if status.get("observedGeneration") == 1:
                break
            await asyncio.sleep(0.01)
        told = {each["fieldRef"]: each["warning"] for each in status["typeChecking"]["expressionWarnings"]}
        first = told["spec.validations[0].expression"]
        assert first.startswith(
            "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"
        )
        assert "undefined field 'nothing'" in told["spec.validations[2].expression"]
        assert "'(string, bool)'" in told["spec.validations[2].messageExpression"]
        assert len(told) == 3

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "text",
    [
        "object.all(a, object.all(b, object.all(c, true)))",
        "object.map(a, object.map(b, object.map(c, 1))).size() > 0",
        "'a'.matches('(((a{100}){100}){100})')",
        "(" * 500 + "true" + ")" * 500,
        " + ".join(["1"] * 20_000) + " == 1",
    ],
)
def test_bombs_go_off_in_no_time(text):
    began = time.monotonic()
    with pytest.raises(CelError):
        Language().program(text).evaluate({"object": {f"k{number}": "v" for number in range(1_000)}})
    assert time.monotonic() - began < 1.0
