import pytest

from atoll.client.nodes import tolerates
from atoll.scheduler.framework import FitError, choose, find_feasible
from atoll.scheduler.plugins import volumebinding
from atoll.scheduler.preemption import find
from atoll.scheduler.requests import pod_info, pod_requests
from atoll.scheduler.snapshot import Snapshot, Storage, make_node_info

GI = 1024**3


def node(name, labels=None, taints=None, cpu="4", memory="8Gi", pods="110", images=(), **spec):
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {**({"taints": taints} if taints else {}), **spec},
        "status": {"allocatable": allocatable, "images": list(images)},
    }


def pod(name="p", labels=None, cpu=None, memory=None, ports=(), namespace="default", priority=0, image="i", **spec):
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    container = {"name": "c", "image": image, "resources": {"requests": requests}, "ports": list(ports)}
    meta = {"name": name, "namespace": namespace, "uid": name, "labels": labels or {}}
    return {"metadata": meta, "spec": {"containers": [container], "priority": priority, **spec}}


def cluster(*nodes, placed=None, storage=None, namespaces=None, nominated=None):
    """`placed` and `nominated` map a node's name to its pods."""
    infos = {
        each["metadata"]["name"]: make_node_info(each, [pod_info(other) for other in (placed or {}).get(each["metadata"]["name"], ())])
        for each in nodes
    }
    promised = {name: [pod_info(each) for each in pods] for name, pods in (nominated or {}).items()}
    return Snapshot(infos, storage or Storage(), namespaces or {}, promised)


def names(wanted, snapshot):
    return [info.name for info in find_feasible(pod_info(wanted), snapshot)]


def refusal(wanted, snapshot):
    with pytest.raises(FitError) as caught:
        find_feasible(pod_info(wanted), snapshot)
    return str(caught.value)


def test_requests_take_the_largest_moment():
    spec = {
        "initContainers": [
            {"resources": {"requests": {"cpu": "2"}}},
            {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
            {"resources": {"requests": {"cpu": "1"}}},
        ],
        "containers": [{"resources": {"requests": {"cpu": "100m"}}}, {"resources": {"requests": {"memory": "1Mi"}}}],
        "overhead": {"cpu": "10m"},
    }
    assert pod_requests({"spec": spec}) == {"cpu": 2010, "memory": GI + 1024**2}
    assert pod_requests({"spec": {**spec, "resources": {"requests": {"cpu": "3"}}}})["cpu"] == 3010


def test_resources_and_the_sentence():
    snapshot = cluster(node("a"), node("b", cpu="1"), node("c", pods="0"))
    assert names(pod(cpu="2"), snapshot) == ["a"]
    assert refusal(pod(cpu="9", memory="1Gi"), snapshot) == "0/3 nodes are available: 1 Too many pods, 3 Insufficient cpu."
    used = cluster(node("a"), placed={"a": [pod("x", cpu="3500m")]})
    assert refusal(pod(cpu="1"), used) == "0/1 nodes are available: 1 Insufficient cpu."
    assert refusal(pod(), cluster()) == "no nodes available to schedule pods"


def test_unschedulable_taints_names_and_selectors():
    cordoned = node("a", unschedulable=True)
    tainted = node("b", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    labelled = node("c", {"disk": "ssd", "cores": "8"})
    snapshot = cluster(cordoned, tainted, labelled)
    assert names(pod(), snapshot) == ["c"]
    assert names(pod(tolerations=[{"operator": "Exists"}]), snapshot) == ["a", "b", "c"]
    assert names(pod(tolerations=[{"key": "gpu", "value": "yes"}]), snapshot) == ["b", "c"]
    assert refusal(pod(nodeSelector={"disk": "hdd"}), snapshot) == (
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: yes}, "
        "1 node(s) were unschedulable."
    )

    def required(*expressions, **fields):
        term = {"matchExpressions": list(expressions), **fields}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}

    assert names(pod(affinity=required({"key": "cores", "operator": "Gt", "values": ["4"]})), snapshot) == ["c"]
    assert "affinity" in refusal(pod(affinity=required({"key": "cores", "operator": "Lt", "values": ["4"]})), snapshot)
    by_field = required(matchFields=[{"key": "metadata.name", "operator": "In", "values": ["c"]}])
    assert names(pod(affinity=by_field), snapshot) == ["c"]


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "k", "value": "v", "effect": "NoExecute"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"operator": "Exists"}, True),
        ({}, False),
    ],
)
def test_tolerates(toleration, expected):
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoExecute"}) is expected


def test_host_ports():
    taken = {"a": [pod("x", ports=[{"hostPort": 80}])], "b": [pod("y", ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}])]}
    snapshot = cluster(node("a"), node("b"), node("c"), placed=taken)
    assert names(pod(ports=[{"hostPort": 80}]), snapshot) == ["c"]
    assert names(pod(ports=[{"hostPort": 80, "hostIP": "10.0.0.2"}]), snapshot) == ["b", "c"]
    assert names(pod(ports=[{"hostPort": 80, "protocol": "UDP"}]), snapshot) == ["a", "b", "c"]


