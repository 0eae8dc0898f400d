"""[sig-storage] and [sig-node] objects without a pod: volumes, claims, attachments, drivers, maps, secrets, templates, leases."""

import pytest
from conformance_api import Refused, until
from conformance_operations import check_operations
from conformance_plane import HOLD, PLAYED
from conformance_workloads import container, pod_spec

from atoll.client.resources import (
    CONFIG_MAPS,
    CSI_DRIVERS,
    CSI_NODES,
    LEASES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_TEMPLATES,
    PODS,
    SECRETS,
    VOLUME_ATTACHMENTS,
)

CONDITION = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}


def refusal(call, *args, **kwargs):
    with pytest.raises(Refused) as refused:
        call(*args, **kwargs)
    return refused.value


def volume(labels=None, **fields):
    given = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain"}
    source = {"csi": {"driver": "e2e-driver", "volumeHandle": "e2e"}}
    return {"labels": labels, "spec": {**given, **source, "storageClassName": "", **fields}}


def claim(labels=None, **fields):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "", **fields}
    return {"labels": labels, "spec": spec}


@pytest.mark.conformance("[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]")
def test_the_life_of_a_volume_and_a_claim(api, ns):
    volumes, claims = api.at(PERSISTENT_VOLUMES), api.at(PERSISTENT_VOLUME_CLAIMS, ns)
    name = f"pv-{ns}"
    volumes.new(name, **volume({"e2e": ns}))
    claims.new("pvc", **claim({"e2e": ns}, volumeName=name))
    assert volumes.names(labelSelector=f"e2e={ns}") == [name]
    assert api.at(PERSISTENT_VOLUME_CLAIMS).names(labelSelector=f"e2e={ns}") == ["pvc"]
    for door, each in ((volumes, name), (claims, "pvc")):
        patched = door.patch(each, {"metadata": {"labels": {each: "patched"}}})
        assert patched["metadata"]["labels"][each] == "patched"
        updated = door.change(each, lambda found: found["metadata"]["labels"].update(updated="true"))
        assert updated["metadata"]["labels"]["updated"] == "true"
    claims.until("pvc", lambda found: found["status"]["phase"] == "Bound")
    volumes.until(name, lambda found: found["status"]["phase"] == "Bound")
    claims.delete("pvc")
    claims.until_gone("pvc")
    volumes.delete(name)
    volumes.until_gone(name)
    volumes.new(name, **volume({"e2e": ns}))
    claims.new("pvc", **claim({"e2e": ns}, volumeName=name))
    claims.delete_all(labelSelector=f"e2e={ns}")
    claims.until_gone("pvc")
    volumes.delete_all(labelSelector=f"e2e={ns}")
    volumes.until_gone(name)


@pytest.mark.conformance("[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]")
def test_the_status_of_a_volume_and_a_claim(api, ns):
    volumes, claims = api.at(PERSISTENT_VOLUMES), api.at(PERSISTENT_VOLUME_CLAIMS, ns)
    name = f"pv-{ns}"
    volumes.new(name, **volume())
    claims.new("pvc", **claim(volumeName=name))
    claims.until("pvc", lambda found: found["status"]["phase"] == "Bound")
    volumes.until(name, lambda found: found["status"]["phase"] == "Bound")
    assert claims.get("pvc", "status")["status"]["phase"] == volumes.get(name, "status")["status"]["phase"] == "Bound"
    patched = claims.patch("pvc", {"status": {"conditions": [{**CONDITION, "type": "StatusPatched"}]}}, sub="status")
    assert [each["type"] for each in patched["status"]["conditions"]] == ["StatusPatched"]
    updated = claims.change("pvc", lambda found: found["status"].update(conditions=[CONDITION]), "status")
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusUpdate"]
    told = {"message": "StatusPatched", "reason": "E2E patchStatus"}
    assert told.items() <= volumes.patch(name, {"status": told}, sub="status")["status"].items()
    told = {"message": "StatusUpdated", "reason": "E2E updateStatus"}
    assert told.items() <= volumes.change(name, lambda found: found["status"].update(told), "status")["status"].items()
    claims.delete("pvc")
    claims.until_gone("pvc")
    volumes.delete(name)


def attachment(name, volume_name="e2e-volume"):
    return {"spec": {"attacher": f"e2e-{name}", "nodeName": "node-a", "source": {"persistentVolumeName": volume_name}}}


@pytest.mark.conformance("[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]")
def test_the_life_of_an_attachment(api):
    door = api.at(VOLUME_ATTACHMENTS)
    check_operations(door, *(door.make(f"va-{number}", **attachment(number)) for number in range(3)))


