import os
from pathlib import Path

import virtual_time
from atoll.client.objects import annotations_of
from atoll.client.resources import EVENTS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from atoll.client.volumes import SELECTED_NODE
from atoll.controllers.base import Config
from atoll.controllers.volumes.binder import VolumeBinder
from atoll.controllers.volumes.local_path import PROVISIONER_NAME, LocalPathProvisioner
from atoll.controllers.volumes.protection import ClaimProtection, VolumeProtection
from controller_harness import cluster

ALL = (VolumeBinder, LocalPathProvisioner, ClaimProtection, VolumeProtection)


def storage_class(name="standard", mode="WaitForFirstConsumer", **more):
    meta = {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    return {"metadata": meta, "provisioner": PROVISIONER_NAME, "volumeBindingMode": mode, "reclaimPolicy": "Delete", **more}


def claim(name="data", size="1Gi", **spec):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"metadata": {"name": name}, "spec": spec}


def volume(name, size="1Gi", modes=("ReadWriteOnce",), **spec):
    spec = {
        "capacity": {"storage": size},
        "accessModes": list(modes),
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/x"},
        **spec,
    }
    return {"metadata": {"name": name}, "spec": spec}


def litter(path, outside):
    """What a pod may leave: a file, and a link out of its volume."""
    (path / "file").write_text("x")
    (path / "link").symlink_to(outside)


def get_claim(c, name="data"):
    return c.client.find(PERSISTENT_VOLUME_CLAIMS, name, "default")


def get_volume(c, name):
    return c.client.find(PERSISTENT_VOLUMES, name)


def phases(c):
    every = [*c.client.all(PERSISTENT_VOLUME_CLAIMS), *c.client.all(PERSISTENT_VOLUMES)]
    return {obj["metadata"]["name"]: obj["status"]["phase"] for obj in every}


def reasons(c):
    return [event["reason"] for event in c.client.all(EVENTS)]


def test_binds_the_smallest_volume_that_suits():
    async def scenario():
        async with cluster(*ALL) as c:
            await c.create(PERSISTENT_VOLUMES, volume("huge", "10Gi"))
            await c.create(PERSISTENT_VOLUMES, volume("fits", "2Gi"))
            await c.create(PERSISTENT_VOLUMES, volume("small", "500Mi"))
            await c.create(PERSISTENT_VOLUMES, volume("other-class", "1Gi", storageClassName="fast"))
            await c.create(PERSISTENT_VOLUMES, volume("read-only", "1Gi", modes=["ReadOnlyMany"]))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim(storageClassName=""))
            await c.settle()
            bound = get_claim(c)
            assert bound["spec"]["volumeName"] == "fits"
            assert bound["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}
            assert annotations_of(bound) == {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
            assert get_volume(c, "fits")["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
            assert phases(c)["fits"] == "Bound"
            assert phases(c)["huge"] == "Available"

    virtual_time.run(scenario())


def test_a_claim_waits_for_its_volume_and_two_claims_get_two():
    async def scenario():
        async with cluster(*ALL) as c:
            for name in ("a", "b"):
                await c.create(PERSISTENT_VOLUME_CLAIMS, claim(name, storageClassName=""))
            await c.settle()
            assert phases(c) == {"a": "Pending", "b": "Pending"}
            assert "FailedBinding" in reasons(c)
            for name in ("v1", "v2"):
                await c.create(PERSISTENT_VOLUMES, volume(name))
            await c.settle()
            assert phases(c) == dict.fromkeys(("a", "b", "v1", "v2"), "Bound")

    virtual_time.run(scenario())


def test_a_named_volume_and_a_reserved_one():
    async def scenario():
        async with cluster(*ALL) as c:
            await c.create(PERSISTENT_VOLUMES, volume("small", "1Mi"))
            await c.create(PERSISTENT_VOLUMES, volume("named", "9Gi"))
            await c.create(PERSISTENT_VOLUMES, volume("reserved", "9Gi", claimRef={"namespace": "default", "name": "b"}))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("a", volumeName="named", storageClassName=""))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("b", storageClassName=""))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("c", volumeName="small", storageClassName=""))
            await c.settle()
            assert get_claim(c, "a")["status"]["phase"] == "Bound"
            assert "pv.kubernetes.io/bound-by-controller" not in annotations_of(get_claim(c, "a"))
            assert get_claim(c, "b")["spec"]["volumeName"] == "reserved"
            assert get_claim(c, "c")["status"]["phase"] == "Pending"
            assert "VolumeMismatch" in reasons(c)

    virtual_time.run(scenario())


