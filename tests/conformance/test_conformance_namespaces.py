"""[sig-api-machinery] Namespaces: what is in one goes with it, pods first; its own metadata and status change."""

import pytest
from conformance_api import until
from conformance_workloads import pod_spec

from atoll.client.resources import CONFIG_MAPS, NAMESPACES, PODS, SERVICES


@pytest.fixture
def spaces(api):
    return api.at(NAMESPACES)


def conditions(namespace):
    return {each["type"]: each for each in (namespace.get("status") or {}).get("conditions") or ()}


@pytest.mark.conformance(
    "[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]"
)
def test_pods_go_with_their_namespace(api, ns, spaces):
    api.at(PODS, ns).new("test-pod", spec=pod_spec())
    api.at(PODS, ns).until("test-pod", lambda pod: pod["status"]["phase"] == "Running")
    spaces.delete(ns)
    spaces.until_gone(ns)
    spaces.new(ns)
    assert api.at(PODS, ns).items() == []


@pytest.mark.conformance(
    "[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]"
)
def test_services_go_with_their_namespace(api, ns, spaces):
    api.at(SERVICES, ns).new("test-service", spec={"selector": {"foo": "bar"}, "ports": [{"port": 80}]})
    spaces.delete(ns)
    spaces.until_gone(ns)
    spaces.new(ns)
    assert api.at(SERVICES, ns).items() == []


@pytest.mark.conformance("[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]")
def test_a_namespace_is_patched(ns, spaces):
    patched = spaces.patch(ns, {"metadata": {"labels": {"testLabel": "testValue"}}}, "strategic")
    assert patched["metadata"]["labels"]["testLabel"] == "testValue"
    assert spaces.get(ns)["metadata"]["labels"]["testLabel"] == "testValue"


@pytest.mark.conformance("[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]")
def test_a_namespace_is_updated(ns, spaces):
    updated = spaces.change(ns, lambda each: each["metadata"]["labels"].update({ns: "updated"}))
    assert updated["metadata"]["labels"][ns] == "updated"


@pytest.mark.conformance("[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]")
def test_a_namespace_is_finalized(ns, spaces):
    finalizer = "e2e.example.com/fakeFinalizer"

    def finalize(change):
        body = spaces.get(ns)
        change(body["spec"]["finalizers"])
        return spaces.replace(body, "finalize")

    assert finalizer in finalize(lambda found: found.append(finalizer))["spec"]["finalizers"]
    assert finalizer not in finalize(lambda found: found.remove(finalizer))["spec"]["finalizers"]


@pytest.mark.conformance("[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]")
def test_the_status_of_a_namespace_is_patched_and_updated(ns, spaces):
    first = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}
    patched = spaces.patch(
        ns, {"metadata": {"annotations": {"e2e-patched-ns-status": ns}}, "status": {"conditions": [first]}}, sub="status"
    )
    assert patched["metadata"]["annotations"]["e2e-patched-ns-status"] == ns
    assert first.items() <= conditions(patched)["StatusPatch"].items()
    second = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test"}

    def append(namespace):
        namespace["status"]["conditions"] = [*(namespace["status"].get("conditions") or ()), second]

    updated = spaces.change(ns, append, "status")
    assert conditions(updated).keys() >= {"StatusPatch", "StatusUpdate"}


@pytest.mark.conformance("[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]")
def test_pods_go_before_all_else(api, ns, spaces):
    pods, maps = api.at(PODS, ns), api.at(CONFIG_MAPS, ns)
    pods.new("test-pod", metadata={"finalizers": ["e2e.example.com/finalizer"]}, spec=pod_spec())
    maps.new("test-configmap", data={"key": "value"})
    spaces.delete(ns)
    pods.until("test-pod", lambda pod: pod["metadata"].get("deletionTimestamp"))
    told = spaces.until(
        ns, lambda space: conditions(space).get("NamespaceDeletionContentFailure") or conditions(space).get("NamespaceContentRemaining")
    )
    assert told["status"]["phase"] == "Terminating"
    assert "deletionTimestamp" not in maps.get("test-configmap")["metadata"]
    pods.patch("test-pod", {"metadata": {"finalizers": None}})
    pods.until_gone("test-pod")
    until(lambda: maps.gone("test-configmap"), "the config map follows")
    spaces.until_gone(ns)