@pytest.mark.conformance("[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]")
def test_the_status_of_an_attachment(api):
    door = api.at(VOLUME_ATTACHMENTS)
    door.new("va-status", **attachment("status"))
    assert door.get("va-status", "status")["status"]["attached"] is False
    patch = {"metadata": {"annotations": {"va-patchedstatus": "true"}}, "status": {"attached": True, "attachmentMetadata": {"foo": "bar"}}}
    patched = door.patch("va-status", patch, sub="status")
    assert (patched["status"]["attached"], patched["status"]["attachmentMetadata"]) == (True, {"foo": "bar"})
    updated = door.change("va-status", lambda found: found["status"].update(attached=False), "status")
    assert updated["status"]["attached"] is False
    door.delete("va-status")


@pytest.mark.conformance("[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]")
def test_the_life_of_a_csi_node(api):
    door = api.at(CSI_NODES)
    driver = {"name": "e2e-driver", "nodeID": "e2e-node", "topologyKeys": ["a"]}
    check_operations(door, *(door.make(f"csinode-{number}", spec={"drivers": [driver]}) for number in range(3)))


@pytest.mark.conformance("[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]")
def test_a_pod_may_have_an_inline_volume(api, ns):
    drivers, pods = api.at(CSI_DRIVERS), api.at(PODS, ns)
    drivers.new(
        f"inline-driver-{ns}",
        labels={"security.kubernetes.io/csi-ephemeral-volume-profile": "restricted"},
        spec={"volumeLifecycleModes": ["Ephemeral"]},
    )
    source = {"csi": {"driver": f"inline-driver-{ns}", "volumeAttributes": {"foo": "bar"}}}
    mounts = [{"mountPath": "/mnt", "name": "v"}]
    spec = pod_spec(containers=[container(volumeMounts=mounts)], volumes=[{"name": "v", **source}])
    made = pods.new("pod-csi-inline", labels={"csi": "inline"}, annotations={PLAYED: HOLD}, spec=spec)
    assert made["spec"]["volumes"][0] == {"name": "v", **source}
    patched = pods.patch("pod-csi-inline", {"metadata": {"labels": {"pod": "patched"}}})
    assert patched["metadata"]["labels"]["pod"] == "patched"
    assert api.at(PODS).names(labelSelector="csi=inline,pod=patched") == ["pod-csi-inline"]
    pods.delete("pod-csi-inline", gracePeriodSeconds=0)
    drivers.delete(f"inline-driver-{ns}")


def stays_as_it_is(door, data, other):
    door.new("immutable", **data)
    door.change("immutable", lambda found: found.update(immutable=True))
    for change in (other, {"immutable": False}, {"immutable": None}):
        told = refusal(door.patch, "immutable", change)
        assert (told.code, told.reason) == (422, "Invalid")
        assert "field is immutable when `immutable` is set" in told.message
    patched = door.patch("immutable", {"metadata": {"labels": {"may": "change"}}})
    assert patched["metadata"]["labels"] == {"may": "change"}
    door.delete("immutable")
    door.new("immutable", **data)
    door.patch("immutable", other)


@pytest.mark.conformance("[sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]")
def test_an_immutable_map(api, ns):
    stays_as_it_is(api.at(CONFIG_MAPS, ns), {"data": {"data-1": "value-1"}}, {"data": {"data-1": "other"}})


@pytest.mark.conformance("[sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]")
def test_an_immutable_secret(api, ns):
    stays_as_it_is(api.at(SECRETS, ns), {"data": {"data-1": "dmFsdWUtMQ=="}}, {"data": {"data-1": "b3RoZXI="}})


@pytest.mark.conformance("[sig-node] ConfigMap should update ConfigMap successfully [NodeConformance] [Conformance]")
def test_a_map_is_updated(api, ns):
    maps = api.at(CONFIG_MAPS, ns)
    maps.new("test", data={"data": "before"})
    maps.change("test", lambda found: found.update(data={"data": "value"}))
    assert maps.get("test")["data"] == {"data": "value"}


@pytest.mark.conformance("[sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]")
def test_the_life_of_a_map(api, ns):
    maps, selector = api.at(CONFIG_MAPS, ns), {"labelSelector": "test-configmap-static=true"}
    with maps.watch(**selector) as watch:
        maps.new("test", labels={"test-configmap-static": "true"}, data={"valueName": "value"})
        watch.expect("ADDED")
        maps.patch("test", {"metadata": {"labels": {"test-configmap": "patched"}}, "data": {"valueName": "value1"}}, "strategic")
        watch.expect("MODIFIED", lambda found: found["data"]["valueName"] == "value1")
        found = maps.get("test")
        assert (found["data"], found["metadata"]["labels"]["test-configmap"]) == ({"valueName": "value1"}, "patched")
        assert api.at(CONFIG_MAPS).names(**selector) == ["test"]
        maps.delete_all(**selector)
        watch.expect("DELETED")
    assert maps.items(**selector) == []


