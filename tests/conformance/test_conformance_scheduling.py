"""[sig-scheduling], [sig-node] and budgets as far as API server, scheduler and controllers decide: limits, fit, taints, pods."""

import pytest
from conformance_api import Refused, until
from conformance_plane import HOLD, NODE_NAMES, PLAYED
from conformance_workloads import container, pod_spec, workload

from atoll.client.resources import LIMIT_RANGES, NODES, POD_DISRUPTION_BUDGETS, PODS, PRIORITY_CLASSES, REPLICA_SETS, RUNTIME_CLASSES

KEPT = {PLAYED: HOLD}


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def condition(pod, kind):
    return next((each for each in pod["status"].get("conditions") or () if each["type"] == kind), None)


def scheduled(pods, name):
    return pods.until(name, lambda pod: pod["spec"].get("nodeName"))["spec"]["nodeName"]


def unschedulable(pods, name):
    def told(pod):
        found = condition(pod, "PodScheduled")
        return found is not None and (found["status"], found["reason"]) == ("False", "Unschedulable")

    return condition(pods.until(name, told), "PodScheduled")["message"]


LIMITS = {
    "type": "Container",
    "min": {"cpu": "50m", "memory": "100Mi"},
    "max": {"cpu": "500m", "memory": "500Mi"},
    "default": {"cpu": "500m", "memory": "500Mi"},
    "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
}


@pytest.mark.conformance(
    "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]"
)
def test_limits_give_defaults_and_refuse(api, ns, pods):
    ranges = api.at(LIMIT_RANGES, ns)
    with ranges.watch() as watch:
        ranges.new("limit-range", spec={"limits": [LIMITS]})
        assert watch.expect("ADDED")["spec"]["limits"] == [LIMITS]
    wanted = {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}}
    assert pods.new("no-resources", annotations=KEPT, spec=pod_spec())["spec"]["containers"][0]["resources"] == wanted
    partial = container(resources={"requests": {"cpu": "300m"}, "limits": {"cpu": "300m"}})
    found = pods.new("partial", annotations=KEPT, spec={"containers": [partial]})["spec"]["containers"][0]["resources"]
    assert found == {"requests": {"cpu": "300m", "memory": "200Mi"}, "limits": {"cpu": "300m", "memory": "500Mi"}}
    for amounts in (
        {"requests": {"cpu": "10m", "memory": "50Mi"}},
        {"requests": {"cpu": "600m"}, "limits": {"cpu": "600m", "memory": "600Mi"}},
    ):
        with pytest.raises(Refused) as refused:
            pods.new("refused", spec={"containers": [container(resources=amounts)]})
        assert refused.value.code == 403
    lower = {**LIMITS, "min": {"cpu": "9m", "memory": "49Mi"}}
    ranges.change("limit-range", lambda each: each["spec"].update(limits=[lower]))
    pods.new("small", annotations=KEPT, spec={"containers": [container(resources={"requests": {"cpu": "10m", "memory": "50Mi"}})]})
    ranges.delete("limit-range")
    ranges.until_gone("limit-range")
    pods.new("large", annotations=KEPT, spec={"containers": [container(resources={"limits": {"cpu": "600m", "memory": "600Mi"}})]})


@pytest.mark.conformance("[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]")
def test_limit_ranges_are_listed_and_deleted_together(api, ns, namespaces):
    ranges, other, selector = api.at(LIMIT_RANGES, ns), namespaces(), {"labelSelector": f"e2e-test={ns}"}
    for space in (ns, other):
        api.at(LIMIT_RANGES, space).new("limits", labels={"e2e-test": ns}, spec={"limits": [LIMITS]})
    assert len(api.at(LIMIT_RANGES).items(**selector)) == 2
    patch = {"metadata": {"labels": {"limits": "patched"}}, "spec": {"limits": [{**LIMITS, "default": {"cpu": "400m", "memory": "400Mi"}}]}}
    patched = ranges.patch("limits", patch, "strategic")
    assert (patched["metadata"]["labels"]["limits"], patched["spec"]["limits"][0]["default"]["cpu"]) == ("patched", "400m")
    ranges.delete_all(labelSelector="limits=patched")
    assert [each["metadata"]["namespace"] for each in api.at(LIMIT_RANGES).items(**selector)] == [other]


