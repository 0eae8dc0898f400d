"""[sig-api-machinery] ResourceQuota: what is used follows what lives, scopes choose pods, what goes over is refused."""

import pytest
from conformance_api import Refused
from conformance_plane import HOLD, PLAYED
from conformance_workloads import container, controller, workload

from atoll.client.resources import (
    CONFIG_MAPS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
)

NAME = "test-quota"
HARD = {
    "pods": "5",
    "services": "10",
    "services.nodeports": "1",
    "services.loadbalancers": "1",
    "replicationcontrollers": "10",
    "resourcequotas": "1",
    "cpu": "1",
    "memory": "500Mi",
    "configmaps": "10",
    "secrets": "10",
    "persistentvolumeclaims": "10",
    "requests.storage": "10Gi",
    "count/replicasets.apps": "5",
}


@pytest.fixture
def quotas(api, ns):
    return api.at(RESOURCE_QUOTAS, ns)


@pytest.fixture
def quota(quotas):
    """Makes the quota, with HARD by default, and waits for its status."""

    def make(name=NAME, hard=HARD, **spec):
        quotas.new(name, spec={"hard": hard, **spec})
        return quotas.until(name, lambda found: (found.get("status") or {}).get("hard") == hard)

    return make


@pytest.fixture
def used(quotas):
    """Waits until the quota has these in use."""

    def expect(name=NAME, **amounts):
        wanted = {key.replace("__", "/").replace("_", "."): value for key, value in amounts.items()}
        quotas.until(name, lambda found: {key: found["status"].get("used", {}).get(key) for key in wanted} == wanted)

    return expect


def pod_with(cpu, memory, **spec):
    return {"containers": [container(resources={"requests": {"cpu": cpu, "memory": memory}})], **spec}


@pytest.mark.conformance(
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]"
)
def test_the_status_comes_at_once(quota):
    found = quota()
    assert found["status"]["used"]["resourcequotas"] == "1"
    assert found["status"]["used"]["pods"] == "0"


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]")
def test_services_count(api, ns, quota, used):
    quota()
    services = api.at(SERVICES, ns)
    port = [{"port": 80, "targetPort": 80}]
    services.new("cluster", spec={"type": "ClusterIP", "ports": port})
    services.new("node", spec={"type": "NodePort", "ports": port})
    used(services="2", services_nodeports="1")
    with pytest.raises(Refused) as refused:
        services.new("balanced", spec={"type": "LoadBalancer", "ports": port})
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")
    assert "exceeded quota: test-quota, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1" in (
        refused.value.message
    )
    services.delete("cluster")
    services.delete("node")
    used(services="0", services_nodeports="0", services_loadbalancers="0")


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]")
def test_secrets_count(api, ns, quota, used):
    quota()
    used(secrets="0")
    api.at(SECRETS, ns).new("test-secret", data={"data": "dmFsdWU="})
    used(secrets="1")
    api.at(SECRETS, ns).delete("test-secret")
    used(secrets="0")


@pytest.mark.conformance(
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]"
)
def test_config_maps_count(api, ns, quota, used):
    quota()
    used(configmaps="1")  # kube-root-ca.crt
    api.at(CONFIG_MAPS, ns).new("test-configmap")
    used(configmaps="2")
    api.at(CONFIG_MAPS, ns).delete("test-configmap")
    used(configmaps="1")


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]")
def test_pods_count(api, ns, quota, used):
    quota()
    pods = api.at(PODS, ns)
    pods.new("test-pod", spec=pod_with("500m", "252Mi"))
    used(pods="1", cpu="500m", memory="252Mi")
    for cpu, memory, told in (("600m", "100Mi", "exceeded quota"), ("100m", "400Mi", "exceeded quota")):
        with pytest.raises(Refused) as refused:
            pods.new("fail-pod", spec=pod_with(cpu, memory))
        assert told in refused.value.message
    with pytest.raises(Refused) as refused:
        pods.new("fail-pod", spec={"containers": [container()]})
    assert "must specify cpu for: main; memory for: main" in refused.value.message
    pods.patch("test-pod", {"spec": {"activeDeadlineSeconds": 30}})
    used(pods="1", cpu="500m", memory="252Mi")
    pods.delete("test-pod", gracePeriodSeconds=0)
    used(pods="0", cpu="0", memory="0")


