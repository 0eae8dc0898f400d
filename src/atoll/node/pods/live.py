"""One pod as its worker sees it now: the object, what runs of it, and what is remembered of its containers between rounds."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.client.factory import InformerFactory
from atoll.client.objects import Object
from atoll.client.protocol import Client
from atoll.client.recorder import EventType, Recorder
from atoll.client.resources import PODS
from atoll.config import Instance
from atoll.engine import Engine
from atoll.node.config import NodeConfig
from atoll.node.machine import Machine
from atoll.node.objects import WatchedObjects
from atoll.node.pods import model
from atoll.node.pods.model import Actual, ContainerState, Waiting
from atoll.node.pods.plan import all_containers
from atoll.node.pods.pulls import Pulls
from atoll.node.pods.sandbox import Sandbox, Sandboxes
from atoll.node.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers of a node share."""

    instance: Instance
    config: NodeConfig
    engine: Engine
    client: Client
    informers: InformerFactory
    recorder: Recorder
    objects: WatchedObjects
    volumes: Volumes
    sandboxes: Sandboxes
    pulls: Pulls
    machine: Machine


class LivePod:
    """`pod` is replaced as the API tells of it; `waiting` and `delays` are by container."""

    def __init__(self, pod: Object, around: Surroundings) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.around = around
        self.waiting: dict[str, Waiting] = {}
        self.delays: dict[str, float] = {}
        self.adopted = {
            row["containerID"].removeprefix(model.CONTAINER_ID_SCHEME): row
            for name in ("initContainerStatuses", "containerStatuses")
            for row in (pod.get("status") or {}).get(name) or ()
            if row.get("containerID")
        }
        registry = around.engine.registry
        self._lost = [model.lost_state(row) for identifier, row in self.adopted.items() if registry.find(identifier) is None]

    def actual(self) -> Actual:
        """What is, but for what the probes say."""
        sandbox = self.sandbox()
        return Actual(
            sandbox=sandbox.id if sandbox else "",
            containers=self._states(),
            waiting=self.waiting,
            delays=self.delays,
        )

    def _states(self) -> dict[str, list[ContainerState]]:
        found = model.states_of(self.uid, self.around.engine.registry)
        for state in self._lost:
            found.setdefault(state.name, []).append(state)
        return found

    def sandbox(self) -> Sandbox | None:
        return self.around.sandboxes.find(self.pod)

    @property
    def address(self) -> str:
        """The pod's; empty without a sandbox."""
        sandbox = self.sandbox()
        return sandbox.address if sandbox else ""

    def addresses(self) -> dict[str, str]:
        """As fields of the downward API."""
        own, host = self.address, self.around.config.address
        return {"status.podIP": own, "status.podIPs": own, "status.hostIP": host, "status.hostIPs": host}

    def container(self, name: str) -> Object:
        return next((container for container in all_containers(self.pod["spec"]) if container["name"] == name), {"name": name})

    def tell(self, kind: EventType, reason: str, message: str) -> None:
        """An event about the pod."""
        self.around.recorder.event(self.pod, PODS, kind, reason, message)

    def tell_of(self, kind: EventType, reason: str, message: str, container: str) -> None:
        """An event about one container of it."""
        spec = self.pod["spec"]
        lists = ("initContainers", "ephemeralContainers")
        field = next((name for name in lists if any(one["name"] == container for one in spec.get(name) or ())), "containers")
        self.around.recorder.event(self.pod, PODS, kind, reason, message, field_path=f"spec.{field}{{{container}}}")