@pytest.fixture
def label(api):
    """A label on node-a for the time of a test."""
    key = "kubernetes.io/e2e-label"
    api.at(NODES).patch("node-a", {"metadata": {"labels": {key: "42"}}})
    yield key
    api.at(NODES).patch("node-a", {"metadata": {"labels": {key: None}}})


@pytest.mark.conformance("[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching [Conformance]")
def test_a_selector_that_matches(pods, label):
    pods.new("with-labels", spec=pod_spec(nodeSelector={label: "42"}))
    assert scheduled(pods, "with-labels") == "node-a"


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching [Conformance]"
)
def test_a_selector_that_matches_nothing(pods):
    pods.new("restricted-pod", spec=pod_spec(nodeSelector={"label": "nonempty"}))
    assert unschedulable(pods, "restricted-pod").startswith("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector")


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run [Conformance]"
)
def test_what_does_not_fit_waits(pods):
    for name in NODE_NAMES:
        big = pod_spec(containers=[container(resources={"requests": {"cpu": "3"}})], nodeSelector={"kubernetes.io/hostname": name})
        pods.new(f"filler-{name}", spec=big)
        assert scheduled(pods, f"filler-{name}") == name
    pods.new("additional-pod", spec=pod_spec(containers=[container(resources={"requests": {"cpu": "2"}})]))
    assert "2 Insufficient cpu" in unschedulable(pods, "additional-pod")
    pods.delete("filler-node-a")
    assert scheduled(pods, "additional-pod") == "node-a"


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and "
    "protocol but one using 0.0.0.0 hostIP [Conformance]"
)
def test_host_ports_conflict(pods, label):
    def listening(address):
        ports = [{"containerPort": 8080, "hostPort": 54322, "protocol": "TCP", **({"hostIP": address} if address else {})}]
        return pod_spec(containers=[container(ports=ports)], nodeSelector={label: "42"})

    pods.new("pod4", spec=listening(""))
    assert scheduled(pods, "pod4") == "node-a"
    pods.new("pod5", spec=listening("127.0.0.1"))
    assert "didn't have free ports" in unschedulable(pods, "pod5")


@pytest.fixture
def priorities(api):
    """Priority classes of this directory; the names' numbers are their values."""
    door = api.at(PRIORITY_CLASSES)
    values = {"sched-preemption-low": 1, "sched-preemption-medium": 100, "sched-preemption-high": 1000}
    for name, value in values.items():
        door.new(name, value=value)
    yield values
    for name in values:
        door.delete(name)


def fills(pods, name, priority, cpu="3", **fields):
    spec = pod_spec(
        containers=[container(resources={"requests": {"cpu": cpu}, "limits": {"cpu": cpu}})], priorityClassName=priority, **fields
    )
    return pods.new(name, spec=spec, **({"metadata": {"finalizers": ["example.com/look"]}} if name.startswith("looked-at") else {}))


@pytest.mark.conformance("[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works [Conformance]")
def test_the_lower_priority_makes_room(pods, priorities):
    for number, priority in enumerate(("sched-preemption-low", "sched-preemption-medium")):
        fills(pods, f"victim-{number}", priority)
        scheduled(pods, f"victim-{number}")
    fills(pods, "preemptor", "sched-preemption-high")
    scheduled(pods, "preemptor")
    pods.until_gone("victim-0")
    assert "victim-1" in pods.names()


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod [Conformance]"
)
def test_a_critical_pod_makes_room(api, pods, priorities):
    for number, priority in enumerate(("sched-preemption-low", "sched-preemption-medium")):
        fills(pods, f"victim-{number}", priority)
        scheduled(pods, f"victim-{number}")
    system = api.at(PODS, "kube-system")
    fills(system, "critical-pod", "system-cluster-critical")
    try:
        scheduled(system, "critical-pod")
        pods.until_gone("victim-0")
        assert "victim-1" in pods.names()
    finally:
        system.delete("critical-pod", gracePeriodSeconds=0)


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod [Conformance]"
)
def test_the_preempted_pod_is_told(pods, priorities):
    node = {"kubernetes.io/hostname": "node-a"}
    fills(pods, "looked-at-victim", "sched-preemption-low", nodeSelector=node)
    scheduled(pods, "looked-at-victim")
    fills(pods, "preemptor", "sched-preemption-high", nodeSelector=node)
    told = condition(pods.until("looked-at-victim", lambda pod: condition(pod, "DisruptionTarget")), "DisruptionTarget")
    assert (told["status"], told["reason"]) == ("True", "PreemptionByScheduler")
    pods.patch("looked-at-victim", {"metadata": {"finalizers": None}})
    scheduled(pods, "preemptor")


