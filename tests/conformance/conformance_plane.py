"""The control plane as a user has it, a process of its own, with two nodes whose kubelet is played.

The kubelet that is played writes what a real one reports: every pod bound to a node runs and is ready at once, or ends as its annotation
says; pods told to go are gone. No container runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from atoll.client.objects import annotations_of, copy_of, is_deleting, name_of, namespace_of
from atoll.client.resources import LEASES, NODES, PODS
from atoll.cluster import kubeconfig
from atoll.cluster.certificates import Certificates
from atoll.cluster.lifecycle import api_client
from atoll.cluster.settings import ClusterSettings, free_port
from atoll.config import Instance
from atoll.errors import StatusError
from atoll.units import timestamp_micro, timestamp_seconds

READY_S = 30
HEARTBEAT_S = 5.0
SESSION_S = 3600  # the longest that a test run watches
PLAYED = "conformance/kubelet"  # the annotation that says what becomes of a pod: "fail", or "fail:1,3" for these indexes of a job
HOLD, FAIL, SUCCEED, UNREADY = "hold", "fail", "succeed", "unready"
EXIT_CODE = "conformance/exit-code"
INDEX = "batch.kubernetes.io/job-completion-index"
CAPACITY = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}
NODE_NAMES = ("node-a", "node-b")


class Plane:
    """`python -m atoll.cluster.controlplane` of an instance, and its nodes."""

    def __init__(self, instance: Instance, address: str) -> None:
        self.instance = instance
        instance.cluster.mkdir(mode=0o711, parents=True)
        self.settings = ClusterSettings("node-a", address, free_port(0))
        self.settings.save(instance)
        certificates = Certificates(instance, self.settings)
        certificate, key = certificates.admin()
        access = kubeconfig.entry(self.settings.server, certificates.authority.read_bytes(), certificate.read_bytes(), key.read_bytes())
        kubeconfig.write(instance.kubeconfig, access)
        self._process = self._started()
        self._stopped = _Flag()
        self._pool = ThreadPoolExecutor(1, "kubelets")
        self._kubelets = self._pool.submit(asyncio.run, self._play())

    def _started(self) -> subprocess.Popen[bytes]:
        read, write = os.pipe()
        command = [sys.executable, "-m", "atoll.cluster.controlplane", "--ready-fd", str(write)]
        process = subprocess.Popen(command, env={**os.environ, "ATOLL_HOME": str(self.instance.home)}, pass_fds=(write,))
        os.close(write)
        with os.fdopen(read, "rb") as ready:
            if not ready.read(1):
                raise AssertionError(f"the control plane ended with {process.wait(READY_S)}: {self.log()}")
        return process

    def log(self) -> str:
        return (self.instance.logs / "controlplane.log").read_text()

    async def _play(self) -> None:
        client = api_client(self.instance, self.settings)
        try:
            for name in NODE_NAMES:
                await client.create(NODES, _node(name))
            tasks = [asyncio.create_task(part) for part in (_beat(client), _run_pods(client), self._stopped.wait())]
            done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                task.result()
        finally:
            await client.close()

    def close(self) -> None:
        self._stopped.set()
        self._kubelets.result(READY_S)
        self._pool.shutdown()
        self._process.terminate()
        assert self._process.wait(READY_S) == 0, self.log()


class _Flag:
    """Set in one thread, waited for in another's loop."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def set(self) -> None:
        self._future.set_result(None)

    async def wait(self) -> None:
        await asyncio.wrap_future(self._future)


def _node(name):
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [_condition("Ready", "KubeletReady")]},
    }


def _condition(kind, reason="", *, truth=True):
    now = timestamp_seconds()
    return {"type": kind, "status": str(truth), "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now}


async def _beat(client):
    """Each node's lease, renewed: nobody takes it for dead."""
    for name in NODE_NAMES:
        lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": name}, "spec": {"holderIdentity": name}}
        await client.create(LEASES, lease, "kube-node-lease")
    while True:
        for name in NODE_NAMES:
            await client.patch(LEASES, name, {"spec": {"renewTime": timestamp_micro()}}, "kube-node-lease")
        await asyncio.sleep(HEARTBEAT_S)


async def _run_pods(client):
    played = {}
    addresses = (f"10.244.{high}.{low}" for high in itertools.count() for low in range(2, 250))
    async for kind, pod in client.watch(PODS, resource_version="0", timeout_seconds=SESSION_S):
        if kind in ("BOOKMARK", "DELETED") or pod["spec"].get("nodeName") not in NODE_NAMES:
            continue
        uid, wish = pod["metadata"]["uid"], (annotations_of(pod).get(PLAYED, ""), pod["metadata"].get("generation"))
        with contextlib.suppress(StatusError):  # it has gone, or changes again: another event comes
            if is_deleting(pod):
                if pod["metadata"].get("finalizers") and pod["status"].get("phase") in ("Pending", "Running"):
                    await client.update(PODS, {**copy_of(pod), "status": pod["status"] | {"phase": "Failed"}}, subresource="status")
                await client.delete(PODS, name_of(pod), namespace_of(pod), grace_seconds=0)
            elif played.get(uid) != wish:
                status = _status(pod, next(addresses))
                if status is not None:
                    await client.update(PODS, {**copy_of(pod), "status": status}, subresource="status")
                played[uid] = wish


def _status(pod, address):
    """What a kubelet reports; None for a pod it has not begun with."""
    fate = _fate(pod)
    if fate == HOLD:
        return None
    phase = {FAIL: "Failed", SUCCEED: "Succeeded"}.get(fate, "Running")
    ready, generation, now = fate == "", pod["metadata"].get("generation"), timestamp_seconds()
    code = int(annotations_of(pod).get(EXIT_CODE, "1" if fate == FAIL else "0"))
    state = {"running": {"startedAt": now}} if phase == "Running" else {"terminated": {"exitCode": code, "finishedAt": now}}
    kept = [entry for entry in pod["status"].get("conditions") or () if entry["type"] in ("PodScheduled", "DisruptionTarget")]
    truths = {"Initialized": True, "Ready": ready, "ContainersReady": ready}
    made = [{"type": kind, "status": str(truth), "lastTransitionTime": now} for kind, truth in truths.items()]
    address = pod["status"].get("podIP") or address
    return pod["status"] | {
        "phase": phase,
        "observedGeneration": generation,
        "startTime": pod["status"].get("startTime") or now,
        "hostIP": "10.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [*kept, *({**entry, "observedGeneration": generation} for entry in made)],
        "containerStatuses": [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
            for each in pod["spec"]["containers"]
        ],
    }


def _fate(pod):
    fate, _, indexes = annotations_of(pod).get(PLAYED, "").partition(":")
    if indexes and annotations_of(pod).get(INDEX) not in indexes.split(","):
        fate = ""
    return fate or ("" if pod["spec"].get("restartPolicy", "Always") == "Always" else SUCCEED)