def test_deleted_claims_release_retained_volumes_and_deleted_volumes_lose_claims():
    async def scenario():
        async with cluster(*ALL) as c:
            await c.create(PERSISTENT_VOLUMES, volume("v1"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("a", storageClassName=""))
            await c.settle()
            await c.client.delete(PERSISTENT_VOLUMES, "v1")
            await c.settle()
            assert get_volume(c, "v1") is not None  # protected while bound
            await c.client.delete(PERSISTENT_VOLUME_CLAIMS, "a", "default")
            await c.settle()
            assert get_volume(c, "v1") is None
            await c.create(PERSISTENT_VOLUMES, volume("v2"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("b", storageClassName=""))
            await c.settle()
            await c.client.delete(PERSISTENT_VOLUME_CLAIMS, "b", "default")
            await c.settle()
            assert phases(c) == {"v2": "Released"}
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("b", storageClassName=""))
            await c.settle()
            assert phases(c) == {"v2": "Released", "b": "Pending"}

    virtual_time.run(scenario())


def test_a_claim_whose_volume_vanished_is_lost():
    async def scenario():
        async with cluster(VolumeBinder) as c:
            await c.create(PERSISTENT_VOLUMES, volume("v"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim(storageClassName=""))
            await c.settle()
            await c.client.delete(PERSISTENT_VOLUMES, "v")
            await c.settle()
            assert get_claim(c)["status"]["phase"] == "Lost"
            assert "ClaimLost" in reasons(c)

    virtual_time.run(scenario())


def test_local_path_from_first_consumer_to_removal(tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").touch()

    async def scenario():
        async with cluster(*ALL, config=Config(local_path_root=tmp_path)) as c:
            await c.create(NODES, {"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "host1"}}})
            await c.create(STORAGE_CLASSES, storage_class())
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim())
            await c.settle()
            assert get_claim(c)["spec"]["storageClassName"] == "standard"  # the default class
            assert get_claim(c)["status"]["phase"] == "Pending"
            assert "WaitForFirstConsumer" in reasons(c)
            assert os.listdir(tmp_path) == []
            await c.client.patch(PERSISTENT_VOLUME_CLAIMS, "data", {"metadata": {"annotations": {SELECTED_NODE: "n1"}}}, "default")
            await c.settle()
            bound = get_claim(c)
            assert bound["status"]["phase"] == "Bound"
            made = get_volume(c, bound["spec"]["volumeName"])
            term = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
            assert (term["values"], made["spec"]["capacity"]) == (["host1"], {"storage": "1Gi"})
            path = made["spec"]["hostPath"]["path"]
            assert os.stat(path).st_mode & 0o777 == 0o777
            assert path.endswith("_default_data")
            assert "ProvisioningSucceeded" in reasons(c)
            litter(Path(path), outside)
            await c.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
            await c.settle()
            assert c.client.all(PERSISTENT_VOLUMES) == []
            assert os.listdir(tmp_path) == []

    virtual_time.run(scenario())
    assert (outside / "kept").exists()


def test_immediate_binding_and_retain(tmp_path):
    async def scenario():
        async with cluster(*ALL, config=Config(local_path_root=tmp_path)) as c:
            await c.create(STORAGE_CLASSES, storage_class("now", "Immediate", reclaimPolicy="Retain"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim(storageClassName="now"))
            await c.settle()
            assert get_claim(c)["status"]["phase"] == "Bound"
            await c.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
            await c.settle()
            assert list(phases(c).values()) == ["Released"]
            assert len(os.listdir(tmp_path)) == 1

    virtual_time.run(scenario())


def test_what_a_directory_cannot_give_is_refused(tmp_path):
    async def scenario():
        async with cluster(*ALL, config=Config(local_path_root=tmp_path)) as c:
            await c.create(STORAGE_CLASSES, storage_class("now", "Immediate"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("block", storageClassName="now", volumeMode="Block"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim("nowhere", storageClassName="missing"))
            await c.settle()
            assert phases(c) == {"block": "Pending", "nowhere": "Pending"}
            messages = " ".join(event["message"] for event in c.client.all(EVENTS))
            assert "volumeMode Block is not supported" in messages
            assert 'storageclass.storage.k8s.io "missing" not found' in messages

    virtual_time.run(scenario())


def test_a_path_outside_the_root_is_never_removed(tmp_path):
    async def scenario():
        root, victim = tmp_path / "root", tmp_path / "pvc-victim"
        victim.mkdir()
        async with cluster(LocalPathProvisioner, config=Config(local_path_root=root)) as c:
            forged = volume("pvc-1", hostPath={"path": str(victim)}, persistentVolumeReclaimPolicy="Delete")
            forged["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": PROVISIONER_NAME}
            forged["status"] = {"phase": "Released"}
            await c.create(PERSISTENT_VOLUMES, forged)
            sneaky = volume("pvc-2", hostPath={"path": f"{root}/../pvc-victim"}, persistentVolumeReclaimPolicy="Delete")
            await c.create(PERSISTENT_VOLUMES, {**forged, "metadata": {**forged["metadata"], "name": "pvc-2"}, "spec": sneaky["spec"]})
            await c.settle()
            assert victim.is_dir()
            assert reasons(c) == ["VolumeFailedDelete"] * 2

    virtual_time.run(scenario())


def test_a_claim_in_use_is_not_deleted():
    async def scenario():
        async with cluster(*ALL) as c:
            await c.create(PERSISTENT_VOLUMES, volume("v"))
            await c.create(PERSISTENT_VOLUME_CLAIMS, claim(storageClassName=""))
            volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
            await c.create(PODS, {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [], "volumes": volumes}})
            await c.settle()
            await c.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
            await c.settle()
            assert get_claim(c)["metadata"]["deletionTimestamp"]
            await c.client.delete(PODS, "p", "default", grace_seconds=0)
            await c.settle()
            assert get_claim(c) is None

    virtual_time.run(scenario())
