"""[sig-api-machinery] AdmissionWebhook: denied, changed, timed out, chosen by selectors and match conditions."""

import time

import pytest
from conformance_api import Refused, until
from conformance_definitions import name_of_definition
from conformance_operations import check_discovery
from conformance_plane import HOLD, PLAYED
from conformance_webhook import Hooks
from conformance_workloads import pod_spec

from atoll.client.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from atoll.cluster.certificates import Certificates

GROUP = "admissionregistration.k8s.io"
KINDS = {
    "Mutating": Resource(GROUP, "v1", "mutatingwebhookconfigurations", False, "MutatingWebhookConfiguration"),
    "Validating": Resource(GROUP, "v1", "validatingwebhookconfigurations", False, "ValidatingWebhookConfiguration"),
}
UNWANTED = {"webhook-e2e-test": "webhook-disallow"}
START = {"mutation-start": "yes"}
DONE = {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}


@pytest.fixture(scope="module")
def hooks(plane):
    certificates = Certificates(plane.instance, plane.settings)
    hooks = Hooks(*certificates.node_serving(), certificates.authority)
    yield hooks
    hooks.close()


def rule(resource, *operations, group="", version="v1"):
    return {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": list(operations or ("CREATE",))}


class Space:
    """A namespace whose requests the webhooks of `configure` hear, and a marker by which one knows that they do."""

    def __init__(self, api, hooks, ns) -> None:
        self.api, self.hooks, self.ns = api, hooks, ns
        api.at(NAMESPACES).patch(ns, {"metadata": {"labels": {ns: "true"}}})
        self.maps = api.at(CONFIG_MAPS, ns)
        self._made = []

    def webhook(self, path, *rules, name="hook", **fields):
        return {
            "name": f"{name}.k8s.io",
            "clientConfig": self.hooks.at(path),
            "rules": list(rules) or [rule("configmaps", "CREATE", "UPDATE")],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1", "v1beta1"],
            "timeoutSeconds": 10,
            "namespaceSelector": {"matchLabels": {self.ns: "true"}},
            **fields,
        }

    def door(self, kind):
        return self.api.at(KINDS[kind])

    def configure(self, kind, *webhooks, **metadata):
        name = metadata.pop("name", f"{self.ns}-{len(self._made)}")
        made = self.door(kind).new(name, webhooks=list(webhooks), **metadata)
        self._made.append((kind, name))
        return made

    def close(self):
        for kind, name in self._made:
            if not self.door(kind).gone(name):
                self.door(kind).delete(name)


@pytest.fixture
def space(api, hooks, ns):
    space = Space(api, hooks, ns)
    yield space
    space.close()


def refusal(call, *args, **kwargs):
    with pytest.raises(Refused) as refused:
        call(*args, **kwargs)
    return refused.value


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]"
)
def test_webhooks_are_discovered(api):
    for resource in KINDS.values():
        check_discovery(api, resource)


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation [Conformance]"
)
def test_pods_and_config_maps_are_denied(api, space):
    pods = api.at(PODS, space.ns)
    space.configure(
        "Validating",
        space.webhook("/always-deny", rule("pods"), name="deny-pods"),
        space.webhook("/data", rule("configmaps", "CREATE", "UPDATE", "DELETE"), name="deny-maps"),
    )
    assert "denied the request: this webhook denies all requests" in refusal(pods.new, "disallowed-pod", spec=pod_spec()).message
    told = refusal(space.maps.new, "disallowed", data=UNWANTED)
    assert told.message == 'admission webhook "deny-maps.k8s.io" denied the request: unwanted key and value'
    space.maps.new("allowed", data={"admit": "this"})
    assert "unwanted" in refusal(space.maps.change, "allowed", lambda found: found["data"].update(UNWANTED)).message
    assert "unwanted" in refusal(space.maps.patch, "allowed", {"data": UNWANTED}).message
    skipped = f"skip-{space.ns}"
    api.at(NAMESPACES).new(skipped)
    api.at(CONFIG_MAPS, skipped).new("disallowed", data=UNWANTED)
    api.at(NAMESPACES).delete(skipped)


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod [Conformance]"
)
def test_attaching_is_denied(api, space):
    attach = rule("pods/attach", "CONNECT")
    space.configure("Validating", space.webhook("/pods/attach", attach))
    pods = api.at(PODS, space.ns)
    pods.new("to-be-attached-pod", spec=pod_spec())
    pods.until("to-be-attached-pod", lambda pod: pod["status"]["phase"] == "Running")
    told = refusal(api.call, "POST", pods.path("to-be-attached-pod", "attach"), container="main", stdout="true")
    assert "attaching to pod 'to-be-attached-pod' is not allowed" in told.message


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and "
    "deletion [Conformance]"
)
def test_custom_resources_are_denied(api, space, definitions):
    (foos,) = definitions.new()
    door = api.at(foos, space.ns)
    space.configure("Validating", space.webhook("/data", rule(foos.plural, "CREATE", "UPDATE", "DELETE", group=foos.group)))
    assert "unwanted" in refusal(door.new, "bad", data=UNWANTED).message
    door.new("kept", data={"mutation-start": "keep"})
    assert "unwanted" in refusal(door.patch, "kept", {"data": UNWANTED}).message
    assert refusal(door.delete, "kept").message.endswith("kept cannot be deleted")
    door.patch("kept", {"data": None})
    door.delete("kept")


