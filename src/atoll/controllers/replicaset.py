"""ReplicaSets: keep so many pods of one template.

Counts the active pods it owns and creates or deletes the difference. Expectations keep a stale informer from making pods twice;
creations start slowly (1, 2, 4, ...), so that a template the server refuses costs one request and not five hundred.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from atoll.client.factory import BY_NAMESPACE, BY_ORPHAN, BY_OWNER
from atoll.client.objects import Object, controller_of, is_deleting, key_of, labels_of, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import PODS, REPLICA_SETS
from atoll.client.selectors import matches, matches_map
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.expectations import Expectations
from atoll.controllers.ownership import Claims
from atoll.controllers.pods import BURST, available_in, is_active, is_available, is_ready, pod_from_template, rank_for_deletion
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds

logger = logging.getLogger(__name__)


async def slow_start(count: int, create: Callable[[], Awaitable[None]]) -> tuple[int, AtollError | None]:
    """Calls `create` up to `count` times in batches of 1, 2, 4, ...; stops after the first batch with a failure. Returns successes and
    the first error.
    """
    done, batch = 0, 1
    while done < count:
        results = await asyncio.gather(*(create() for _ in range(min(batch, count - done))), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        done += len(results) - len(errors)
        for error in errors:
            if isinstance(error, AtollError):
                return done, error
            raise error
        batch *= 2
    return done, None


def make_status(replica_set: Object, pods: list[Object], failure: AtollError | None, now: float) -> Object:
    """The new status from the pods it owns; `failure` is what went wrong while creating or deleting."""
    old = replica_set.get("status") or {}
    spec = replica_set["spec"]
    min_ready = spec.get("minReadySeconds", 0)
    template_labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    status = {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(matches_map(template_labels, labels_of(pod)) for pod in pods),
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "availableReplicas": sum(is_available(pod, min_ready, now) for pod in pods),
    }
    status = {field: count for field, count in status.items() if count or field == "replicas"}
    entries = old.get("conditions")
    if failure is None:
        entries = conditions.without(entries, "ReplicaFailure")
    elif conditions.find(entries, "ReplicaFailure") is None:
        reason = "FailedCreate" if len(pods) < spec.get("replicas", 1) else "FailedDelete"
        entries = conditions.put(entries, conditions.condition("ReplicaFailure", "True", reason, str(failure), timestamp_seconds(now)))
    if entries:
        status["conditions"] = entries
    status["observedGeneration"] = replica_set["metadata"].get("generation", 0)
    return status


class ReplicaSetController(Controller):
    name = "replicaset-controller"
    resource = REPLICA_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._expectations = Expectations(context.clock)
        self._sets = self.informer(self.resource, BY_NAMESPACE, BY_OWNER, handler=self.enqueue)
        self._pods = self.informer(PODS, BY_OWNER, BY_ORPHAN, handler=self._pod_changed)

    def matches(self, replica_set: Object, pod: Object) -> bool:
        return matches(replica_set["spec"].get("selector"), labels_of(pod))

    async def reconcile(self, key: str) -> None:
        replica_set = self._sets.get(key)
        if replica_set is None:
            self._expectations.forget(key)
            return
        may_manage = self._expectations.satisfied(key)
        owned = self._pods.by_index(BY_OWNER, uid_of(replica_set))
        orphans = self._pods.by_index(BY_ORPHAN, namespace_of(replica_set) or "")
        candidates = [pod for pod in (*owned, *orphans) if is_active(pod)]
        claims = Claims(self.client, replica_set, self.resource, PODS)
        pods = await claims.claim(candidates, lambda pod: self.matches(replica_set, pod))
        failure: AtollError | None = None
        if may_manage and not is_deleting(replica_set):
            failure = await self._manage(key, replica_set, pods)
        now = self.clock()
        status = make_status(replica_set, pods, failure, now)
        if status != (replica_set.get("status") or {}):
            await self._write_status(replica_set, status)
        waits = [available_in(pod, replica_set["spec"].get("minReadySeconds", 0), now) for pod in pods]
        pending = [wait for wait in waits if wait]
        if pending:
            self.queue.add_after(key, min(pending))
        if failure is not None:
            raise failure

    async def _write_status(self, replica_set: Object, status: Object) -> None:
        try:
            await self.client.update(self.resource, {**replica_set, "status": status}, subresource="status")
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _manage(self, key: str, replica_set: Object, pods: list[Object]) -> AtollError | None:
        missing = replica_set["spec"].get("replicas", 1) - len(pods)
        if missing > 0:
            return await self._create(key, replica_set, min(missing, BURST))
        if missing < 0:
            doomed = rank_for_deletion(pods, self._related(replica_set))[: min(-missing, BURST)]
            return await self._delete(key, replica_set, doomed)
        return None

    async def _create(self, key: str, replica_set: Object, count: int) -> AtollError | None:
        self._expectations.expect(key, creations=count)
        namespace = namespace_of(replica_set)

        async def create() -> None:
            pod = await self.client.create(PODS, pod_from_template(replica_set["spec"]["template"], replica_set, self.resource), namespace)
            self.recorder.event(replica_set, self.resource, "Normal", "SuccessfulCreate", f"Created pod: {name_of(pod)}")

        created, error = await slow_start(count, create)
        if error is not None:
            self._expectations.creation_observed(key, count - created)
            if is_namespace_terminating(error):
                return None
            self.recorder.event(replica_set, self.resource, "Warning", "FailedCreate", f"Error creating: {error}")
        return error

    async def _delete(self, key: str, replica_set: Object, doomed: list[Object]) -> AtollError | None:
        self._expectations.expect(key, deletions=[key_of(pod) for pod in doomed])

        async def delete(pod: Object) -> AtollError | None:
            try:
                await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            except AtollError as error:
                self._expectations.deletion_observed(key, key_of(pod))
                if is_not_found(error):
                    return None
                self.recorder.event(replica_set, self.resource, "Warning", "FailedDelete", f"Error deleting: {error}")
                return error
            self.recorder.event(replica_set, self.resource, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")
            return None

        results = await asyncio.gather(*(delete(pod) for pod in doomed))
        return next((error for error in results if error is not None), None)

    def _related(self, replica_set: Object) -> list[Object]:
        """Pods of all sets of the same owner: a rollout spreads over the deployment's sets."""
        reference = controller_of(replica_set)
        siblings = self._sets.by_index(BY_OWNER, reference["uid"]) if reference else [replica_set]
        return [pod for sibling in siblings for pod in self._pods.by_index(BY_OWNER, uid_of(sibling)) if is_active(pod)]

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        reference = controller_of(pod)
        if old is not None and new is not None:
            before = controller_of(old)
            if before is not None and before != reference:
                self.enqueue_controller(self.resource.kind, old)
        if reference is None:
            if new is not None:
                self._enqueue_matching(new)
            return
        if reference.get("kind") != self.resource.kind:
            return
        key = make_key(namespace_of(pod), reference["name"])
        if new is None or is_deleting(new):
            self._expectations.deletion_observed(key, key_of(pod))
        elif old is None:
            self._expectations.creation_observed(key)
        self.queue.add(key)

    def _enqueue_matching(self, pod: Object) -> None:
        for replica_set in self._sets.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
            if self.matches(replica_set, pod):
                self.queue.add(key_of(replica_set))


def is_namespace_terminating(error: BaseException) -> bool:
    """Creation refused since the namespace is going away: nothing to report, and nothing to try again."""
    if not isinstance(error, StatusError) or error.code != 403:
        return False
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
