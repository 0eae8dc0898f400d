"""ReplicationControllers: what ReplicaSets are, from before selectors had expressions. A selector is a plain map of labels."""

from __future__ import annotations

from atoll.client.objects import Object, labels_of
from atoll.client.resources import REPLICATION_CONTROLLERS
from atoll.client.selectors import matches_map
from atoll.controllers.replicaset import ReplicaSetController


class ReplicationControllerController(ReplicaSetController):
    name = "replicationcontroller-controller"
    component = "replication-controller"
    resource = REPLICATION_CONTROLLERS

    def matches(self, replica_set: Object, pod: Object) -> bool:
        selector = replica_set["spec"].get("selector")
        return bool(selector) and matches_map(selector, labels_of(pod))
