"""[sig-apps] Deployment: rollouts, rollover, proportion, history, scale, status."""

import pytest
from conformance_api import until
from conformance_plane import PLAYED, UNREADY
from conformance_workloads import workload
from test_conformance_replicas import has_status, scales

from atoll.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS

NAME = "test-deployment"
LABELS = {"name": "sample-pod"}
REVISION = "deployment.kubernetes.io/revision"


@pytest.fixture
def deployments(api, ns):
    return api.at(DEPLOYMENTS, ns)


@pytest.fixture
def sets(api, ns):
    return api.at(REPLICA_SETS, ns)


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def image(name):
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


def complete(deployments, name=NAME, replicas=None):
    def done(found):
        status, wanted = found["status"], found["spec"]["replicas"] if replicas is None else replicas
        counts = {status.get(each, 0) for each in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")}
        return status.get("observedGeneration", 0) >= found["metadata"]["generation"] and counts == {wanted}

    return deployments.until(name, done)


def sizes(sets):
    """Revision → replicas wanted."""
    return {int(found["metadata"]["annotations"][REVISION]): found["spec"]["replicas"] for found in sets.items()}


@pytest.mark.conformance("[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]")
def test_a_rolling_update(deployments, sets, pods):
    old = sets.new("test-rolling-update-controller", labels=LABELS, annotations={REVISION: "3546342"}, spec=workload(LABELS))
    sets.until(old["metadata"]["name"], lambda found: found["status"].get("readyReplicas") == 1)
    deployments.new(NAME, spec=workload(LABELS, pod={"containers": [{"name": "main", "image": "new"}]}))
    found = complete(deployments)
    assert found["metadata"]["annotations"][REVISION] == "3546343"
    until(lambda: [pod["spec"]["containers"][0]["image"] for pod in pods.items()] == ["new"], "only the new pod")
    adopted = sets.get("test-rolling-update-controller")
    assert adopted["spec"]["replicas"] == 0
    assert adopted["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]


@pytest.mark.conformance("[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]")
def test_a_recreation(deployments, pods):
    deployments.new(NAME, spec=workload(LABELS, strategy={"type": "Recreate"}))
    complete(deployments)
    start = pods.list()["metadata"]["resourceVersion"]
    deployments.patch(NAME, image("new"), "strategic")
    with pods.watch(resourceVersion=start) as watch:
        passed = []
        for kind, pod in watch:
            passed.append((kind, pod["spec"]["containers"][0]["image"]))
            if passed[-1] == ("ADDED", "new"):
                break
    assert "DELETED" in [kind for kind, _ in passed]  # before any new pod came
    complete(deployments)


@pytest.mark.conformance("[sig-apps] Deployment deployment should delete old replica sets [Conformance]")
def test_the_history_is_cut(deployments, sets):
    deployments.new(NAME, spec=workload(LABELS, revisionHistoryLimit=0))
    complete(deployments)
    deployments.patch(NAME, image("new"), "strategic")
    complete(deployments)
    until(lambda: list(sizes(sets)) == [2], "the old set is gone")


@pytest.mark.conformance("[sig-apps] Deployment deployment should support rollover [Conformance]")
def test_a_rollover(deployments, sets):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    deployments.new(NAME, spec=workload(LABELS, fate=UNREADY, strategy=strategy))
    until(lambda: sizes(sets) == {1: 1})
    broken = image("nonexistent")
    deployments.patch(NAME, broken, "strategic")
    until(lambda: sizes(sets) == {1: 1, 2: 1}, "the second revision begins")
    healthy = {"spec": {"template": {"metadata": {"annotations": {PLAYED: ""}}, **image("good")["spec"]["template"]}}}
    deployments.patch(NAME, healthy, "strategic")
    complete(deployments)
    until(lambda: sizes(sets) == {1: 0, 2: 0, 3: 1}, "only the third is left")


@pytest.mark.conformance("[sig-apps] Deployment deployment should support proportional scaling [Conformance]")
def test_scaling_in_proportion(deployments, sets):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    deployments.new(NAME, spec=workload(LABELS, replicas=10, strategy=strategy))
    complete(deployments)
    broken = image("webserver:404")
    broken["spec"]["template"]["metadata"] = {"annotations": {PLAYED: UNREADY}}
    deployments.patch(NAME, broken, "strategic")
    until(lambda: sizes(sets) == {1: 8, 2: 5}, "the broken rollout stands")
    deployments.until(NAME, lambda found: found["status"].get("availableReplicas") == 8)
    deployments.patch(NAME, {"spec": {"replicas": 30}})
    until(lambda: sizes(sets) == {1: 20, 2: 13}, "both grow in proportion")


@pytest.mark.conformance("[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]")
def test_a_deployment_is_scaled(deployments):
    scales(deployments, workload(LABELS))


@pytest.mark.conformance("[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]")
def test_the_status_of_a_deployment(deployments):
    deployments.new(NAME, spec=workload(LABELS))
    complete(deployments)
    has_status(deployments, NAME, DEPLOYMENTS)


@pytest.mark.conformance("[sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]")
def test_the_life_of_a_deployment(api, deployments):
    selector = {"labelSelector": "test-deployment-static=true"}
    labels = {"test-deployment-static": "true"}
    with deployments.watch(**selector) as watch:
        deployments.new(NAME, labels=labels, spec=workload(labels, replicas=2))
        watch.expect("ADDED")
        watch.expect("MODIFIED", lambda found: found["status"].get("readyReplicas") == 2)
        change = {"metadata": {"labels": {"test-deployment": "patched"}}, "spec": {"replicas": 2, **image("patched")["spec"]}}
        deployments.patch(NAME, change, "strategic")
        watch.expect("MODIFIED", lambda found: found["metadata"]["labels"].get("test-deployment") == "patched")
        complete(deployments)
        assert NAME in api.at(DEPLOYMENTS).names(**selector)
        deployments.change(NAME, lambda found: found["metadata"]["labels"].update({"test-deployment": "updated"}))
        watch.expect("MODIFIED", lambda found: found["metadata"]["labels"].get("test-deployment") == "updated")
        deployments.patch(NAME, {"status": {"readyReplicas": 0}}, sub="status")
        watch.expect("MODIFIED", lambda found: not found["status"].get("readyReplicas"))
        watch.expect("MODIFIED", lambda found: found["status"].get("readyReplicas") == 2)
        deployments.delete_all(**selector)
        watch.expect("DELETED")
