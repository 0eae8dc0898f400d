"""The deployment controller: reads, asks the planners of this package, writes.

Each pass makes one kind of change (adopt, create the new set, resize, clean up) and then the status; the events these cause bring the
next pass.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.client.factory import BY_LABEL, BY_NAMESPACE, BY_ORPHAN, BY_OWNER
from atoll.client.objects import (
    Object,
    annotations_of,
    controller_of,
    copy_of,
    is_controlled_by,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from atoll.client.selectors import matches
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import Conditions, condition
from atoll.controllers.deployment import revisions, rollout
from atoll.controllers.deployment import status as statuses
from atoll.controllers.deployment.rollout import Resize
from atoll.controllers.ownership import Claims
from atoll.controllers.pods import is_finished
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import AtollError, Conflict, StatusError
from atoll.units import timestamp_seconds


class DeploymentController(Controller):
    name = "deployment-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._deployments = self.informer(DEPLOYMENTS, BY_NAMESPACE, handler=self.enqueue)
        self._sets = self.informer(REPLICA_SETS, BY_OWNER, BY_ORPHAN, handler=self._set_changed)
        self._pods = self.informer(PODS, BY_OWNER, BY_LABEL, handler=self._pod_changed)

    async def reconcile(self, key: str) -> None:
        deployment = self._deployments.get(key)
        if deployment is not None:
            await _Pass(self, deployment, await self._claim(deployment)).run(key)

    async def _claim(self, deployment: Object) -> list[Object]:
        candidates = self._sets.by_index(BY_OWNER, uid_of(deployment)) + self._sets.by_index(BY_ORPHAN, namespace_of(deployment) or "")
        claims = Claims(self.client, deployment, DEPLOYMENTS, REPLICA_SETS)
        return await claims.claim(candidates, lambda each: matches(deployment["spec"].get("selector"), labels_of(each)))

    def pods_of(self, replica_sets: Iterable[Object]) -> list[Object]:
        return [pod for each in replica_sets for pod in self._pods.by_index(BY_OWNER, uid_of(each))]

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if each is not None and controller_of(each) is not None:
                self.enqueue_controller("Deployment", each)
        if new is not None and controller_of(new) is None:
            for deployment in self._deployments.by_index(BY_NAMESPACE, namespace_of(new) or ""):
                if matches(deployment["spec"].get("selector"), labels_of(new)):
                    self.queue.add(key_of(deployment))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """Only Recreate waits for pods themselves: their end lets the new set begin."""
        if old is None or (new is not None and is_finished(old) == is_finished(new)):
            return
        reference = controller_of(old)
        owner = self._sets.get(f"{namespace_of(old)}/{reference['name']}") if reference else None
        if owner is not None:
            self.enqueue_controller("Deployment", owner)


class _Pass:
    """One reconciliation of one deployment. `entries` gathers conditions that the status write at the end will carry."""

    def __init__(self, controller: DeploymentController, deployment: Object, sets: list[Object]) -> None:
        self._controller = controller
        self._client = controller.client
        self._now = controller.clock()
        self._deployment = deployment
        self._sets = sets
        self._collisions = (deployment.get("status") or {}).get("collisionCount")
        self._entries: Conditions = list((deployment.get("status") or {}).get("conditions") or [])

    async def run(self, key: str) -> None:
        deployment = self._deployment
        if is_deleting(deployment):
            await self._write_status(statuses.scaled_status(deployment, self._entries, self._new(), self._sets, self._now))
            return
        if (news := statuses.paused_condition(deployment, self._entries, timestamp_seconds(self._now))) is not None:
            self._entries = conditions.put(self._entries, news)
        if deployment["spec"].get("paused") or rollout.is_scaling(deployment, self._sets):
            await self._sync_size()
        elif rollout.is_rolling(deployment):
            await self._roll(key)
        else:
            await self._recreate(key)

    # The three ways of a pass

    async def _sync_size(self) -> None:
        await self._refresh_new()
        await self._resize(rollout.scale(self._deployment, self._new(), self._old()))
        if self._deployment["spec"].get("paused"):
            await self._clean_up()
        await self._write_status(statuses.scaled_status(self._deployment, self._entries, self._new(), self._sets, self._now))

    async def _roll(self, key: str) -> None:
        new = await self._refresh_new() or await self._create_new()
        target = rollout.new_set_size(self._deployment, self._sets, rollout.size(new))
        if target != rollout.size(new):
            await self._resize([Resize(new, target)])
        else:
            await self._resize(rollout.shrink_old(self._deployment, new, self._old()))
        await self._finish(key)

    async def _recreate(self, key: str) -> None:
        new = await self._refresh_new()
        old = self._old()
        if shrinking := [Resize(each, 0) for each in rollout.active(old)]:
            await self._resize(shrinking)
        elif not any(not is_finished(pod) for pod in self._controller.pods_of(old)):
            new = new or await self._create_new()
            if rollout.size(new) != rollout.wanted(self._deployment):
                await self._resize([Resize(new, rollout.wanted(self._deployment))])
        await self._finish(key)

    async def _finish(self, key: str) -> None:
        status = statuses.rollout_status(self._deployment, self._entries, self._new(), self._sets, self._now)
        if statuses.is_complete(self._deployment, status):
            await self._clean_up()
        await self._write_status(status)
        left = statuses.deadline_left(self._deployment, status["conditions"], self._now)
        if left is not None:
            self._controller.queue.add_after(key, max(left, 0) + 1)  # whole seconds on the wire: one later is surely past it

    # Writes

    def _new(self) -> Object | None:
        return revisions.find_new(self._deployment, self._sets)

    def _old(self) -> list[Object]:
        new = self._new()
        return [each for each in self._sets if new is None or uid_of(each) != uid_of(new)]

    async def _refresh_new(self) -> Object | None:
        """The set of the current template with its annotations and minReadySeconds brought up to date; None where there is none yet."""
        new = self._new()
        if new is None:
            return None
        annotations = revisions.new_annotations(self._deployment, new, revisions.next_revision(self._old()), exists=True)
        min_ready = self._deployment["spec"].get("minReadySeconds", 0)
        if annotations != annotations_of(new) or min_ready != new["spec"].get("minReadySeconds", 0):
            changed = copy_of(new)
            changed["metadata"]["annotations"] = annotations
            changed["spec"]["minReadySeconds"] = min_ready
            new = await self._update_set(changed)
        await self._set_revision(new)
        self._note_progress("FoundNewReplicaSet", f'Found new replica set "{name_of(new)}"', only_if_missing=True)
        return new

    async def _create_new(self) -> Object:
        made = revisions.make_replica_set(self._deployment, revisions.next_revision(self._old()), self._collisions)
        made["spec"]["replicas"] = rollout.new_set_size(self._deployment, self._sets, 0)
        made["metadata"]["annotations"] |= self._size_annotations()
        try:
            created = await self._client.create(REPLICA_SETS, made, namespace_of(self._deployment))
        except AtollError as error:
            if not is_already_exists(error):
                await self._report_failed_create(error, name_of(made))
                raise
            created = await self._resolve_collision(name_of(made))
        else:
            if rollout.size(created):
                self._tell_scaled("up", created, 0, rollout.size(created))
        self._sets.append(created)
        await self._set_revision(created)
        self._note_progress("NewReplicaSetCreated", f'Created new replica set "{name_of(created)}"')
        return created

    async def _resolve_collision(self, name: str) -> Object:
        """A set of that name is there: ours, only not yet in the informer; or another's, and then the next pass uses another salt."""
        found = await self._client.get(REPLICA_SETS, name, namespace_of(self._deployment))
        same = revisions.same_template(found["spec"]["template"], self._deployment["spec"]["template"])
        if is_controlled_by(found, self._deployment) and same:
            return found
        status = {**(self._deployment.get("status") or {}), "collisionCount": (self._collisions or 0) + 1}
        await self._client.update(DEPLOYMENTS, {**self._deployment, "status": status}, subresource="status")
        raise Conflict(f"replica set {name} belongs to another owner or template: another hash will be tried")

    async def _report_failed_create(self, error: AtollError, name: str) -> None:
        if is_namespace_terminating(error) or not statuses.has_deadline(self._deployment):
            return
        message = f'Failed to create new replica set "{name}": {error}'
        failed = condition("Progressing", "False", "ReplicaSetCreateError", message, timestamp_seconds(self._now), updated=True)
        self._controller.recorder.event(self._deployment, DEPLOYMENTS, "Warning", "ReplicaSetCreateError", message)
        status = {**(self._deployment.get("status") or {}), "conditions": conditions.put(self._entries, failed)}
        await self._write_status(status)

    async def _resize(self, steps: Iterable[Resize]) -> None:
        for step in steps:
            before = rollout.size(step.replica_set)
            changed = copy_of(step.replica_set)
            changed["spec"]["replicas"] = step.replicas
            changed["metadata"].setdefault("annotations", {}).update(self._size_annotations())
            if changed == step.replica_set:
                continue
            updated = await self._update_set(changed)
            if before != step.replicas:
                self._tell_scaled("up" if step.replicas > before else "down", updated, before, step.replicas)

    def _size_annotations(self) -> dict[str, str]:
        return revisions.size_annotations(rollout.wanted(self._deployment), rollout.max_total(self._deployment))

    async def _update_set(self, changed: Object) -> Object:
        updated = await self._client.update(REPLICA_SETS, changed)
        self._sets = [updated if uid_of(each) == uid_of(updated) else each for each in self._sets]
        return updated

    async def _set_revision(self, new: Object) -> None:
        revision = annotations_of(new).get(revisions.REVISION)
        if revision and annotations_of(self._deployment).get(revisions.REVISION) != revision:
            patch = {"metadata": {"annotations": {revisions.REVISION: revision}}}
            self._deployment = await self._client.patch(DEPLOYMENTS, name_of(self._deployment), patch, namespace_of(self._deployment))

    async def _clean_up(self) -> None:
        for surplus in revisions.expired_history(self._deployment, self._old()):
            try:
                await self._client.delete(
                    REPLICA_SETS, name_of(surplus), namespace_of(surplus), propagation="Background", uid=uid_of(surplus)
                )
            except StatusError as error:
                if not is_not_found(error):
                    raise

    def _note_progress(self, reason: str, message: str, *, only_if_missing: bool = False) -> None:
        if not statuses.has_deadline(self._deployment):
            return
        if only_if_missing and conditions.find(self._entries, "Progressing") is not None:
            return
        made = condition("Progressing", "True", reason, message, timestamp_seconds(self._now), updated=True)
        self._entries = conditions.put(self._entries, made)

    async def _write_status(self, status: Object) -> None:
        if status == (self._deployment.get("status") or {}):
            return
        try:
            await self._client.update(DEPLOYMENTS, {**self._deployment, "status": status}, subresource="status")
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _tell_scaled(self, direction: str, replica_set: Object, before: int, after: int) -> None:
        message = f"Scaled {direction} replica set {name_of(replica_set)} from {before} to {after}"
        self._controller.recorder.event(self._deployment, DEPLOYMENTS, "Normal", "ScalingReplicaSet", message)