FAKE_CPU = "example.com/fakecpu"


@pytest.mark.conformance(
    "[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance]"
)
def test_replica_sets_are_preempted_once(api, ns, pods):
    """The pods that are made anew for the victims must not take the room these gave up."""
    nodes, classes, sets = api.at(NODES), api.at(PRIORITY_CLASSES), api.at(REPLICA_SETS, ns)
    amounts = {1: "200", 2: "300", 3: "450", 4: "500"}
    nodes.patch("node-a", {"status": {"capacity": {FAKE_CPU: "1000"}, "allocatable": {FAKE_CPU: "1000"}}}, sub="status")
    for number in amounts:
        classes.new(f"p{number}", value=number)
    try:
        with pods.watch() as watch:
            for number, amount in amounts.items():
                resources = {"requests": {FAKE_CPU: amount}, "limits": {FAKE_CPU: amount}}
                spec = {"containers": [container(resources=resources)], "priorityClassName": f"p{number}"}
                sets.new(f"rs-pod{number}", spec=workload({"name": f"pod{number}"}, pod=spec))
                sets.until(f"rs-pod{number}", lambda each: each["status"].get("readyReplicas") == 1)
            for number in (1, 2):  # each has made a second pod, which is refused
                sets.until(f"rs-pod{number}", lambda each: not each["status"].get("readyReplicas"))
                waits = f"name=pod{number}"
                until(lambda label=waits: [each for each in pods.items(labelSelector=label) if condition(each, "PodScheduled")])
            pods.new("last", spec=pod_spec())
            made = []
            while (pod := watch.expect("ADDED"))["metadata"]["name"] != "last":
                made.append(pod["metadata"]["labels"]["name"])
        assert sorted(made) == ["pod1", "pod1", "pod2", "pod2", "pod3", "pod4"]
    finally:
        sets.delete_all()
        for number in amounts:
            classes.delete(f"p{number}")
        nodes.patch("node-a", {"status": {"capacity": {FAKE_CPU: None}, "allocatable": {FAKE_CPU: None}}}, sub="status")


def handler(api, name, **fields):
    return api.at(RUNTIME_CLASSES).new(name, handler="runc", **fields)


@pytest.mark.conformance(
    "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]"
)
def test_a_runtime_class_that_is_not_there(pods):
    with pytest.raises(Refused) as refused:
        pods.new("pod", spec=pod_spec(runtimeClassName="nonexistent"))
    assert refused.value.code == 403
    assert 'RuntimeClass "nonexistent" not found' in refused.value.message


@pytest.mark.conformance("[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]")
def test_a_runtime_class_that_has_gone(api, pods):
    handler(api, "delete-me")
    api.at(RUNTIME_CLASSES).delete("delete-me")
    with pytest.raises(Refused) as refused:
        pods.new("pod", spec=pod_spec(runtimeClassName="delete-me"))
    assert refused.value.code == 403


@pytest.mark.conformance(
    "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance] [Conformance]"
)
def test_a_runtime_class_without_overhead(api, pods):
    handler(api, "preconfigured-handler")
    assert "overhead" not in pods.new("pod", spec=pod_spec(runtimeClassName="preconfigured-handler"))["spec"]
    scheduled(pods, "pod")
    api.at(RUNTIME_CLASSES).delete("preconfigured-handler")


