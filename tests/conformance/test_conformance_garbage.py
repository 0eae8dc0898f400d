"""[sig-api-machinery] Garbage collector: what goes with its owner, what waits for its children, what stays."""

import time

import pytest
from conformance_api import until
from conformance_plane import HOLD
from conformance_workloads import controller, pod_spec, workload

from atoll.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS

LABELS = {"gctest": "yes"}
STAYS_S = 0.5  # how long orphans are watched to stay


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


@pytest.fixture
def controllers(api, ns, pods):
    """A door to replication controllers whose `new` waits for the pods."""
    door = api.at(REPLICATION_CONTROLLERS, ns)

    def new(name, replicas=3, labels=LABELS):
        made = door.new(name, spec=controller(labels, replicas=replicas))
        until(lambda: len(pods.items()) >= replicas, "the pods of the controller")
        return made

    door.with_pods = new
    return door


@pytest.mark.conformance("[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]")
def test_pods_go_with_their_controller(controllers, pods):
    controllers.with_pods("rc")
    controllers.delete("rc", propagationPolicy="Background")
    until(lambda: not pods.items(), "all pods are gone")


@pytest.mark.conformance(
    "[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial] [Conformance]"
)
def test_pods_stay_when_orphaned(controllers, pods):
    controllers.with_pods("rc", 10)
    controllers.delete("rc", propagationPolicy="Orphan")
    controllers.until_gone("rc")
    end = time.monotonic() + STAYS_S
    while time.monotonic() < end:
        assert len(pods.items()) == 10
    assert all(not pod["metadata"].get("ownerReferences") for pod in pods.items())


@pytest.mark.conformance("[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]")
def test_replica_sets_go_with_their_deployment(api, ns):
    deployments, sets = api.at(DEPLOYMENTS, ns), api.at(REPLICA_SETS, ns)
    deployments.new("d", spec=workload(LABELS, replicas=2))
    until(sets.items, "the replica set")
    deployments.delete("d", propagationPolicy="Background")
    until(lambda: not sets.items(), "no replica set is left")


@pytest.mark.conformance(
    "[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan "
    "[Conformance]"
)
def test_replica_sets_stay_when_orphaned(api, ns):
    deployments, sets = api.at(DEPLOYMENTS, ns), api.at(REPLICA_SETS, ns)
    deployments.new("d", spec=workload(LABELS, replicas=2))
    until(sets.items, "the replica set")
    deployments.delete("d", propagationPolicy="Orphan")
    deployments.until_gone("d")
    end = time.monotonic() + STAYS_S
    while time.monotonic() < end:
        (found,) = sets.items()
        assert not found["metadata"].get("ownerReferences")


@pytest.mark.conformance(
    "[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so "
    "[Serial] [Conformance]"
)
def test_the_controller_waits_for_its_pods(controllers, pods):
    controllers.with_pods("rc", 3)
    held = pods.names()[0]
    pods.patch(held, {"metadata": {"finalizers": ["example.com/wait"]}})
    controllers.delete("rc", propagationPolicy="Foreground")
    until(lambda: pods.names() == [held], "the other pods are gone")
    waiting = controllers.get("rc")
    assert waiting["metadata"]["deletionTimestamp"]
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    pods.patch(held, {"metadata": {"finalizers": None}})
    controllers.until_gone("rc")
    assert pods.items() == []


@pytest.mark.conformance(
    "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for "
    "dependents to be deleted [Serial] [Conformance]"
)
def test_a_pod_with_another_owner_stays(controllers, pods):
    goes = controllers.with_pods("goes", 4, {"which": "goes"})
    stays = controllers.new("stays", spec=controller({"which": "stays"}, replicas=0))
    reference = {"apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": stays["metadata"]["uid"]}
    shared = pods.names()[:2]
    for name in shared:
        pods.patch(name, [{"op": "add", "path": "/metadata/ownerReferences/-", "value": reference}], "json")
    controllers.delete("goes", propagationPolicy="Foreground")
    controllers.until_gone("goes")
    assert sorted(pods.names()) == sorted(shared)
    for pod in pods.items():
        assert not pod["metadata"].get("deletionTimestamp")
        assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == [stays["metadata"]["uid"]]
    assert goes["metadata"]["uid"] != stays["metadata"]["uid"]


@pytest.mark.conformance("[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]")
def test_a_circle_of_owners_goes(pods):
    made = {name: pods.new(name, annotations={"conformance/kubelet": HOLD}, spec=pod_spec()) for name in ("pod1", "pod2", "pod3")}
    for name, owner in (("pod1", "pod3"), ("pod2", "pod1"), ("pod3", "pod2")):
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": owner,
            "uid": made[owner]["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pods.patch(name, {"metadata": {"ownerReferences": [reference]}})
    pods.delete("pod1", propagationPolicy="Foreground")
    until(lambda: not pods.items(), "all three are gone")