@pytest.mark.conformance("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation [Conformance]")
def test_definitions_are_denied(api, space, definitions):
    one = rule("customresourcedefinitions", group="apiextensions.k8s.io")
    selector = {"matchLabels": {space.ns: "true"}}
    space.configure("Validating", space.webhook("/always-deny", one, objectSelector=selector, namespaceSelector={}))
    body = definitions.body(definitions.group(), "Foo", {"v1": {}})
    body["metadata"]["labels"] = {space.ns: "true"}
    assert "this webhook denies all requests" in refusal(api.at(CUSTOM_RESOURCE_DEFINITIONS).create, body).message


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed "
    "webhook [Conformance]"
)
def test_a_webhook_that_is_not_there_and_fails_closed_rejects(space):
    nowhere = {"clientConfig": {"url": "https://127.0.0.1:1/nowhere", "caBundle": space.hooks.at("")["caBundle"]}}
    space.configure("Validating", space.webhook("", failurePolicy="Fail", **nowhere))
    told = refusal(space.maps.new, "foo")
    assert (told.code, told.reason) == (500, "InternalError")
    assert 'failed calling webhook "hook.k8s.io"' in told.message


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook "
    "configuration objects [Conformance]"
)
def test_webhooks_do_not_hear_of_webhook_configurations(space):
    every = [rule("*", "CREATE", "UPDATE", "DELETE", group=GROUP, version="*")]
    selector = {"objectSelector": {"matchLabels": {space.ns: "true"}}, "namespaceSelector": {}}
    space.configure("Validating", space.webhook("/always-deny", *every, **selector))
    space.configure("Mutating", space.webhook("/label", *every, **selector))
    for kind in KINDS:
        made = space.configure(
            kind, space.webhook("/always-allow", rule("invalid")), labels={space.ns: "true"}, name=f"dummy-{space.ns}-{kind.lower()}"
        )
        assert made["metadata"]["labels"] == {space.ns: "true"}
        space.door(kind).delete(made["metadata"]["name"])
        assert space.door(kind).gone(made["metadata"]["name"])


