"""The API operations that conformance asks of the gate's own kinds, each under the name of its test."""

from __future__ import annotations

import json
import time

import pytest
from apiserver_tools import Cluster

from atoll.client.resources import Resource
from atoll.errors import StatusError

FLOWS, HOOKS = "flowcontrol.apiserver.k8s.io", "admissionregistration.k8s.io"
MATCH = {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]}
NONRESOURCE = {"verbs": ["get"], "nonResourceURLs": ["/e2e"]}
SUBJECTS = [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}]
MUTATION = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 2}}"}}
KINDS = {
    "API priority and fairness should support FlowSchema API operations": (
        Resource(FLOWS, "v1", "flowschemas", False, "FlowSchema"),
        {
            "matchingPrecedence": 9999,
            "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": SUBJECTS, "nonResourceRules": [NONRESOURCE]}],
        },
        {"matchingPrecedence": 9998},
        True,
    ),
    "API priority and fairness should support PriorityLevelConfiguration API operations": (
        Resource(FLOWS, "v1", "prioritylevelconfigurations", False, "PriorityLevelConfiguration"),
        {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}},
        {"limited": {"nominalConcurrencyShares": 4}},
        True,
    ),
    "ValidatingAdmissionPolicy should support ValidatingAdmissionPolicy API operations": (
        Resource(HOOKS, "v1", "validatingadmissionpolicies", False, "ValidatingAdmissionPolicy"),
        {"matchConstraints": MATCH, "validations": [{"expression": "object.spec.replicas <= 100"}]},
        {"failurePolicy": "Ignore"},
        True,
    ),
    "ValidatingAdmissionPolicy should support ValidatingAdmissionPolicyBinding API operations": (
        Resource(HOOKS, "v1", "validatingadmissionpolicybindings", False, "ValidatingAdmissionPolicyBinding"),
        {"policyName": "replicalimit.example.com", "validationActions": ["Deny"]},
        {"validationActions": ["Warn"]},
        False,
    ),
    "MutatingAdmissionPolicy should support MutatingAdmissionPolicy API operations": (
        Resource(HOOKS, "v1", "mutatingadmissionpolicies", False, "MutatingAdmissionPolicy"),
        {"matchConstraints": MATCH, "mutations": [MUTATION], "reinvocationPolicy": "Never"},
        {"reinvocationPolicy": "IfNeeded"},
        False,
    ),
    "MutatingAdmissionPolicy should support MutatingAdmissionPolicyBinding API operations": (
        Resource(HOOKS, "v1", "mutatingadmissionpolicybindings", False, "MutatingAdmissionPolicyBinding"),
        {"policyName": "e2e.example.com"},
        {"policyName": "other.example.com"},
        False,
    ),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.mark.parametrize("name", KINDS, ids=lambda name: name.replace(" ", "-"))
def test_should_support_api_operations(cluster, name):
    resource, spec, change, has_status = KINDS[name]
    run, client = cluster.run, cluster.client
    label = {"special-label": resource.plural}
    first = run(client.create(resource, {"metadata": {"generateName": "e2e-", "labels": label}, "spec": spec}))
    for _ in range(2):
        run(client.create(resource, {"metadata": {"generateName": "e2e-", "labels": label}, "spec": spec}))
    named = first["metadata"]["name"]
    selector = f"special-label={resource.plural}"
    assert run(client.get(resource, named))["metadata"]["uid"] == first["metadata"]["uid"]
    listed = run(client.list(resource, label_selector=selector))
    assert len(listed["items"]) == 3

    async def watched():
        async for kind, obj in client.watch(resource, resource_version=first["metadata"]["resourceVersion"], label_selector=selector):
            if kind == "DELETED":
                return obj["metadata"]["name"]
        return ""

    patched = run(client.patch(resource, named, {"metadata": {"annotations": {"patched": "true"}}, "spec": change}))
    assert patched["metadata"]["annotations"]["patched"] == "true"
    assert patched["metadata"]["generation"] == 2
    if has_status:
        _status(cluster, resource, named)
    for _ in range(10):  # the server itself writes to some of these
        latest = json.loads(json.dumps(run(client.get(resource, named))))
        latest["metadata"].setdefault("annotations", {})["updated"] = "true"
        try:
            assert run(client.update(resource, latest))["metadata"]["annotations"]["updated"] == "true"
            break
        except StatusError as error:
            if error.reason != "Conflict":
                raise
    run(client.delete(resource, named))
    assert run(watched()) == named
    run(client.delete_collection(resource, label_selector=selector))
    end = time.monotonic() + 5
    while run(client.list(resource, label_selector=selector))["items"]:
        assert time.monotonic() < end


def _status(cluster, resource, named):
    condition = {"type": "PatchStatusFailed", "status": "False", "reason": "Tested", "message": "m", "lastTransitionTime": None}
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [condition]}}
    found = cluster.run(cluster.client.patch(resource, named, patch, kind="merge", subresource="status"))
    assert found["metadata"]["annotations"]["patchedstatus"] == "true"
    assert "PatchStatusFailed" in {each["type"] for each in found["status"]["conditions"]}
    assert found["metadata"]["generation"] == 2


def test_should_mutate_a_deployment(cluster):
    """[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]"""
    from atoll.client.resources import DEPLOYMENTS

    policies, bindings = (KINDS[f"MutatingAdmissionPolicy should support {kind} API operations"] for kind in _MUTATING)
    run, client = cluster.run, cluster.client
    run(client.create(policies[0], {"metadata": {"name": "e2e.example.com"}, "spec": policies[1]}))
    run(client.create(bindings[0], {"metadata": {"name": "e2e-binding.example.com"}, "spec": bindings[1]}))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = run(client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "default"))
    assert made["spec"]["replicas"] == 2
    assert made["spec"]["template"]["spec"]["containers"][0]["name"] == "c"


_MUTATING = ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
