"""Keeps the status of every PodDisruptionBudget true, from which the eviction subresource takes its permission."""

from __future__ import annotations

from atoll.client.factory import BY_NAMESPACE
from atoll.client.objects import Object, controller_of, key_of, labels_of, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS
from atoll.client.selectors import matches
from atoll.controllers.base import Context, Controller
from atoll.controllers.disruption import budget as arithmetic
from atoll.controllers.pods import is_finished, is_ready
from atoll.errors import StatusError

SIZED = (REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS, DEPLOYMENTS)


class _NoSize(Exception):
    """An owner whose size nobody here can tell."""


class DisruptionController(Controller):
    name = "disruption-controller"
    component = "controllermanager"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._budgets = self.informer(POD_DISRUPTION_BUDGETS, BY_NAMESPACE, handler=self.enqueue)
        self._pods = self.informer(PODS, BY_NAMESPACE, handler=self._pod_changed)
        self._owners = {resource.kind: self.informer(resource, handler=self._owner_changed) for resource in SIZED}

    async def reconcile(self, key: str) -> None:
        budget = self._budgets.get(key)
        if budget is None:
            return
        pods = self._covered(budget)
        now = self.clock()
        disrupted, stayed, wait = arithmetic.still_disrupted(budget, pods, now)
        for pod in stayed:
            text = "Pod was expected by PDB to be deleted but it wasn't"
            self.recorder.event(pod, PODS, "Warning", "NotDeleted", text)
        try:
            wanted = self._wanted(pods) if arithmetic.counts_owners(budget) else 0
        except _NoSize as error:
            self.recorder.event(budget, POD_DISRUPTION_BUDGETS, "Warning", "CalculateExpectedPodCountFailed", str(error))
            status = arithmetic.failed_status(budget, str(error), now)
        else:
            status = arithmetic.make_status(budget, pods, arithmetic.goal(budget, len(pods), wanted), disrupted, now)
        if wait is not None:
            self.queue.add_after(key, wait)
        if status != (budget.get("status") or {}):
            try:
                await self.client.update(POD_DISRUPTION_BUDGETS, {**budget, "status": status}, subresource="status")
            except StatusError as error:
                if not is_not_found(error):
                    raise

    def _covered(self, budget: Object) -> list[Object]:
        selector = (budget.get("spec") or {}).get("selector")
        if selector is None:
            return []
        pods = self._pods.by_index(BY_NAMESPACE, namespace_of(budget) or "")
        return [pod for pod in pods if not is_finished(pod) and matches(selector, labels_of(pod))]

    def _wanted(self, pods: list[Object]) -> int:
        """The sum of the sizes of all the pods' owners, each counted once; pods without one do not count. Raises _NoSize."""
        sizes: dict[str, int] = {}
        for pod in pods:
            owner = self._owner(pod)
            if owner is not None:
                sizes[uid_of(owner)] = (owner.get("spec") or {}).get("replicas", 1)
        return sum(sizes.values())

    def _owner(self, pod: Object) -> Object | None:
        """The pod's controller, or for a deployment's pod the deployment. None where it has gone."""
        reference = controller_of(pod)
        if reference is None:
            return None
        found = self._find(namespace_of(pod), reference)
        above = controller_of(found) if found is not None else None
        if above is not None and above.get("kind") == DEPLOYMENTS.kind:
            return self._find(namespace_of(pod), above)
        return found

    def _find(self, namespace: str | None, reference: Object) -> Object | None:
        informer = self._owners.get(reference.get("kind", ""))
        if informer is None:
            raise _NoSize(f"{reference.get('kind')}.{reference.get('apiVersion')} does not implement the scale subresource")
        found = informer.get(make_key(namespace, reference["name"]))
        return found if found is not None and uid_of(found) == reference.get("uid") else None

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _shown(old) == _shown(new):
            return
        for pod in (old, new):
            if pod is not None:
                for budget in self._budgets.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
                    if matches((budget.get("spec") or {}).get("selector"), labels_of(pod)):
                        self.queue.add(key_of(budget))

    def _owner_changed(self, old: Object | None, new: Object | None) -> None:
        owner = new or old
        assert owner is not None
        if old is not None and new is not None and old["spec"].get("replicas") == new["spec"].get("replicas"):
            return
        for budget in self._budgets.by_index(BY_NAMESPACE, namespace_of(owner) or ""):
            self.queue.add(key_of(budget))


def _shown(pod: Object) -> tuple[object, ...]:
    """All of a pod that a budget looks at."""
    meta = pod["metadata"]
    return labels_of(pod), is_ready(pod), is_finished(pod), meta.get("deletionTimestamp"), meta.get("ownerReferences"), name_of(pod)