@pytest.mark.conformance("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]")
def test_a_config_map_is_changed_in_steps(space):
    webhooks = [space.webhook("/mutating-data", rule("configmaps"), name=f"stage-{number}") for number in (1, 2)]
    space.configure("Mutating", *webhooks)
    assert space.maps.new("to-be-mutated", data=START)["data"] == DONE


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation [Conformance]"
)
def test_what_a_webhook_adds_to_a_pod_is_defaulted(api, space):
    space.configure("Mutating", space.webhook("/mutating-pods", rule("pods")))
    made = api.at(PODS, space.ns).new("webhook-to-be-mutated", annotations={PLAYED: HOLD}, spec=pod_spec())
    (added,) = made["spec"]["initContainers"]
    assert added["name"] == "webhook-added-init-container"
    assert (added["terminationMessagePath"], added["terminationMessagePolicy"]) == ("/dev/termination-log", "File")


@pytest.mark.conformance("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource [Conformance]")
def test_a_custom_resource_is_changed(api, space, definitions):
    (foos,) = definitions.new()
    webhooks = [space.webhook("/mutating-data", rule(foos.plural, group=foos.group), name=f"stage-{number}") for number in (1, 2)]
    space.configure("Mutating", *webhooks)
    assert api.at(foos, space.ns).new("cr", data=START)["data"] == DONE


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version "
    "[Conformance]"
)
def test_a_custom_resource_is_changed_whichever_version_is_stored(api, space, definitions):
    v1, v2 = definitions.new(versions=("v1", "v2"))
    space.configure(
        "Mutating", space.webhook("/mutating-data", rule(v1.plural, "CREATE", "UPDATE", group=v1.group, version="*"), name="stage")
    )
    door = api.at(v1, space.ns)
    assert door.new("cr", data=START)["data"]["mutation-stage-1"] == "yes"
    stores = [{"op": "replace", "path": f"/spec/versions/{number}/storage", "value": bool(number)} for number in (0, 1)]
    definitions.door.patch(name_of_definition(v1), stores, "json")
    assert door.patch("cr", {"data": {"dummy": "x"}})["data"] == {**DONE, "dummy": "x"}
    assert api.at(v2, space.ns).get("cr")["data"]["mutation-stage-2"] == "yes"


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning [Conformance]"
)
def test_what_the_schema_does_not_know_is_pruned_after_a_change(api, space, definitions):
    known = {name: {"type": "string"} for name in ("mutation-start", "mutation-stage-1")}
    data = {"type": "object", "properties": known}
    (foos,) = definitions.new(versions={"v1": {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"data": data}}}}})
    webhooks = [space.webhook("/mutating-data", rule(foos.plural, group=foos.group), name=f"stage-{number}") for number in (1, 2)]
    space.configure("Mutating", *webhooks)
    assert api.at(foos, space.ns).new("cr", data=START)["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes"}


