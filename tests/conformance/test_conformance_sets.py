"""[sig-apps] StatefulSet, DaemonSet and ControllerRevision: order, revisions, phases of an update, nodes."""

import pytest
from conformance_api import until
from conformance_plane import FAIL, NODE_NAMES, PLAYED, UNREADY
from conformance_workloads import IMAGE, template, workload
from test_conformance_replicas import has_status, scales

from atoll.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS, SERVICES, STATEFUL_SETS

LABELS = {"foo": "bar", "baz": "blah"}
SET = "ss"


@pytest.fixture
def sets(api, ns):
    api.at(SERVICES, ns).new("test", spec={"clusterIP": "None", "selector": LABELS, "ports": [{"port": 80}]})
    return api.at(STATEFUL_SETS, ns)


@pytest.fixture
def daemons(api, ns):
    return api.at(DAEMON_SETS, ns)


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def spec(**fields):
    return workload(LABELS, serviceName="test", **fields)


def ready(sets, count, name=SET):
    return sets.until(name, lambda found: found["status"].get("readyReplicas", 0) == found["status"].get("replicas") == count)


def image(name):
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


def is_updated(found):
    status = found["status"]
    seen = status["observedGeneration"] == found["metadata"]["generation"]
    return seen and status.get("currentRevision") == status.get("updateRevision") and status.get("readyReplicas") == 3


def revisions(pods):
    return {pod["metadata"]["name"]: pod["metadata"]["labels"]["controller-revision-hash"] for pod in pods.items()}


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of "
    "template modifications [Conformance]"
)
def test_updates_roll_from_the_last_pod_and_back(sets, pods):
    sets.new(SET, spec=spec(replicas=3))
    first = ready(sets, 3)["status"]["currentRevision"]
    for name, back in (("new", False), (IMAGE, True)):
        start = pods.list()["metadata"]["resourceVersion"]
        sets.patch(SET, image(name), "strategic")
        with pods.watch(resourceVersion=start) as watch:
            gone = [watch.expect("DELETED")["metadata"]["name"] for _ in range(3)]
        assert gone == ["ss-2", "ss-1", "ss-0"]
        done = sets.until(SET, is_updated)
        assert set(revisions(pods).values()) == {done["status"]["currentRevision"]}
        assert (done["status"]["currentRevision"] == first) is back


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling "
    "updates of template modifications [Conformance]"
)
def test_updates_go_by_partition(sets, pods):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}
    sets.new(SET, spec=spec(replicas=3, updateStrategy=strategy))
    old = ready(sets, 3)["status"]["currentRevision"]
    sets.patch(SET, image("new"), "strategic")
    new = sets.until(SET, lambda found: found["status"].get("updateRevision") not in (None, old))["status"]["updateRevision"]
    assert set(revisions(pods).values()) == {old}
    for partition in (2, 1, 0):
        sets.patch(SET, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": partition}}}})
        wanted = {f"ss-{number}": new if number >= partition else old for number in range(3)}
        until(lambda wanted=wanted: revisions(pods) == wanted, f"the pods from {partition} on are new")
        ready(sets, 3)
    pods.delete("ss-0")
    until(lambda: revisions(pods).get("ss-0") == new)


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and "
    "halt if any stateful pod is unhealthy [Slow] [Conformance]"
)
def test_scaling_goes_in_order_and_halts(sets, pods):
    sets.new(SET, spec=spec(replicas=1))
    ready(sets, 1)
    pods.patch("ss-0", {"metadata": {"annotations": {PLAYED: UNREADY}}})
    sets.until(SET, lambda found: not found["status"].get("readyReplicas"))
    start = pods.list()["metadata"]["resourceVersion"]
    with pods.watch(resourceVersion=start) as watch:
        sets.patch(SET, {"spec": {"replicas": 3}})
        sets.until(SET, lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"])
        assert pods.names() == ["ss-0"]
        pods.patch("ss-0", {"metadata": {"annotations": {PLAYED: ""}}})
        assert [watch.expect("ADDED")["metadata"]["name"] for _ in range(2)] == ["ss-1", "ss-2"]
        ready(sets, 3)
        for name in ("ss-0", "ss-1", "ss-2"):
            pods.patch(name, {"metadata": {"annotations": {PLAYED: UNREADY}}})
        sets.until(SET, lambda found: not found["status"].get("readyReplicas"))
        sets.patch(SET, {"spec": {"replicas": 0}})
        sets.until(SET, lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"])
        assert pods.names() == ["ss-0", "ss-1", "ss-2"]
        for name in ("ss-0", "ss-1", "ss-2"):
            pods.patch(name, {"metadata": {"annotations": {PLAYED: ""}}})
        assert [watch.expect("DELETED")["metadata"]["name"] for _ in range(3)] == ["ss-2", "ss-1", "ss-0"]


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with "
    "unhealthy pods [Slow] [Conformance]"
)
def test_bursts_do_not_wait_for_health(sets, pods):
    sets.new(SET, spec=spec(replicas=1, podManagementPolicy="Parallel", fate=UNREADY))
    until(lambda: pods.names() == ["ss-0"])
    sets.patch(SET, {"spec": {"replicas": 3}})
    sets.until(SET, lambda found: found["status"].get("replicas") == 3 and not found["status"].get("readyReplicas"))
    sets.patch(SET, {"spec": {"replicas": 0}})
    until(lambda: not pods.items(), "all go")


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset [Conformance]"
)
def test_a_failed_pod_comes_back(sets, pods):
    sets.new(SET, spec=spec(replicas=1))
    ready(sets, 1)
    before = pods.get("ss-0")["metadata"]["uid"]
    pods.patch("ss-0", {"metadata": {"annotations": {PLAYED: FAIL}}})
    until(lambda: not pods.gone("ss-0") and pods.get("ss-0")["metadata"]["uid"] != before, "another pod of that name")
    ready(sets, 1)


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]"
)
def test_a_stateful_set_is_scaled(sets):
    scales(sets, spec())


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of "
    "StatefulSets [Conformance]"
)
def test_stateful_sets_are_listed_and_deleted_together(api, sets):
    sets.new("test-ss", labels={"e2e": "ss"}, spec=spec())
    ready(sets, 1, "test-ss")
    assert api.at(STATEFUL_SETS).names(labelSelector="e2e=ss") == ["test-ss"]
    change = {"metadata": {"labels": {"test-ss": "patched"}}, "spec": {"replicas": 2, **image("patched")["spec"]}}
    patched = sets.patch("test-ss", change, "strategic")
    assert (patched["metadata"]["labels"]["test-ss"], patched["spec"]["replicas"]) == ("patched", 2)
    ready(sets, 2, "test-ss")
    sets.delete_all(labelSelector="test-ss=patched")
    until(lambda: not api.at(STATEFUL_SETS).items(labelSelector="test-ss=patched"))