@pytest.mark.conformance("[sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]")
def test_a_map_needs_keys(api, ns):
    assert refusal(api.at(CONFIG_MAPS, ns).new, "empty", data={"": "value"}).code == 422


@pytest.mark.conformance("[sig-node] Secrets should fail to create secret due to empty secret key [Conformance]")
def test_a_secret_needs_keys(api, ns):
    assert refusal(api.at(SECRETS, ns).new, "empty", data={"": "dmFsdWU="}).code == 422


@pytest.mark.conformance("[sig-node] Secrets should patch a secret [Conformance]")
def test_a_secret_is_patched(api, ns):
    secrets = api.at(SECRETS, ns)
    secrets.new("test", labels={"testsecret-constant": "true"}, data={"key": "dmFsdWU="}, type="Opaque")
    assert "test" in api.at(SECRETS).names(labelSelector="testsecret-constant=true")
    secrets.patch("test", {"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWUx"}}, "strategic")
    found = secrets.get("test")
    assert (found["data"], found["metadata"]["labels"]["testsecret"]) == ({"key": "dmFsdWUx"}, "true")
    secrets.delete_all(labelSelector="testsecret=true")
    assert api.at(SECRETS).names(labelSelector="testsecret-constant=true") == []


TEMPLATE = {"metadata": {"labels": {"e2e": "template"}}, "spec": pod_spec()}


@pytest.mark.conformance("[sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]")
def test_the_life_of_a_pod_template(api, ns):
    door, selector = api.at(POD_TEMPLATES, ns), {"labelSelector": "podtemplate-static=true"}
    door.new("nginx-pod-template", labels={"podtemplate-static": "true"}, template=TEMPLATE)
    assert api.at(POD_TEMPLATES).names(**selector) == ["nginx-pod-template"]
    patched = door.patch("nginx-pod-template", {"metadata": {"labels": {"podtemplate": "patched"}}}, "strategic")
    assert patched["metadata"]["labels"]["podtemplate"] == "patched"
    door.delete("nginx-pod-template")
    assert api.at(POD_TEMPLATES).names(**selector) == []


@pytest.mark.conformance("[sig-node] PodTemplates should delete a collection of pod templates [Conformance]")
def test_pod_templates_are_deleted_together(api, ns):
    door = api.at(POD_TEMPLATES, ns)
    for number in range(3):
        door.new(f"test-podtemplate-{number}", labels={"podtemplate-set": "true"}, template=TEMPLATE)
    assert len(door.items(labelSelector="podtemplate-set=true")) == 3
    door.delete_all(labelSelector="podtemplate-set=true")
    until(lambda: not door.items(labelSelector="podtemplate-set=true"))


@pytest.mark.conformance("[sig-node] PodTemplates should replace a pod template [Conformance]")
def test_a_pod_template_is_replaced(api, ns):
    door = api.at(POD_TEMPLATES, ns)
    door.new("t", labels={"t": "t"}, template=TEMPLATE)
    updated = door.change("t", lambda found: found["metadata"].update(annotations={"updated": "true"}))
    assert door.get("t")["metadata"]["annotations"] == updated["metadata"]["annotations"] == {"updated": "true"}


@pytest.mark.conformance("[sig-node] Lease lease API should be available [Conformance]")
def test_leases(api, ns):
    leases = api.at(LEASES, ns)
    now = "2026-01-02T03:04:05.678901Z"
    spec = {"holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": now, "renewTime": now, "leaseTransitions": 0}
    assert leases.new("lease", spec=spec)["spec"] == leases.get("lease")["spec"] == spec
    other = {**spec, "holderIdentity": "holder2", "leaseDurationSeconds": 60, "leaseTransitions": 1}
    assert leases.change("lease", lambda found: found.update(spec=other))["spec"] == other
    patched = leases.patch("lease", {"spec": {"leaseDurationSeconds": 50, "holderIdentity": "patched"}}, "strategic")
    assert (patched["spec"]["leaseDurationSeconds"], patched["spec"]["holderIdentity"]) == (50, "patched")
    leases.new("lease2", labels={"deletecollection": "true"}, spec=spec)
    assert leases.names() == ["lease", "lease2"]
    leases.delete_all(labelSelector="deletecollection=true")
    assert leases.names() == ["lease"]
    leases.delete("lease")
    assert leases.gone("lease")
