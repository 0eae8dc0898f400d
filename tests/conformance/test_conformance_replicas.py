"""[sig-apps] ReplicationController and ReplicaSet: adoption, release, scale, status, failures that are told."""

import pytest
from conformance_api import until
from conformance_plane import HOLD, PLAYED
from conformance_workloads import controller, pod_spec, workload

from atoll.client.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS


@pytest.fixture
def sets(api, ns):
    return api.at(REPLICA_SETS, ns)


@pytest.fixture
def controllers(api, ns):
    return api.at(REPLICATION_CONTROLLERS, ns)


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def conditions(obj):
    return {each["type"]: each for each in obj["status"].get("conditions") or ()}


def owner_of(pod):
    return next((each for each in pod["metadata"].get("ownerReferences") or () if each.get("controller")), None)


@pytest.mark.conformance("[sig-apps] ReplicationController should adopt matching pods on creation [Conformance]")
def test_a_controller_adopts(pods, controllers):
    pods.new("pod-adoption", labels={"name": "pod-adoption"}, spec=pod_spec())
    made = controllers.new("pod-adoption", spec=controller({"name": "pod-adoption"}))
    pods.until("pod-adoption", lambda pod: (owner_of(pod) or {}).get("uid") == made["metadata"]["uid"])
    assert pods.names() == ["pod-adoption"]


@pytest.mark.conformance("[sig-apps] ReplicationController should release no longer matching pods [Conformance]")
def test_a_controller_releases(pods, controllers):
    made = controllers.new("pod-release", spec=controller({"name": "pod-release"}))
    name = until(pods.names, "its pod")[0]
    pods.patch(name, {"metadata": {"labels": {"name": "not-matching-name"}}})
    pods.until(name, lambda pod: owner_of(pod) is None)
    until(lambda: [pod for pod in pods.items() if (owner_of(pod) or {}).get("uid") == made["metadata"]["uid"]], "another pod in its place")


def surfaces_a_failure(api, ns, door, spec):
    quotas = api.at(RESOURCE_QUOTAS, ns)
    quotas.new("condition-test", spec={"hard": {"pods": "2"}})
    quotas.until("condition-test", lambda found: found.get("status", {}).get("hard"))
    door.new("condition-test", spec=spec)
    told = door.until("condition-test", lambda found: conditions(found).get("ReplicaFailure"))
    assert "exceeded quota: condition-test" in conditions(told)["ReplicaFailure"]["message"]
    door.patch("condition-test", {"spec": {"replicas": 2}})
    door.until("condition-test", lambda found: "ReplicaFailure" not in conditions(found))


@pytest.mark.conformance(
    "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]"
)
def test_a_controller_tells_why_it_fails(api, ns, controllers):
    surfaces_a_failure(api, ns, controllers, controller({"name": "c"}, replicas=3))


@pytest.mark.conformance("[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]")
def test_a_controller_is_scaled(controllers):
    scales(controllers, controller({"name": "e2e-rc"}, replicas=1))


def scales(door, spec):
    door.new("scaled", spec=spec)
    door.until("scaled", lambda found: found["status"].get("replicas") == 1)
    scale = door.get("scaled", "scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"], scale["status"]["replicas"]) == (
        "Scale",
        "autoscaling/v1",
        {"replicas": 1},
        1,
    )
    del scale["metadata"]["resourceVersion"]  # the controller may write between
    assert door.replace({**scale, "spec": {"replicas": 2}}, "scale")["spec"]["replicas"] == 2
    door.until("scaled", lambda found: found["spec"]["replicas"] == 2 and found["status"].get("replicas") == 2)
    assert door.patch("scaled", {"spec": {"replicas": 4}}, sub="scale")["spec"]["replicas"] == 4
    door.until("scaled", lambda found: found["spec"]["replicas"] == 4)


