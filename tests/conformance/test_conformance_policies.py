"""[sig-api-machinery] ValidatingAdmissionPolicy and MutatingAdmissionPolicy: they refuse, they see variables, they change."""

import pytest
from conformance_api import Refused, until
from conformance_workloads import workload

from atoll.client.resources import DEPLOYMENTS, Resource

GROUP = "admissionregistration.k8s.io"
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}


def door(api, plural, kind):
    return api.at(Resource(GROUP, "v1", plural, False, kind))


@pytest.fixture
def policies(api, namespaces):
    """Makes a policy and its binding for a namespace of its own; returns the deployments there, where `is_in_force` already."""
    made = []

    def make(kind, binding=None, **spec):
        space = namespaces()
        api.call("PATCH", f"/api/v1/namespaces/{space}", {"metadata": {"labels": {space: "yes"}}}, kind="application/merge-patch+json")
        constraints = {"resourceRules": [RULE], "namespaceSelector": {"matchLabels": {space: "yes"}}}
        policy = door(api, f"{kind.lower()}admissionpolicies", f"{kind}AdmissionPolicy")
        binding_door = door(api, f"{kind.lower()}admissionpolicybindings", f"{kind}AdmissionPolicyBinding")
        policy.new(f"{space}.policy.example.com", spec={"matchConstraints": constraints, **spec})
        binding_door.new(f"{space}.binding", spec={"policyName": f"{space}.policy.example.com", **(binding or {})})
        made.extend([(policy, f"{space}.policy.example.com"), (binding_door, f"{space}.binding")])
        return api.at(DEPLOYMENTS, space)

    yield make
    for where, name in made:
        where.delete(name)


def refused_at_last(deployments, replicas):
    """The refusal, once the policy is in force."""

    def asked():
        try:
            deployments.create(deployments.make("marker", spec=workload({"a": "b"}, replicas=replicas)), dryRun="All")
        except Refused as refused:
            return refused
        return None

    return until(asked, "the policy refuses")


DENY = {"validationActions": ["Deny"]}


@pytest.mark.conformance(
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]"
)
def test_a_policy_refuses_a_deployment(policies):
    validations = [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == object.metadata.namespace", "message": "Internal error! Other namespace selected"},
    ]
    deployments = policies("Validating", DENY, validations=validations)
    refused = refused_at_last(deployments, 1)
    assert (refused.code, refused.reason) == (422, "Invalid")
    assert "wants replicas > 1, got 1" in refused.message
    deployments.new("replicated", spec=workload({"a": "b"}, replicas=2))


@pytest.mark.conformance(
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]"
)
def test_a_policy_refers_to_variables(policies):
    variables = [
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
    ]
    validations = [{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas"}]
    deployments = policies("Validating", DENY, variables=variables, validations=validations)
    assert "failed expression: variables.replicas > 1" in refused_at_last(deployments, 1).message
    assert "failed expression: variables.oddReplicas" in refused_at_last(deployments, 4).message
    deployments.new("replicated", spec=workload({"a": "b"}, replicas=3))


def mutated_at_last(deployments, truth):
    def asked():
        made = deployments.create(deployments.make("marker", spec=workload({"a": "b"}, replicas=1)), dryRun="All")
        return made if truth(made) else None

    return until(asked, "the policy changes what is made")


@pytest.mark.conformance("[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]")
def test_a_policy_changes_a_deployment(policies):
    expression = "Object{spec: Object.spec{replicas: object.spec.replicas + 10}}"
    mutations = [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]
    deployments = policies("Mutating", mutations=mutations, reinvocationPolicy="Never", failurePolicy="Fail")
    assert mutated_at_last(deployments, lambda made: made["spec"]["replicas"] == 11)
    assert deployments.new("replicated", spec=workload({"a": "b"}, replicas=2))["spec"]["replicas"] == 12


@pytest.mark.conformance(
    "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations [Conformance]"
)
def test_a_policy_annotates_a_deployment(policies):
    expression = '[JSONPatch{op: "add", path: "/metadata/annotations", value: {"my-foo-annotation": "myAnnotationValue"}}]'
    mutations = [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]
    deployments = policies("Mutating", mutations=mutations, reinvocationPolicy="Never", failurePolicy="Fail")
    found = mutated_at_last(deployments, lambda made: made["metadata"].get("annotations"))
    assert found["metadata"]["annotations"] == {"my-foo-annotation": "myAnnotationValue"}
