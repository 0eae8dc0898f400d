"""The node daemon dies and comes back, the cluster stops and starts: pods go on, or are made again, and nothing is doubled or left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from leaks import left_behind
from node_harness import Cluster, is_running, pod, row


def test_pods_are_adopted_after_a_kill(cluster: Cluster) -> None:
    cluster.apply(
        pod(
            "keeps",
            "echo started; trap 'exit 0' TERM; i=0; while true; do i=$((i+1)); echo $i > /tmp/n; sleep 0.05; done",
            container={"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}},
            volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}],
        ),
        pod("ends", "sleep 1.5; exit 4", restartPolicy="Never"),
        pod("orphan"),
    )
    before = cluster.wait("keeps", is_running)
    cluster.wait("ends", is_running)
    cluster.wait("orphan", is_running)
    cluster.daemon.kill()
    cluster.kubectl("delete", "pod", "orphan", "--force", "--grace-period=0")
    time.sleep(1.6)
    cluster.daemon.start()
    ended = cluster.wait("ends", lambda obj: obj["status"]["phase"] == "Failed")
    assert row(ended)["state"]["terminated"]["exitCode"] == 4
    after = cluster.wait("keeps", is_running)
    assert row(after)["containerID"] == row(before)["containerID"]
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert cluster.kubectl("exec", "keeps", "--", "cat", "/tmp/n").stdout.strip().isdigit()
    assert cluster.logs("keeps") == "started\n"
    end = time.monotonic() + 5
    while len(names := cluster.daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()) != 2:
        assert time.monotonic() < end, names
        time.sleep(0.1)
    cluster.delete("keeps")
    cluster.delete("ends")
    cluster.wait_clean()


def test_stop_and_start_of_the_cluster(cluster: Cluster) -> None:
    cluster.apply(pod("again"), pod("once", restartPolicy="Never"))
    cluster.wait("again", is_running)
    cluster.wait("once", is_running)
    cluster.stop_cluster()
    assert cluster.daemon.docker("ps", "-aq").stdout == ""
    cluster.start_cluster()
    found = cluster.wait("again", lambda obj: is_running(obj) and row(obj)["restartCount"] == 1)
    assert row(found)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    lost = cluster.wait("once", lambda obj: obj["status"]["phase"] == "Failed")
    assert row(lost)["state"]["terminated"]["exitCode"] == 137
    cluster.delete("again")
    cluster.delete("once")


def test_claim_outlives_its_pod(cluster: Cluster) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    mount = {
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}], "securityContext": {"runAsUser": 1000}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "securityContext": {"fsGroup": 1000},
    }
    cluster.apply(claim, pod("writer", "echo kept > /data/file; sleep 1000", **mount))
    cluster.wait("writer", is_running)
    cluster.delete("writer")
    again = {**mount, "container": dict(mount["container"])}
    cluster.apply(pod("reader", "cat /data/file; sleep 1000", **again))
    cluster.wait("reader", is_running)
    assert cluster.logs("reader") == "kept\n"
    cluster.delete("reader")
    cluster.kubectl("delete", "pvc", "data")


def test_engine_stop_leaves_nothing_and_forgets_nothing(cluster: Cluster) -> None:
    cluster.apply(pod("back", volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}]))
    cluster.wait("back", is_running)
    cluster.atoll("engine", "stop")
    cluster.daemon.process.wait(10)
    assert left_behind(cluster.instance) == [f"process {control_plane(cluster)}"]
    assert "NotReady" in cluster.kubectl("get", "nodes").stdout
    cluster.daemon.start()
    cluster.wait("back", lambda obj: is_running(obj) and row(obj)["restartCount"] == 1)
    assert "NotReady" not in cluster.kubectl("get", "nodes").stdout
    cluster.delete("back")
    cluster.wait_clean()


def control_plane(cluster: Cluster) -> str:
    pid = (cluster.instance.cluster / "controlplane.pid").read_text().strip()
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return f"{pid}: {words.replace(bytes(1), b' ').decode().strip()}"


def test_control_plane_that_dies_is_found_again(cluster: Cluster) -> None:
    cluster.apply(pod("stays"))
    before = cluster.wait("stays", is_running)
    os.kill(int((cluster.instance.cluster / "controlplane.pid").read_text()), signal.SIGKILL)
    cluster.start_cluster()
    cluster.apply(pod("fresh"))
    cluster.wait("fresh", is_running)
    assert row(cluster.get("stays"))["containerID"] == row(before)["containerID"]
    cluster.delete("stays")
    cluster.delete("fresh")


def test_leaving_without_an_api_server_takes_all_away(cluster: Cluster) -> None:
    cluster.apply(pod("left", volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}]))
    cluster.wait("left", is_running)
    cluster.daemon.kill()
    os.kill(int((cluster.instance.cluster / "controlplane.pid").read_text()), signal.SIGKILL)
    cluster.daemon.start()
    cluster.atoll("cluster", "delete")
    assert cluster.daemon.docker("ps", "-aq").stdout == ""
    assert not cluster.instance.cluster.exists()
    cluster.atoll("engine", "stop")
    cluster.daemon.process.wait(10)
    assert left_behind(cluster.instance) == []
    cluster.daemon.start()
    cluster.start_cluster()