def affinity(side, term):
    return {"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", **term}]}}}


WEB = {"labelSelector": {"matchLabels": {"app": "web"}}}


def zones(**placed):
    return cluster(node("a", {"zone": "1"}), node("b", {"zone": "2"}), node("c"), placed=placed, namespaces={"other": {"team": "x"}})


def test_pod_affinity():
    near = affinity("podAffinity", WEB)
    assert names(pod(**near), zones(a=[pod("x", {"app": "web"})])) == ["a"]
    assert "3 node(s) didn't match pod affinity rules" in refusal(pod(**near), zones())
    assert names(pod(labels={"app": "web"}, **near), zones()) == ["a", "b"]  # the first of its kind
    elsewhere = {"a": [pod("x", {"app": "web"}, namespace="other")]}
    assert "affinity" in refusal(pod(**near), zones(**elsewhere))
    assert names(pod(**affinity("podAffinity", {**WEB, "namespaces": ["other"]})), zones(**elsewhere)) == ["a"]
    assert names(pod(**affinity("podAffinity", {**WEB, "namespaceSelector": {"matchLabels": {"team": "x"}}})), zones(**elsewhere)) == ["a"]


def test_pod_anti_affinity_works_both_ways():
    far = affinity("podAntiAffinity", WEB)
    assert names(pod(**far), zones(a=[pod("x", {"app": "web"})])) == ["b", "c"]
    lonely = {"a": [pod("x", {"app": "db"}, **far)]}
    assert names(pod(labels={"app": "web"}), zones(**lonely)) == ["b", "c"]
    assert names(pod(labels={"app": "db"}), zones(**lonely)) == ["a", "b", "c"]


def test_topology_spread():
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", **WEB}
    wanted = pod(labels={"app": "web"}, topologySpreadConstraints=[constraint])
    assert names(wanted, zones()) == ["a", "b"]
    assert names(wanted, zones(a=[pod("x", {"app": "web"})])) == ["b"]
    message = refusal(wanted, cluster(node("c")))
    assert "1 node(s) didn't match pod topology spread constraints (missing required label)" in message
    apart = pod(labels={"app": "web"}, topologySpreadConstraints=[{**constraint, "minDomains": 3}])
    assert names(apart, zones(a=[pod("x", {"app": "web"})])) == ["b"]


def best(wanted, snapshot):
    info = pod_info(wanted)
    return choose(info, find_feasible(info, snapshot), snapshot, lambda: 0.0).name


def test_scores():
    assert best(pod(cpu="1"), cluster(node("a"), node("b"), placed={"a": [pod("x", cpu="2", memory="4Gi")]})) == "b"
    soft = [{"key": "k", "value": "v", "effect": "PreferNoSchedule"}]
    assert best(pod(), cluster(node("a", taints=soft), node("b"))) == "b"
    preferred = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
            ]
        }
    }
    assert best(pod(affinity=preferred), cluster(node("a"), node("b", {"disk": "ssd"}))) == "b"
    image = {"names": ["docker.io/library/big:latest"], "sizeBytes": 900 * 1024**2}
    assert best(pod(image="big"), cluster(node("a"), node("b", images=[image]))) == "b"
    near = {
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 9, "podAffinityTerm": {"topologyKey": "zone", **WEB}}]
        }
    }
    assert best(pod(affinity=near), zones(b=[pod("x", {"app": "web"})])) == "b"
    spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", **WEB}]
    assert best(pod(labels={"app": "web"}, topologySpreadConstraints=spread), zones(a=[pod("x", {"app": "web"})])) != "a"


def claim(name="data", storage_class="standard", volume=None, **annotations):
    if volume:
        annotations["pv.kubernetes.io/bind-completed"] = "yes"
    meta = {"name": name, "namespace": "default", "uid": name, "annotations": annotations}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": storage_class}
    return {"metadata": meta, "spec": spec | ({"volumeName": volume} if volume else {})}


def volume(name, node_name=None, storage_class="standard"):
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class}
    if node_name:
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node_name]}]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"phase": "Available"}}


def storage(claims=(), volumes=(), provisioner="x", mode="WaitForFirstConsumer", **more):
    by_name = {f"default/{each['metadata']['name']}": each for each in claims}
    volumes_by_name = {each["metadata"]["name"]: each for each in volumes}
    made = {"metadata": {"name": "standard"}, "provisioner": provisioner, "volumeBindingMode": mode, **more}
    return Storage(by_name.get, volumes_by_name.get, lambda: list(volumes), {"standard": made}.get)


WITH_CLAIM = pod(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}])