@pytest.mark.conformance(
    "[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]"
)
def test_a_runtime_class_with_overhead(api, pods):
    handler(api, "overhead", overhead={"podFixed": {"cpu": "10m", "memory": "1Mi"}})
    assert pods.new("pod", spec=pod_spec(runtimeClassName="overhead"))["spec"]["overhead"] == {"cpu": "10m", "memory": "1Mi"}
    scheduled(pods, "pod")
    api.at(RUNTIME_CLASSES).delete("overhead")


@pytest.mark.conformance("[sig-node] Node Lifecycle should run through the lifecycle of a node [Conformance]")
def test_the_life_of_a_node(api):
    nodes = api.at(NODES)
    made = nodes.new("e2e-fake-node", labels={"e2e": "fake"}, status={"phase": "Running"})
    assert nodes.get("e2e-fake-node")["metadata"]["uid"] == made["metadata"]["uid"]
    assert (
        nodes.patch("e2e-fake-node", {"metadata": {"labels": {"e2e-node": "patched"}}}, "strategic")["metadata"]["labels"]["e2e-node"]
        == "patched"
    )
    assert nodes.names(labelSelector="e2e-node=patched") == ["e2e-fake-node"]
    nodes.change("e2e-fake-node", lambda node: node["metadata"]["labels"].update({"e2e-node": "updated"}))
    nodes.delete_all(labelSelector="e2e-node=updated")
    until(lambda: not nodes.names(labelSelector="e2e=fake"))


@pytest.mark.conformance("[sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]")
def test_there_are_two_nodes(api):
    assert len([node for node in api.at(NODES).items() if not node["spec"].get("taints") and not node["spec"].get("unschedulable")]) >= 2


TAINT = {"key": "kubernetes.io/e2e-evict-taint-key", "value": "evictTaintVal", "effect": "NoExecute"}


@pytest.fixture
def taint(api):
    """Taints node-b, and takes the taint off."""
    nodes = api.at(NODES)

    def off(node):
        node["spec"]["taints"] = [each for each in node["spec"].get("taints") or () if each["key"] != TAINT["key"]]

    def on(node):
        node["spec"]["taints"] = [*(node["spec"].get("taints") or ()), TAINT]

    yield lambda there: nodes.change("node-b", on if there else off)
    nodes.change("node-b", off)


def tolerating(seconds):
    tolerated = {"key": TAINT["key"], "value": TAINT["value"], "effect": "NoExecute", "tolerationSeconds": seconds}
    return pod_spec(tolerations=[tolerated], nodeSelector={"kubernetes.io/hostname": "node-b"})


@pytest.mark.conformance("[sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive] [Conformance]")
def test_a_taint_taken_off_spares_the_pod(pods, taint):
    pods.new("taint-eviction-4", spec=tolerating(1))
    scheduled(pods, "taint-eviction-4")
    with pods.watch(fieldSelector="metadata.name=taint-eviction-4") as watch:
        watch.expect("ADDED")
        taint(True)
        taint(False)
        pods.patch("taint-eviction-4", {"metadata": {"annotations": {"seen": "yes"}}})
        watch.expect("MODIFIED", lambda pod: pod["metadata"].get("annotations", {}).get("seen"))
        assert watch.silent(1.5)


@pytest.mark.conformance(
    "[sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive] [Conformance]"
)
def test_pods_are_evicted_each_in_its_time(pods, taint):
    for number, seconds in ((1, 0), (2, 1)):
        pods.new(f"taint-eviction-b{number}", spec=tolerating(seconds))
        scheduled(pods, f"taint-eviction-b{number}")
    taint(True)
    pods.until_gone("taint-eviction-b1")
    pods.until_gone("taint-eviction-b2")


QOS = [
    ("Guaranteed", {"limits": {"cpu": "100m", "memory": "100Mi"}, "requests": {"cpu": "100m", "memory": "100Mi"}}),
    ("Burstable", {"requests": {"cpu": "100m"}}),
    ("BestEffort", {}),
]