@pytest.mark.conformance("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]")
def test_a_webhook_has_its_time(space):
    slow = space.webhook("/slow", rule("configmaps"), timeoutSeconds=1, failurePolicy="Fail")
    name = space.configure("Validating", slow)["metadata"]["name"]
    began = time.monotonic()
    told = refusal(space.maps.new, "too-late")
    assert time.monotonic() - began < 2.5
    assert told.code == 500
    assert "/slow?timeout=1s did not answer within 1 s" in told.message
    space.door("Validating").patch(name, [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}], "json")
    space.maps.new("ignored")
    patient = [
        {"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 10},
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
    ]
    space.door("Validating").patch(name, patient, "json")
    space.maps.new("waited-for")
    without = space.webhook("/slow", rule("configmaps"))
    del without["timeoutSeconds"]
    assert space.configure("Validating", without)["webhooks"][0]["timeoutSeconds"] == 10


def listed_and_deleted(space, kind, *webhooks):
    """Makes a configuration for each, sees that both work, deletes the collection, and sees that none does."""
    for number, webhook in enumerate(webhooks):
        space.configure(kind, webhook, labels={"e2e-list-test": space.ns}, name=f"{space.ns}-listed-{number}")
    selector = {"labelSelector": f"e2e-list-test={space.ns}"}
    assert len(space.door(kind).items(**selector)) == len(webhooks)
    yield
    space.door(kind).delete_all(**selector)
    until(lambda: not space.door(kind).items(**selector))
    yield


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work [Conformance]"
)
def test_validating_webhooks_are_listed_and_deleted_together(space):
    steps = listed_and_deleted(space, "Validating", *(space.webhook("/data") for _ in range(3)))
    next(steps)
    assert "unwanted" in refusal(space.maps.new, "m", data=UNWANTED).message
    next(steps)
    space.maps.new("m", data=UNWANTED)


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work [Conformance]"
)
def test_mutating_webhooks_are_listed_and_deleted_together(space):
    steps = listed_and_deleted(space, "Mutating", *(space.webhook("/mutating-data") for _ in range(2)))
    next(steps)
    assert space.maps.new("m", data=START)["data"] == DONE
    next(steps)
    assert space.maps.new("n", data=START)["data"] == START


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work [Conformance]"
)
def test_a_validating_webhook_is_updated_and_patched(space):
    name = space.configure("Validating", space.webhook("/data"))["metadata"]["name"]
    door = space.door("Validating")
    refusal(space.maps.new, "m", data=UNWANTED)
    door.change(name, lambda found: found["webhooks"][0]["rules"][0].update(operations=["UPDATE"]))
    space.maps.new("m", data=UNWANTED)
    door.patch(name, [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}], "json")
    refusal(space.maps.new, "n", data=UNWANTED)


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work [Conformance]"
)
def test_a_mutating_webhook_is_updated_and_patched(space):
    name = space.configure("Mutating", space.webhook("/mutating-data"))["metadata"]["name"]
    door = space.door("Mutating")
    door.change(name, lambda found: found["webhooks"][0]["rules"][0].update(operations=["UPDATE"]))
    assert space.maps.new("m", data=START)["data"] == START
    door.patch(name, [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}], "json")
    assert space.maps.new("n", data=START)["data"]["mutation-stage-1"] == "yes"


CONDITIONS = [
    {"name": "expression-1", "expression": "object.metadata.namespace == 'production'"},
    {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"},
]
INVALID = [{"name": "invalid-expression-1", "expression": "... [] bad expression"}]


def created_and_updated(space, kind):
    made = space.configure(kind, space.webhook("/always-allow", matchConditions=CONDITIONS[:1]))
    name = made["metadata"]["name"]
    assert space.door(kind).get(name)["webhooks"][0]["matchConditions"] == CONDITIONS[:1]
    space.door(kind).change(name, lambda found: found["webhooks"][0].update(matchConditions=CONDITIONS))
    assert space.door(kind).get(name)["webhooks"][0]["matchConditions"] == CONDITIONS


def rejected(space, kind):
    told = refusal(space.configure, kind, space.webhook("/always-allow", matchConditions=INVALID))
    assert told.code == 422
    assert "compilation failed" in told.message


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook "
    "configurations with match conditions [Conformance]"
)
def test_validating_webhooks_have_match_conditions(space):
    created_and_updated(space, "Validating")


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook "
    "configurations with match conditions [Conformance]"
)
def test_mutating_webhooks_have_match_conditions(space):
    created_and_updated(space, "Mutating")


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid "
    "match conditions [Conformance]"
)
def test_bad_match_conditions_of_validating_webhooks_are_rejected(space):
    rejected(space, "Validating")


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid "
    "match conditions [Conformance]"
)
def test_bad_match_conditions_of_mutating_webhooks_are_rejected(space):
    rejected(space, "Mutating")


@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps [Conformance]"
)
def test_match_conditions_choose(space):
    conditions = [{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]
    space.configure("Mutating", space.webhook("/mutating-data", rule("configmaps"), matchConditions=conditions))
    assert space.maps.new("mutated", data=START)["data"]["mutation-stage-1"] == "yes"
    assert space.maps.new("skip-me", data=START)["data"] == START
