"""The control plane's parts as pods of kube-system, as a cluster made by kubeadm shows them: mirror pods, which nobody runs as containers.

Each is what it says: its image names what stands behind it (`atoll/sqlite-store`), its process is the control plane's or this node's own.
They are written when the node joins and again when someone deletes one; their logs are the file that the process writes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

import atoll
from atoll.client.informer import Informer
from atoll.client.objects import Object, annotations_of
from atoll.client.protocol import Client, is_already_exists, is_not_found
from atoll.client.resources import NODES, PODS
from atoll.errors import AtollError, StatusError
from atoll.node.config import NodeConfig
from atoll.node.pods.model import CONTAINER_ID_SCHEME, MIRROR
from atoll.units import timestamp_seconds

NAMESPACE = "kube-system"
SOURCE = "kubernetes.io/config.source"
HASH = "kubernetes.io/config.hash"
SEEN = "kubernetes.io/config.seen"
RETRY_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: the pod's name without the node's, the container's, its image, its labels."""

    name: str
    container: str
    image: str
    command: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    port: tuple[str, int, str] | None = None
    on_node: bool = False  # runs in this node's process, not in the control plane's
    address: str = ""  # the host's where empty


_CONTROL_PLANE = ("python", "-m", "atoll.cluster.controlplane")
_NODE = ("python", "-m", "atoll.node.daemon")


def parts(config: NodeConfig, dns_address: str) -> Iterator[Part]:
    if config.control_plane_log:
        for name, image in (
            ("etcd", "atoll/sqlite-store"),
            ("kube-apiserver", "atoll/apiserver"),
            ("kube-controller-manager", "atoll/controllers"),
            ("kube-scheduler", "atoll/scheduler"),
        ):
            yield Part(name, name, image, _CONTROL_PLANE, {"component": name, "tier": "control-plane"})
    yield Part("kube-proxy", "kube-proxy", "atoll/service-proxy", _NODE, {"k8s-app": "kube-proxy"}, on_node=True)
    if dns_address:
        labels = {"k8s-app": "kube-dns"}
        yield Part("coredns", "coredns", "atoll/cluster-dns", _NODE, labels, ("dns", 53, "UDP"), on_node=True, address=dns_address)


class MirrorPods:
    def __init__(self, client: Client, config: NodeConfig, node: Object, *, dns_address: str = "", node_log: Path | None = None) -> None:
        self._client = client
        self._config = config
        self._node = node
        self._node_log = node_log
        self._parts = {f"{part.name}-{config.name}": part for part in parts(config, dns_address)}
        self._began = timestamp_seconds()

    def log_of(self, pod: Object) -> Path | None:
        """The file that holds what the part says."""
        part = self._parts.get(pod["metadata"]["name"])
        if part is None:
            return None
        if part.on_node or not self._config.control_plane_log:
            return self._node_log
        return Path(self._config.control_plane_log)

    async def run(self) -> None:
        """Keep them there, until cancelled."""
        informer = Informer(self._client, PODS, NAMESPACE, field_selector=f"spec.nodeName={self._config.name}")
        changed = asyncio.Event()
        informer.add_handler(lambda _old, _new: changed.set())
        following = asyncio.create_task(informer.run(), name="mirror pods")
        try:
            await informer.wait_synced()
            changed.set()
            while True:
                await changed.wait()
                changed.clear()
                try:
                    await self._ensure({pod["metadata"]["name"]: pod for pod in informer.list()})
                except AtollError as error:
                    log.warning("mirror pods of the control plane: %s", error)
                    await asyncio.sleep(RETRY_S)
                    changed.set()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _ensure(self, present: dict[str, Object]) -> None:
        for name, part in self._parts.items():
            found = present.get(name)
            wanted = self._pod(name, part)
            if found is not None and _is_stale(found, wanted):
                await self._delete(found)
                continue  # its end is a change, which brings us back
            if found is None:
                found = await self._create(wanted)
            if found is not None and (found.get("status") or {}).get("podIP") != self._status(found, part)["podIP"]:
                await self._tell(found, part)
        for name, pod in present.items():
            if name not in self._parts and MIRROR in annotations_of(pod):
                await self._delete(pod)

    async def _create(self, wanted: Object) -> Object | None:
        try:
            return await self._client.create(PODS, wanted, NAMESPACE)
        except StatusError as error:
            if is_already_exists(error):
                return None  # the watch will show it
            raise

    async def _delete(self, pod: Object) -> None:
        try:
            await self._client.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace_seconds=0, uid=pod["metadata"]["uid"])
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _tell(self, pod: Object, part: Part) -> None:
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": self._status(pod, part)}
        await self._client.patch(PODS, pod["metadata"]["name"], patch, NAMESPACE, kind="strategic", subresource="status")

    def _pod(self, name: str, part: Part) -> Object:
        container: Object = {
            "name": part.container,
            "image": f"{part.image}:{atoll.__version__}",
            "imagePullPolicy": "IfNotPresent",
            "command": list(part.command),
        }
        if part.port:
            port, number, protocol = part.port
            container["ports"] = [
                {"name": port, "containerPort": number, "protocol": protocol},
                {"name": f"{port}-tcp", "containerPort": number, "protocol": "TCP"},
            ]
        spec: Object = {
            "nodeName": self._config.name,
            "hostNetwork": not part.address,
            "priorityClassName": "system-node-critical",
            "restartPolicy": "Always",
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        digest = hashlib.sha256(orjson.dumps([spec, part.labels, part.address])).hexdigest()[:32]
        node = self._node["metadata"]
        owner = {"apiVersion": "v1", "kind": NODES.kind, "name": node["name"], "uid": node["uid"], "controller": True}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": dict(part.labels),
                "annotations": {MIRROR: digest, HASH: digest, SOURCE: "file", SEEN: self._began},
                "ownerReferences": [owner],
            },
            "spec": spec,
        }

    def _status(self, pod: Object, part: Part) -> Object:
        address = part.address or self._config.address
        since = self._began
        ready = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        identity = hashlib.sha256(pod["metadata"]["uid"].encode()).hexdigest()
        image = f"{part.image}:{atoll.__version__}"
        return {
            "phase": "Running",
            "startTime": since,
            "hostIP": self._config.address,
            "hostIPs": [{"ip": self._config.address}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": since} for kind in ready],
            "containerStatuses": [
                {
                    "name": part.container,
                    "image": image,
                    "imageID": image,
                    "containerID": f"{CONTAINER_ID_SCHEME}{identity}",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": since}},
                    "lastState": {},
                }
            ],
        }


def _is_stale(found: Object, wanted: Object) -> bool:
    own, made = annotations_of(found), annotations_of(wanted)
    same_owner = [o.get("uid") for o in found["metadata"].get("ownerReferences") or ()] == [
        o["uid"] for o in wanted["metadata"]["ownerReferences"]
    ]
    return own.get(MIRROR) != made[MIRROR] or not same_owner or bool(found["metadata"].get("deletionTimestamp"))