@pytest.mark.conformance(
    "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and "
    "cpu [Conformance]"
)
def test_the_class_of_service_is_set(pods):
    for expected, resources in QOS:
        made = pods.new(expected.lower(), annotations=KEPT, spec=pod_spec(containers=[container(resources=resources)]))
        assert made["status"]["qosClass"] == expected


@pytest.mark.conformance("[sig-node] Pods should delete a collection of pods [Conformance]")
def test_pods_are_deleted_together(pods):
    for number in range(3):
        pods.new(f"test-pod-{number}", labels={"type": "Testing"}, spec=pod_spec())
    pods.delete_all(labelSelector="type=Testing")
    until(lambda: not pods.items(labelSelector="type=Testing"))


@pytest.mark.conformance("[sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]")
def test_a_pod_comes_and_goes(pods):
    selector = {"labelSelector": "time=now"}
    listed = pods.list(**selector)
    assert listed["items"] == []
    with pods.watch(resourceVersion=listed["metadata"]["resourceVersion"], **selector) as watch:
        pods.new("pod-submit-remove", labels={"time": "now"}, spec=pod_spec())
        watch.expect("ADDED")
        assert pods.names(**selector) == ["pod-submit-remove"]
        watch.expect("MODIFIED", lambda pod: pod["status"]["phase"] == "Running")
        pods.delete("pod-submit-remove", gracePeriodSeconds=30)
        marked = watch.expect("MODIFIED", lambda pod: pod["metadata"].get("deletionTimestamp"))
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
        watch.expect("DELETED")
    assert pods.names(**selector) == []


@pytest.mark.conformance("[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [Conformance]")
def test_bad_names_of_sysctls_are_refused(pods):
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")
    sysctls = [{"name": name, "value": "bar"} for name in names]
    with pytest.raises(Refused) as refused:
        pods.new("pod", spec=pod_spec(securityContext={"sysctls": sysctls}))
    assert refused.value.code == 422
    told = {cause["field"] for cause in refused.value.status["details"]["causes"]}
    assert told == {f"spec.securityContext.sysctls[{number}].name" for number in (0, 3)}


@pytest.mark.conformance("[sig-node] Pods should patch a pod status [Conformance]")
def test_the_status_of_a_pod_is_patched(pods):
    pods.new("pod", annotations=KEPT, spec=pod_spec())
    scheduled(pods, "pod")
    patched = pods.patch("pod", {"status": {"message": "Patched", "reason": "E2E"}}, sub="status")
    assert (patched["status"]["message"], patched["status"]["reason"], patched["status"]["phase"]) == ("Patched", "E2E", "Pending")


@pytest.mark.conformance("[sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]")
def test_the_life_of_a_pod(api, pods):
    selector = {"labelSelector": "test-pod-static=true"}
    with pods.watch(**selector) as watch:
        pods.new("pod-test", labels={"test-pod-static": "true"}, spec=pod_spec())
        watch.expect("ADDED")
        watch.expect("MODIFIED", lambda pod: pod["status"]["phase"] == "Running" and condition(pod, "Ready")["status"] == "True")
        patch = {"metadata": {"labels": {"test-pod": "patched"}}, "spec": {"containers": [{"name": "main", "image": "patched"}]}}
        assert pods.patch("pod-test", patch, "strategic")["spec"]["containers"][0]["image"] == "patched"
        watch.expect("MODIFIED", lambda pod: pod["metadata"]["labels"].get("test-pod") == "patched")
        found = pods.get("pod-test", "status")
        told = [{**each, "status": "False"} if each["type"] == "Ready" else each for each in found["status"]["conditions"]]
        pods.patch("pod-test", {"status": {"conditions": told}}, sub="status")
        watch.expect("MODIFIED", lambda pod: condition(pod, "Ready")["status"] == "False")
        assert api.at(PODS).names(**selector) == ["pod-test"]
        pods.delete_all(**selector)
        watch.expect("DELETED")