@pytest.mark.conformance(
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]"
)
def test_replication_controllers_count(api, ns, quota, used):
    quota()
    used(replicationcontrollers="0")
    api.at(REPLICATION_CONTROLLERS, ns).new("test-rc", spec=controller({"a": "b"}, replicas=0))
    used(replicationcontrollers="1")
    api.at(REPLICATION_CONTROLLERS, ns).delete("test-rc", propagationPolicy="Background")
    used(replicationcontrollers="0")


@pytest.mark.conformance(
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]"
)
def test_replica_sets_count(api, ns, quota, used):
    quota()
    used(count__replicasets_apps="0")
    api.at(REPLICA_SETS, ns).new("test-rs", spec=workload({"a": "b"}, replicas=0))
    used(count__replicasets_apps="1")
    api.at(REPLICA_SETS, ns).delete("test-rs", propagationPolicy="Background")
    used(count__replicasets_apps="0")


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]")
def test_scopes_of_pods_that_end(api, ns, quota, used):
    for name, scope in (("ends", "Terminating"), ("stays", "NotTerminating")):
        quota(name, {"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi"}, scopes=[scope])
    pods = api.at(PODS, ns)
    held = {PLAYED: HOLD}
    pods.new("long", annotations=held, spec=pod_with("500m", "200Mi"))
    used("stays", pods="1", requests_cpu="500m", requests_memory="200Mi")
    used("ends", pods="0", requests_cpu="0")
    pods.delete("long", gracePeriodSeconds=0)
    used("stays", pods="0", requests_cpu="0")
    pods.new("short", annotations=held, spec=pod_with("500m", "200Mi", activeDeadlineSeconds=3600))
    used("ends", pods="1", requests_cpu="500m", requests_memory="200Mi")
    used("stays", pods="0")
    pods.delete("short", gracePeriodSeconds=0)
    used("ends", pods="0")


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]")
def test_scopes_of_pods_that_ask_for_nothing(api, ns, quota, used):
    for name, scope in (("best", "BestEffort"), ("rest", "NotBestEffort")):
        quota(name, {"pods": "5"}, scopes=[scope])
    pods = api.at(PODS, ns)
    pods.new("best-effort", spec={"containers": [container()]})
    used("best", pods="1")
    used("rest", pods="0")
    pods.delete("best-effort", gracePeriodSeconds=0)
    used("best", pods="0")
    pods.new("burstable", spec=pod_with("500m", "200Mi"))
    used("rest", pods="1")
    used("best", pods="0")


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]")
def test_a_quota_is_changed_and_deleted(quotas):
    quotas.new(NAME, spec={"hard": {"cpu": "1", "memory": "500Mi"}})
    assert quotas.get(NAME)["spec"]["hard"] == {"cpu": "1", "memory": "500Mi"}
    changed = quotas.change(NAME, lambda found: found["spec"]["hard"].update(cpu="2", memory="1Gi"))
    assert changed["spec"]["hard"] == quotas.get(NAME)["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    quotas.delete(NAME)
    quotas.until_gone(NAME)


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]")
def test_the_life_of_a_quota(api, quotas):
    quotas.new(NAME, labels={"test": "life"}, spec={"hard": {"cpu": "1", "memory": "500Mi"}})
    everywhere = api.at(RESOURCE_QUOTAS)
    assert everywhere.names(labelSelector="test=life") == [NAME]
    patched = quotas.patch(NAME, {"metadata": {"labels": {NAME: "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}, "strategic")
    assert (patched["metadata"]["labels"][NAME], patched["spec"]["hard"]["memory"]) == ("patched", "750Mi")
    quotas.delete_all(labelSelector=f"{NAME}=patched")
    assert everywhere.names(labelSelector=f"{NAME}=patched") == []


@pytest.mark.conformance("[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]")
def test_the_status_of_a_quota_is_changed(quotas, quota):
    quota(NAME, {"cpu": "500m", "memory": "500Mi"})
    with quotas.watch(fieldSelector=f"metadata.name={NAME}") as watch:
        quotas.change(NAME, lambda found: found["status"].update(hard={"cpu": "555m", "memory": "555Mi"}), "status")
        watch.expect("MODIFIED", lambda found: found["status"]["hard"]["cpu"] == "555m")
        watch.expect("MODIFIED", lambda found: found["status"]["hard"]["cpu"] == "500m")  # its controller has its way
        quotas.patch(NAME, {"status": {"hard": {"cpu": "666m", "memory": "666Mi"}}}, sub="status")
        watch.expect("MODIFIED", lambda found: found["status"]["hard"]["cpu"] == "666m")
        watch.expect("MODIFIED", lambda found: found["status"]["hard"] == {"cpu": "500m", "memory": "500Mi"})