@pytest.mark.conformance("[sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]")
def test_the_life_of_a_controller(api, controllers):
    selector = {"labelSelector": "test-rc-static=true"}
    with controllers.watch(**selector) as watch:
        controllers.new("rc-test", labels={"test-rc-static": "true"}, spec=controller({"test-rc-static": "true"}))
        watch.expect("ADDED")
        watch.expect("MODIFIED", lambda found: found["status"].get("readyReplicas") == 1)
        controllers.patch("rc-test", {"metadata": {"labels": {"test-rc": "patched"}}})
        watch.expect("MODIFIED", lambda found: found["metadata"]["labels"].get("test-rc") == "patched")
        controllers.patch("rc-test", {"status": {"readyReplicas": 0, "availableReplicas": 0}}, sub="status")
        watch.expect("MODIFIED", lambda found: not found["status"].get("readyReplicas"))
        assert controllers.get("rc-test", "status")["kind"] == "ReplicationController"
        watch.expect("MODIFIED", lambda found: found["status"].get("readyReplicas") == 1)
        controllers.patch("rc-test", {"spec": {"replicas": 2}}, sub="scale")
        watch.expect("MODIFIED", lambda found: found["status"].get("readyReplicas") == 2)
        assert api.at(REPLICATION_CONTROLLERS).names(**selector) == ["rc-test"]
        controllers.change("rc-test", lambda latest: latest["metadata"]["labels"].update(test="updated"))
        controllers.delete_all(**selector)
        watch.expect("DELETED")


@pytest.mark.conformance("[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]")
def test_a_set_adopts_and_releases(pods, sets):
    pods.new("pod-adoption-release", labels={"name": "x"}, spec=pod_spec())
    made = sets.new("pod-adoption-release", spec=workload({"name": "x"}))
    pods.until("pod-adoption-release", lambda pod: (owner_of(pod) or {}).get("uid") == made["metadata"]["uid"])
    pods.patch("pod-adoption-release", {"metadata": {"labels": {"name": "not-matching-name"}}})
    pods.until("pod-adoption-release", lambda pod: owner_of(pod) is None)


@pytest.mark.conformance("[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]")
def test_a_set_is_scaled(sets):
    scales(sets, workload({"name": "sample-pod"}))


@pytest.mark.conformance("[sig-apps] ReplicaSet Replace and Patch tests [Conformance]")
def test_a_set_is_replaced_and_patched(pods, sets):
    sets.new("test-rs", labels={"test-rs": "patched"}, spec=workload({"app": "test-rs"}))
    sets.change("test-rs", lambda found: found["spec"].update(replicas=2))
    sets.until("test-rs", lambda found: found["status"].get("readyReplicas") == 2)
    image = "registry.k8s.io/pause:3.10"
    template = {"spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]}}
    patched = sets.patch(
        "test-rs", {"metadata": {"labels": {"test-rs": "patched"}}, "spec": {"replicas": 3, "template": template}}, "strategic"
    )
    assert patched["spec"]["template"]["spec"]["containers"][0]["image"] == image
    sets.until("test-rs", lambda found: found["status"].get("readyReplicas") == 3)


@pytest.mark.conformance("[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]")
def test_sets_are_listed_and_deleted_together(api, sets):
    selector = {"labelSelector": "e2e=collection"}
    sets.new("test-rs", labels={"e2e": "collection"}, spec=workload({"name": "x"}, replicas=3))
    sets.until("test-rs", lambda found: found["status"].get("readyReplicas") == 3)
    assert api.at(REPLICA_SETS).names(**selector) == ["test-rs"]
    sets.delete_all(**selector)
    until(lambda: not api.at(REPLICA_SETS).items(**selector))


def has_status(door, name, resource):
    """The status is read, replaced and patched by its own path, and no other path changes it."""
    found = door.get(name, "status")
    assert found["kind"] == resource.kind
    told = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}

    def append(latest):
        latest["status"]["conditions"] = [*(latest["status"].get("conditions") or ()), told]

    with door.watch(fieldSelector=f"metadata.name={name}") as watch:
        assert told.items() <= conditions(door.change(name, append, "status"))["StatusUpdate"].items()
        watch.expect("MODIFIED", lambda latest: "StatusUpdate" in conditions(latest))
        patch = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
        assert list(conditions(door.patch(name, patch, sub="status"))) == ["StatusPatched"]
        watch.expect("MODIFIED", lambda latest: "StatusPatched" in conditions(latest))


@pytest.mark.conformance("[sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]")
def test_the_status_of_a_set(sets):
    sets.new("test-rs", spec=workload({"name": "x"}))
    sets.until("test-rs", lambda found: found["status"].get("readyReplicas") == 1)
    has_status(sets, "test-rs", REPLICA_SETS)


def test_held_pods_are_not_ready(pods, sets):
    sets.new("held", spec=workload({"name": "x"}, fate=HOLD))
    sets.until("held", lambda found: found["status"].get("replicas") == 1)
    assert not sets.get("held")["status"].get("readyReplicas")
    assert pods.items()[0]["metadata"]["annotations"][PLAYED] == HOLD
