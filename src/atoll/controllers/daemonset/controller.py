"""The daemon set controller's watches and writes."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.client.factory import BY_NAMESPACE, BY_ORPHAN, BY_OWNER
from atoll.client.nodes import taints_of
from atoll.client.objects import Object, controller_of, is_deleting, key_of, labels_of, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from atoll.client.selectors import matches
from atoll.controllers.base import Context, Controller
from atoll.controllers.daemonset.placement import make_pod, node_of, placement
from atoll.controllers.daemonset.plan import Plan, age, is_rolling, plan_nodes, plan_update
from atoll.controllers.expectations import Expectations
from atoll.controllers.history import HASH_LABEL, History, hash_of
from atoll.controllers.ownership import Claims
from atoll.controllers.pods import available_in, is_available, is_finished, is_ready
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import AtollError, StatusError

FAILED_BACKOFF_BASE_S = 1.0  # a pod that failed is replaced after this, doubling
FAILED_BACKOFF_MAX_S = 900.0


class DaemonSetController(Controller):
    name = "daemonset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._expectations = Expectations(context.clock)
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}  # daemon set and node → failures, when the last was replaced
        self._sets = self.informer(DAEMON_SETS, BY_NAMESPACE, handler=self.enqueue)
        self._nodes = self.informer(NODES, handler=self._node_changed)
        self._pods = self.informer(PODS, BY_OWNER, BY_ORPHAN, handler=self._pod_changed)
        revisions = self.informer(CONTROLLER_REVISIONS, BY_OWNER, handler=self._revision_changed)
        self._history = History(context.client, DAEMON_SETS, revisions)

    async def reconcile(self, key: str) -> None:
        daemon_set = self._sets.get(key)
        if daemon_set is None:
            self._expectations.forget(key)
            self._failures = {each: value for each, value in self._failures.items() if each[0] != key}
            return
        if is_deleting(daemon_set):
            return
        revision = await self._history.current(daemon_set, (daemon_set.get("status") or {}).get("collisionCount"))
        digest = hash_of(revision)
        by_node = await self._pods_by_node(daemon_set)
        nodes = {name_of(node): node for node in self._nodes.list()}
        failure: AtollError | None = None
        if self._expectations.satisfied(key):
            plan = plan_nodes(daemon_set, nodes, by_node, digest)
            self._hold_back_failed(key, plan)
            if not plan.create and not plan.delete and is_rolling(daemon_set):
                wanted = [name for name, node in nodes.items() if placement(daemon_set, node)[0]]
                plan = plan_update(daemon_set, wanted, by_node, digest, self.clock())
            failure = await self._perform(key, daemon_set, plan, digest)
            in_use = {f"{name_of(daemon_set)}-{labels_of(pod).get(HASH_LABEL)}" for pods in by_node.values() for pod in pods}
            await self._history.trim(daemon_set, in_use | {name_of(revision)})
        await self._write_status(key, daemon_set, nodes, by_node, digest)
        if failure is not None:
            raise failure

    async def _pods_by_node(self, daemon_set: Object) -> dict[str, list[Object]]:
        candidates = self._pods.by_index(BY_OWNER, uid_of(daemon_set)) + self._pods.by_index(BY_ORPHAN, namespace_of(daemon_set) or "")
        claims = Claims(self.client, daemon_set, DAEMON_SETS, PODS)
        by_node: dict[str, list[Object]] = {}
        for pod in await claims.claim(candidates, lambda each: matches(daemon_set["spec"].get("selector"), labels_of(each))):
            by_node.setdefault(node_of(pod) or "", []).append(pod)
        return by_node

    def _hold_back_failed(self, key: str, plan: Plan) -> None:
        """A pod that fails at once must not be replaced in a loop."""
        now = self.clock()
        for pod in plan.failed:
            place = (key, node_of(pod) or "")
            count, since = self._failures.get(place, (0, 0.0))
            wait = min(FAILED_BACKOFF_BASE_S * 2.0 ** min(count - 1, 20), FAILED_BACKOFF_MAX_S) if count else 0.0
            if now < since + wait:
                plan.delete.remove(pod)
                self.queue.add_after(key, since + wait - now)
            else:
                self._failures[place] = (count + 1 if now < since + 2 * FAILED_BACKOFF_MAX_S else 1, now)

    async def _perform(self, key: str, daemon_set: Object, plan: Plan, digest: str) -> AtollError | None:
        self._expectations.expect(key, creations=len(plan.create), deletions=[key_of(pod) for pod in plan.delete])
        failure: AtollError | None = None
        for done, node in enumerate(plan.create):
            try:
                pod = await self.client.create(PODS, make_pod(daemon_set, node, digest), namespace_of(daemon_set))
                self.recorder.event(daemon_set, DAEMON_SETS, "Normal", "SuccessfulCreate", f"Created pod: {name_of(pod)}")
            except AtollError as error:
                self._expectations.creation_observed(key, len(plan.create) - done)
                if not is_namespace_terminating(error):
                    self.recorder.event(daemon_set, DAEMON_SETS, "Warning", "FailedCreate", f"Error creating: {error}")
                    failure = error
                break
        for pod in plan.delete:
            if pod in plan.failed:
                message = f"Found failed daemon pod {key_of(pod)} on node {node_of(pod)}, will try to kill it"
                self.recorder.event(daemon_set, DAEMON_SETS, "Warning", "FailedDaemonPod", message)
            try:
                await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
                self.recorder.event(daemon_set, DAEMON_SETS, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")
            except StatusError as error:
                self._expectations.deletion_observed(key, key_of(pod))
                if not is_not_found(error):
                    failure = error
        return failure

    async def _write_status(
        self, key: str, daemon_set: Object, nodes: Mapping[str, Object], by_node: Mapping[str, list[Object]], digest: str
    ) -> None:
        now = self.clock()
        min_ready = daemon_set["spec"].get("minReadySeconds", 0)
        counts = dict.fromkeys(("desired", "current", "mis", "ready", "available", "updated"), 0)
        for name, node in nodes.items():
            starts, _ = placement(daemon_set, node)
            pods = sorted((pod for pod in by_node.get(name, ()) if not is_finished(pod)), key=age)
            counts["desired"] += starts
            if starts and pods:
                counts["current"] += 1
                counts["ready"] += any(is_ready(pod) for pod in pods)
                counts["available"] += any(is_available(pod, min_ready, now) for pod in pods)
                counts["updated"] += any(labels_of(pod).get(HASH_LABEL) == digest for pod in pods)
            elif pods:
                counts["mis"] += 1
            waits = [available_in(pod, min_ready, now) for pod in pods]
            for wait in waits:
                if wait:
                    self.queue.add_after(key, wait)
        old = daemon_set.get("status") or {}
        status: Object = {
            "currentNumberScheduled": counts["current"],
            "desiredNumberScheduled": counts["desired"],
            "numberMisscheduled": counts["mis"],
            "numberReady": counts["ready"],
            "observedGeneration": daemon_set["metadata"].get("generation", 0),
        }
        optional = {
            "updatedNumberScheduled": counts["updated"],
            "numberAvailable": counts["available"],
            "numberUnavailable": counts["desired"] - counts["available"],
        }
        status |= {field: count for field, count in optional.items() if count}
        status |= {field: old[field] for field in ("collisionCount", "conditions") if field in old}
        if status != old:
            await self.client.update(DAEMON_SETS, {**daemon_set, "status": status}, subresource="status")

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        reference = controller_of(pod)
        if reference is None:
            for daemon_set in self._sets.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
                if new is not None and matches(daemon_set["spec"].get("selector"), labels_of(pod)):
                    self.queue.add(key_of(daemon_set))
            return
        if reference.get("kind") != "DaemonSet":
            return
        key = make_key(namespace_of(pod), reference["name"])
        if new is None or is_deleting(new):
            self._expectations.deletion_observed(key, key_of(pod))
        elif old is None:
            self._expectations.creation_observed(key)
        self.queue.add(key)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and (labels_of(old), taints_of(old)) == (labels_of(new), taints_of(new)):
            return
        for daemon_set in self._sets.list():
            self.queue.add(key_of(daemon_set))

    def _revision_changed(self, old: Object | None, new: Object | None) -> None:
        self.enqueue_controller("DaemonSet", new or old or {})
