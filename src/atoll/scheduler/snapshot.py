"""The cluster at one instant, for plugins to look at: nodes with their pods and sums, and the storage objects. Never changed once made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from atoll.client.objects import Object, labels_of, name_of
from atoll.scheduler.requests import Amounts, HostPort, PodInfo, amounts


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node, the pods on it (assumed ones included), and the sums of what these ask for."""

    node: Object
    pods: tuple[PodInfo, ...]
    allocatable: Amounts
    requested: Amounts
    scored: tuple[int, int]
    ports: frozenset[HostPort]

    @property
    def name(self) -> str:
        return name_of(self.node)

    @property
    def labels(self) -> dict[str, str]:
        return labels_of(self.node)


def make_node_info(node: Object, pods: Sequence[PodInfo]) -> NodeInfo:
    requested: Amounts = {}
    cpu = memory = 0
    for each in pods:
        for name, amount in each.requests.items():
            requested[name] = requested.get(name, 0) + amount
        cpu += each.scored[0]
        memory += each.scored[1]
    status = node.get("status") or {}
    allocatable = amounts(status.get("allocatable") or status.get("capacity"))
    ports = frozenset(port for each in pods for port in each.ports)
    return NodeInfo(node, tuple(pods), allocatable, requested, (cpu, memory), ports)


@dataclass(frozen=True, slots=True)
class Storage:
    """Claims, volumes and classes, as lookups into the informers' copies."""

    claim: Callable[[str], Object | None] = lambda _key: None
    volume: Callable[[str], Object | None] = lambda _name: None
    volumes: Callable[[], Sequence[Object]] = tuple
    storage_class: Callable[[str], Object | None] = lambda _name: None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`namespaces` gives the labels of each namespace, for affinity terms that select namespaces; `nominated` the pods that wait for the
    room their victims give up, by the node promised to them.
    """

    nodes: Mapping[str, NodeInfo]
    storage: Storage = field(default_factory=Storage)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    nominated: Mapping[str, Sequence[PodInfo]] = field(default_factory=dict)

    def with_pods(self, node: NodeInfo, pods: Sequence[PodInfo]) -> Snapshot:
        """The same cluster with other pods on that node."""
        return replace(self, nodes={**self.nodes, node.name: make_node_info(node.node, pods)})