@pytest.mark.conformance(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]"
)
def test_the_status_of_a_stateful_set(sets):
    sets.new(SET, spec=spec())
    ready(sets, 1)
    has_status(sets, SET, STATEFUL_SETS)


# Daemon sets

DAEMON = {"daemonset-name": "daemon-set"}


def daemon(fate=None, **fields):
    return {"selector": {"matchLabels": DAEMON}, "template": template(DAEMON, fate=fate, **fields.pop("pod", {})), **fields}


def on_all_nodes(daemons, pods):
    daemons.until("daemon-set", lambda found: found["status"].get("numberAvailable") == len(NODE_NAMES))
    until(lambda: sorted(pod["spec"].get("nodeName", "") for pod in pods.items()) == sorted(NODE_NAMES), "one pod on each node")


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]")
def test_a_daemon_on_each_node(daemons, pods):
    daemons.new("daemon-set", spec=daemon())
    on_all_nodes(daemons, pods)
    stopped = pods.names()[0]
    pods.delete(stopped)
    until(lambda: stopped not in pods.names())
    on_all_nodes(daemons, pods)


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should run and stop complex daemon [Conformance]")
def test_daemons_follow_labels_of_nodes(api, daemons, pods):
    color = "daemonset-color"
    daemons.new("daemon-set", spec=daemon(pod={"nodeSelector": {color: "blue"}}))
    daemons.until("daemon-set", lambda found: found["status"].get("observedGeneration") == 1)
    assert pods.items() == []
    nodes = api.at(NODES)
    nodes.patch("node-a", {"metadata": {"labels": {color: "blue"}}})
    until(lambda: [pod["spec"].get("nodeName") for pod in pods.items()] == ["node-a"], "a pod on the blue node")
    nodes.patch("node-a", {"metadata": {"labels": {color: "green"}}})
    until(lambda: not pods.items(), "none on a green one")
    change = {"spec": {"template": {"spec": {"nodeSelector": {color: "green"}}}, "updateStrategy": {"type": "RollingUpdate"}}}
    daemons.patch("daemon-set", change)
    until(lambda: [pod["spec"].get("nodeName") for pod in pods.items()] == ["node-a"], "a pod again")
    nodes.patch("node-a", {"metadata": {"labels": {color: None}}})


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should retry creating failed daemon pods [Conformance]")
def test_failed_daemons_come_again(daemons, pods):
    daemons.new("daemon-set", spec=daemon())
    on_all_nodes(daemons, pods)
    failed = pods.items()[0]["metadata"]
    pods.patch(failed["name"], {"metadata": {"annotations": {PLAYED: FAIL}}})
    until(lambda: failed["name"] not in pods.names(), "the failed pod is gone")
    on_all_nodes(daemons, pods)