def test_volumes_decide():
    def on(which):
        return cluster(node("a"), node("b"), storage=which)

    assert refusal(WITH_CLAIM, on(storage())) == '0/2 nodes are available: persistentvolumeclaim "data" not found.'
    assert names(WITH_CLAIM, on(storage([claim()]))) == ["a", "b"]
    assert "pod has unbound immediate PersistentVolumeClaims" in refusal(WITH_CLAIM, on(storage([claim()], mode="Immediate")))
    bound = storage([claim(volume="v")], [volume("v", "b")])
    assert names(WITH_CLAIM, on(bound)) == ["b"]
    elsewhere = storage([claim(volume="v")], [volume("v", "z")])
    assert "2 node(s) didn't match PersistentVolume's node affinity" in refusal(WITH_CLAIM, on(elsewhere))
    static = storage([claim()], [volume("v", "a")], provisioner="kubernetes.io/no-provisioner")
    assert names(WITH_CLAIM, on(static)) == ["a"]
    under_way = storage([claim(**{"volume.kubernetes.io/selected-node": "b"})])
    assert names(WITH_CLAIM, on(under_way)) == ["b"]
    topologies = [{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["a"]}]}]
    assert names(WITH_CLAIM, on(storage([claim()], allowedTopologies=topologies))) == ["a"]
    assert "bound to non-existent persistentvolume" in refusal(WITH_CLAIM, on(storage([claim(volume="none")])))


def test_volume_plan():
    static = storage([claim()], [volume("v", "a")])
    snapshot = cluster(node("a"), node("b"), storage=static)
    here = volumebinding.plan(pod_info(WITH_CLAIM), snapshot.nodes["a"].node, snapshot)
    assert [(v["metadata"]["name"], c["metadata"]["name"]) for v, c in here.reserve] == [("v", "data")]
    there = volumebinding.plan(pod_info(WITH_CLAIM), snapshot.nodes["b"].node, snapshot)
    assert [each["metadata"]["name"] for each in there.provision] == ["data"]
    assert volumebinding.plan(pod_info(pod()), snapshot.nodes["b"].node, snapshot) == volumebinding.VolumePlan()


def preempt(wanted, snapshot):
    info = pod_info(wanted)
    with pytest.raises(FitError) as caught:
        find_feasible(info, snapshot)
    return find(info, snapshot, caught.value), str(caught.value)


def test_preemption_takes_the_least_harmful():
    placed = {"a": [pod("x", cpu="3", priority=5)], "b": [pod("y", cpu="3", priority=1), pod("z", cpu="500m", priority=1)]}
    snapshot = cluster(node("a"), node("b"), placed=placed)
    found, _ = preempt(pod(cpu="3", priority=10), snapshot)
    assert (found.node, [each["metadata"]["name"] for each in found.victims]) == ("b", ["y"])


def test_promised_room_counts_against_the_same_and_lower_priorities():
    snapshot = cluster(node("a"), node("b"), nominated={"a": [pod("promised", cpu="3", priority=5)]})
    assert names(pod(cpu="2", priority=5), snapshot) == ["b"]
    assert names(pod(cpu="2", priority=6), snapshot) == ["a", "b"]
    assert names(pod("promised", cpu="3", priority=5), snapshot) == ["a", "b"]
    placed = {"b": [pod("x", cpu="4", priority=1)]}
    snapshot = cluster(node("a"), node("b"), placed=placed, nominated={"a": [pod("promised", cpu="3", priority=5)]})
    found, message = preempt(pod(cpu="2", priority=5), snapshot)
    assert (found.node, message) == ("b", "0/2 nodes are available: 2 Insufficient cpu.")


def test_a_pod_goes_where_it_was_promised_and_near_no_one_who_only_may_come():
    snapshot = cluster(node("a"), node("b"), placed={"b": [pod("x", cpu="3")]})
    assert names({**pod(cpu="1"), "status": {"nominatedNodeName": "b"}}, snapshot) == ["b"]
    assert names({**pod(cpu="2"), "status": {"nominatedNodeName": "b"}}, snapshot) == ["a"]
    near = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    wanted = pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}})
    promised = {"a": [pod("coming", labels={"app": "x"}, priority=5)]}
    assert "1 node(s) didn't match pod affinity rules" in refusal(wanted, cluster(node("a"), nominated=promised))


def test_preemption_that_cannot_help_says_so():
    snapshot = cluster(node("a"), node("b", unschedulable=True), placed={"a": [pod("x", cpu="4", priority=5)]})
    found, message = preempt(pod(cpu="1", priority=5), snapshot)
    assert found is None
    assert message == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: "
        "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    )
    never, message = preempt(pod(cpu="1", priority=9, preemptionPolicy="Never"), snapshot)
    assert never is None
    assert message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
    assert preempt(pod(cpu="100", priority=9), snapshot)[0] is None
