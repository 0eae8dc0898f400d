"""The node's own object and its heartbeat: registered when it joins, a lease renewed every ten seconds, the status told every five minutes.

The lease is the heartbeat (KEP-589): it is small, so the whole status is written only when it changed or is old.
"""

from __future__ import annotations

import asyncio
import logging
import time

from atoll.client.objects import Object, owner_reference
from atoll.client.protocol import Client, is_already_exists, is_not_found
from atoll.client.resources import LEASES, NODES
from atoll.errors import AtollError, StatusError, Unavailable
from atoll.images import ImageStore
from atoll.node.config import NodeConfig
from atoll.node.machine import Machine
from atoll.units import timestamp_micro, timestamp_seconds

LEASE_NAMESPACE = "kube-node-lease"
LEASE_S = 40  # nodeLeaseDurationSeconds
RENEW_S = 10.0  # a quarter of it
STATUS_S = 300.0  # nodeStatusReportFrequency
IMAGES_MAX = 50  # nodeStatusMaxImages
KUBELET_VERSION = "v1.36.0"

MEMORY_MIN = 100 << 20  # bytes available: the kubelet's default threshold

# Room on disk and process numbers have no threshold, as in minikube's and kind's nodes: a workstation's disk may well be nearly full.
_CONDITIONS = (
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)

log = logging.getLogger(__name__)


class Registration:
    def __init__(self, client: Client, config: NodeConfig, machine: Machine, images: ImageStore, *, pod_cidr: str, port: int) -> None:
        self._client = client
        self._config = config
        self._machine = machine
        self._images = images
        self._pod_cidr = pod_cidr
        self._port = port
        self.is_heard = True  # the API server answered the last heartbeat
        self._since: dict[str, tuple[str, str]] = {}  # condition to its status and since when

    async def register(self) -> Object:
        """The Node object, made or brought up to date. Raises StatusError, Unavailable."""
        try:
            node = await self._client.create(NODES, self._node())
        except StatusError as error:
            if not is_already_exists(error):
                raise
            patch = {"metadata": {"labels": self._labels()}}
            node = await self._client.patch(NODES, self._config.name, patch)
        await self.tell_status()
        return node

    async def run(self, node: Object) -> None:
        """Heartbeats until cancelled."""
        told = time.monotonic()
        images = self._image_rows()
        while True:
            try:
                await self._renew(node)
                self.is_heard = True
                rows = self._image_rows()
                if rows != images or time.monotonic() - told >= STATUS_S:
                    images, told = rows, time.monotonic()
                    await self.tell_status()
            except AtollError as error:
                log.warning("heartbeat of node %s: %s", self._config.name, error)
                self.is_heard = not isinstance(error, Unavailable)
                if isinstance(error, StatusError) and is_not_found(error):
                    await self._again()
            await asyncio.sleep(RENEW_S)

    async def _again(self) -> None:
        """The object was deleted under us: a node that lives registers."""
        try:
            await self.register()
        except AtollError as error:
            log.warning("registering node %s: %s", self._config.name, error)

    async def tell_status(self) -> None:
        await self._client.patch(NODES, self._config.name, {"status": self.status()}, kind="strategic", subresource="status")

    async def tell_leaving(self) -> None:
        """The last word before the kubelet stops for longer than a restart: no new pods, please."""
        now = timestamp_seconds()
        condition = {
            "type": "Ready",
            "status": "False",
            "reason": "KubeletNotReady",
            "message": "the kubelet has stopped",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        await self._client.patch(NODES, self._config.name, {"status": {"conditions": [condition]}}, kind="strategic", subresource="status")

    async def _renew(self, node: Object) -> None:
        name = self._config.name
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": timestamp_micro()}
        try:
            await self._client.patch(LEASES, name, {"spec": spec}, LEASE_NAMESPACE)
        except StatusError as error:
            if not is_not_found(error):
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [_plain_owner(node)]},
                "spec": spec,
            }
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)

    def _labels(self) -> dict[str, str]:
        machine, name = self._machine, self._config.name
        return {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine.architecture,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": machine.architecture,
        }

    def _node(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._config.name,
                "labels": self._labels(),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {"podCIDR": self._pod_cidr, "podCIDRs": [self._pod_cidr]},
            "status": self.status(),
        }

    def status(self) -> Object:
        machine = self._machine
        return {
            "addresses": [
                {"type": "InternalIP", "address": self._config.address},
                {"type": "Hostname", "address": self._config.name},
            ],
            "capacity": dict(machine.capacity),
            "allocatable": dict(machine.allocatable),
            "conditions": self._conditions(),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": self._info(),
            "images": self._image_rows(),
        }

    def _info(self) -> Object:
        import atoll

        return {
            **self._machine.info,
            "containerRuntimeVersion": f"atoll://{atoll.__version__}",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": KUBELET_VERSION,
        }

    def _conditions(self) -> list[Object]:
        now = timestamp_seconds()
        rows = []
        for kind, status, reason, message in (memory_condition(available_memory()), *_CONDITIONS):
            known = self._since.get(kind)
            if known is None or known[0] != status:
                known = self._since[kind] = (status, now)
            times = {"lastHeartbeatTime": now, "lastTransitionTime": known[1]}
            rows.append({"type": kind, "status": status, **times, "reason": reason, "message": message})
        return rows

    def _image_rows(self) -> list[Object]:
        """The largest first, as the scheduler weighs them."""
        images = sorted(self._images.all(), key=lambda image: image.size, reverse=True)[:IMAGES_MAX]
        return [
            {"names": [*image.repo_digests, *image.repo_tags], "sizeBytes": image.size}
            for image in images
            if image.repo_tags or image.repo_digests
        ]


def _plain_owner(node: Object) -> Object:
    """The kubelet's reference from its lease: an owner that does not control."""
    full = owner_reference(node, NODES)
    return {name: full[name] for name in ("apiVersion", "kind", "name", "uid")}


def memory_condition(available: int) -> tuple[str, str, str, str]:
    """Type, status, reason and message for so many bytes."""
    if available < MEMORY_MIN:
        return "MemoryPressure", "True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"
    return "MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"


def available_memory() -> int:
    """Bytes a program could have without swapping (proc(5), MemAvailable)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