@pytest.mark.conformance(
    "[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate [Conformance]"
)
def test_daemons_are_updated(daemons, pods):
    daemons.new("daemon-set", spec=daemon(updateStrategy={"type": "RollingUpdate"}))
    on_all_nodes(daemons, pods)
    daemons.patch("daemon-set", image("new"), "strategic")
    until(lambda: [pod["spec"]["containers"][0]["image"] for pod in pods.items()] == ["new", "new"], "both are new")
    on_all_nodes(daemons, pods)


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts [Conformance]")
def test_a_rollback_spares_what_was_not_updated(daemons, pods):
    daemons.new("daemon-set", spec=daemon(updateStrategy={"type": "RollingUpdate"}))
    on_all_nodes(daemons, pods)
    before = {pod["metadata"]["uid"] for pod in pods.items()}
    good = daemons.get("daemon-set")["spec"]["template"]
    broken = image("foo:non-existent")
    broken["spec"]["template"]["metadata"] = {"annotations": {PLAYED: UNREADY}}
    daemons.patch("daemon-set", broken, "strategic")
    until(lambda: [pod for pod in pods.items() if pod["spec"]["containers"][0]["image"] == "foo:non-existent"], "one broken pod")
    spared = before & {pod["metadata"]["uid"] for pod in pods.items()}
    assert len(spared) == 1
    daemons.change("daemon-set", lambda found: found["spec"].update(template=good))
    on_all_nodes(daemons, pods)
    assert spared <= {pod["metadata"]["uid"] for pod in pods.items()}


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]")
def test_daemon_sets_are_listed_and_deleted_together(api, daemons, pods):
    daemons.new("daemon-set", labels=DAEMON, spec=daemon())
    on_all_nodes(daemons, pods)
    selector = {"labelSelector": "daemonset-name=daemon-set"}
    assert api.at(DAEMON_SETS).names(**selector) == ["daemon-set"]
    daemons.delete_all(**selector)
    until(lambda: not api.at(DAEMON_SETS).items(**selector))


@pytest.mark.conformance("[sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]")
def test_the_status_of_a_daemon_set(daemons, pods):
    daemons.new("daemon-set", spec=daemon())
    on_all_nodes(daemons, pods)
    has_status(daemons, "daemon-set", DAEMON_SETS)


@pytest.mark.conformance("[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]")
def test_the_life_of_a_revision(api, ns, daemons, pods):
    daemons.new("daemon-set", labels=DAEMON, spec=daemon())
    on_all_nodes(daemons, pods)
    door = api.at(CONTROLLER_REVISIONS, ns)
    selector = {"labelSelector": "daemonset-name=daemon-set"}
    (first,) = api.at(CONTROLLER_REVISIONS).items(**selector)
    assert first["revision"] == 1
    patched = door.patch(first["metadata"]["name"], {"metadata": {"labels": {first["metadata"]["name"]: "patched"}}})
    assert patched["metadata"]["labels"][first["metadata"]["name"]] == "patched"
    second = {field: first[field] for field in ("data", "apiVersion", "kind")}
    labels = {**DAEMON, "controller-revision-hash": "second"}
    door.create(
        {**second, "revision": 3, "metadata": {"name": "second", "labels": labels, "ownerReferences": first["metadata"]["ownerReferences"]}}
    )
    assert "second" in door.names(**selector)
    door.delete(first["metadata"]["name"])
    until(lambda: len(door.items(**selector)) >= 1)
    updated = door.change("second", lambda found: found["metadata"]["labels"].update(second="updated"))
    assert updated["metadata"]["labels"]["second"] == "updated"
    door.delete_all(labelSelector="second=updated")
    assert door.names(labelSelector="second=updated") == []