@pytest.mark.conformance("[sig-node] Pods should be updated [NodeConformance] [Conformance]")
def test_a_pod_is_updated(pods):
    pods.new("pod-update", labels={"time": "before"}, spec=pod_spec())
    pods.until("pod-update", lambda pod: pod["status"]["phase"] == "Running")
    pods.change("pod-update", lambda pod: pod["metadata"]["labels"].update(time="after"))
    assert pods.names(labelSelector="time=after") == ["pod-update"]


@pytest.mark.conformance("[sig-node] Pods should get a host IP [NodeConformance] [Conformance]")
def test_a_pod_tells_its_host(pods):
    pods.new("pod-hostip", spec=pod_spec())
    assert pods.until("pod-hostip", lambda pod: pod["status"].get("hostIP"))["status"]["hostIP"]


@pytest.mark.conformance(
    "[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update "
    "[MinimumKubeletVersion:1.34] [Conformance]"
)
def test_the_generation_of_a_pod(pods):
    def seen(generation):
        return pods.until("pod", lambda pod: pod["metadata"]["generation"] == pod["status"].get("observedGeneration") == generation)

    made = pods.new("pod", metadata={"generation": 100}, spec=pod_spec(activeDeadlineSeconds=5000))
    assert made["metadata"]["generation"] == 1
    seen(1)
    assert pods.patch("pod", {"metadata": {"annotations": {"key": "value"}}})["metadata"]["generation"] == 1
    pods.patch("pod", {"spec": {"activeDeadlineSeconds": 4000}})
    seen(2)
    assert pods.change("pod", lambda pod: pod["spec"]["containers"][0].update(image="other"))["metadata"]["generation"] == 3
    seen(3)
    toleration = {"key": "foo-soft", "value": "bar", "effect": "PreferNoSchedule"}
    pods.change("pod", lambda pod: pod["spec"]["tolerations"].append(toleration))
    seen(4)


@pytest.mark.conformance(
    "[sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete [Conformance]"
)
def test_a_generation_given_by_the_user_and_that_of_a_delete(pods):
    made = pods.new("pod", metadata={"generation": 100, "finalizers": ["example.com/look"]}, spec=pod_spec())
    assert made["metadata"]["generation"] == 1
    scheduled(pods, "pod")
    pods.delete("pod", gracePeriodSeconds=30)
    assert pods.get("pod")["metadata"]["generation"] == 2
    pods.patch("pod", {"metadata": {"finalizers": None}})
    pods.until_gone("pod")


@pytest.mark.conformance(
    "[sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and "
    "observedGeneration eventually converge [MinimumKubeletVersion:1.34] [Conformance]"
)
def test_generations_converge(pods):
    pods.new("pod", spec=pod_spec(activeDeadlineSeconds=1000))
    pods.until("pod", lambda pod: pod["status"]["phase"] == "Running")
    for number in range(500):
        pods.patch("pod", {"spec": {"activeDeadlineSeconds": 999 - number}})
    pods.until("pod", lambda pod: pod["metadata"]["generation"] == pod["status"].get("observedGeneration") == 501)


RUNNING = {"foo": "bar"}


@pytest.fixture
def budgets(api, ns):
    return api.at(POD_DISRUPTION_BUDGETS, ns)


def budget(**fields):
    return {"selector": {"matchLabels": RUNNING}, **fields}


def runs(pods, count=3):
    for number in range(count):
        pods.new(f"rs-{number}", labels=RUNNING, spec=pod_spec())
    for number in range(count):
        pods.until(f"rs-{number}", lambda pod: condition(pod, "Ready") and condition(pod, "Ready")["status"] == "True")


@pytest.mark.conformance("[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]")
def test_a_budget_is_made_updated_and_patched(budgets):
    budgets.new("foo", spec=budget(minAvailable="1%"))
    budgets.until("foo", lambda found: found.get("status", {}).get("observedGeneration") == 1)
    budgets.change("foo", lambda found: found["spec"].update(minAvailable="2%"))
    budgets.until("foo", lambda found: found["status"].get("observedGeneration") == 2)
    patched = budgets.patch("foo", {"spec": {"minAvailable": "3%"}}, "strategic")
    assert patched["spec"]["minAvailable"] == "3%"
    budgets.until("foo", lambda found: found["status"].get("observedGeneration") == 3)
    budgets.delete("foo")


@pytest.mark.conformance("[sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]")
def test_the_status_of_a_budget_follows(pods, budgets):
    budgets.new("foo", spec=budget(minAvailable=1))
    runs(pods)
    budgets.until("foo", lambda found: found["status"].get("disruptionsAllowed") == 2)
    pods.patch("rs-0", {"metadata": {"annotations": {PLAYED: "unready"}}})
    budgets.until("foo", lambda found: found["status"].get("disruptionsAllowed") == 1)


@pytest.mark.conformance("[sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]")
def test_the_status_of_a_budget_is_changed(pods, budgets):
    budgets.new("foo", spec=budget(minAvailable=1))
    runs(pods, 1)
    budgets.until("foo", lambda found: found["status"].get("currentHealthy") == 1)
    noted = {"disruptedPods": {"pod-name": "2030-01-01T00:00:00Z"}}
    updated = budgets.change("foo", lambda found: found["status"].update(noted), "status")
    assert "pod-name" in updated["status"]["disruptedPods"]
    patched = budgets.patch("foo", {"status": {"disruptedPods": {"other": "2030-01-01T00:00:00Z"}}}, sub="status")
    assert "other" in patched["status"]["disruptedPods"]


@pytest.mark.conformance("[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it [Conformance]")
def test_an_eviction_waits_for_the_budget(api, pods, budgets):
    runs(pods, 3)
    budgets.new("foo", spec=budget(minAvailable=3))
    budgets.until("foo", lambda found: found.get("status", {}).get("currentHealthy") == 3)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "rs-0", "namespace": pods.namespace}}
    with pytest.raises(Refused) as refused:
        pods.create(eviction, "eviction")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    assert [each["reason"] for each in refused.value.status["details"]["causes"]] == ["DisruptionBudget"]
    budgets.change("foo", lambda found: found["spec"].update(minAvailable=2))
    budgets.until("foo", lambda found: found["status"].get("disruptionsAllowed") == 1)
    pods.create(eviction, "eviction")
    pods.until_gone("rs-0")
    with pytest.raises(Refused):
        pods.create({**eviction, "metadata": {**eviction["metadata"], "name": "rs-1"}}, "eviction")
    patched = budgets.patch("foo", {"spec": {"maxUnavailable": None, "minAvailable": 0}})
    assert patched["spec"]["minAvailable"] == 0
    budgets.until("foo", lambda found: found["status"].get("disruptionsAllowed") == 2)
    pods.create({**eviction, "metadata": {**eviction["metadata"], "name": "rs-1"}}, "eviction")
    budgets.delete("foo")
    last = {**eviction, "metadata": {**eviction["metadata"], "name": "rs-2"}}
    with pytest.raises(Refused) as refused:
        pods.create({**last, "deleteOptions": {"preconditions": {"resourceVersion": "1"}}}, "eviction")
    assert refused.value.code == 409
    version = pods.get("rs-2")["metadata"]["resourceVersion"]
    pods.create({**last, "deleteOptions": {"preconditions": {"resourceVersion": version}}}, "eviction")
    until(lambda: not pods.items())


@pytest.mark.conformance(
    "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of "
    "PodDisruptionBudgets [Conformance]"
)
def test_budgets_are_listed_and_deleted_together(api, ns, namespaces, budgets):
    other, selector = namespaces(), {"labelSelector": f"e2e={ns}"}
    for space, count in ((ns, 2), (other, 1)):
        for number in range(count):
            api.at(POD_DISRUPTION_BUDGETS, space).new(f"foo{number}", labels={"e2e": ns}, spec=budget(minAvailable=1))
    assert len(api.at(POD_DISRUPTION_BUDGETS).items(**selector)) == 3
    assert len(budgets.items(**selector)) == 2
    budgets.delete_all(**selector)
    assert [each["metadata"]["namespace"] for each in api.at(POD_DISRUPTION_BUDGETS).items(**selector)] == [other]
